"""Each construct of the builder gives exactly the document that one writes by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from wf_core import task, workflow
from wf_core.builder import BuildError, Workflow, payload, size
from wf_core.errors import DocumentError
from wf_core.schema.document import WorkflowSchema
from wf_core.schema.loading import load_json, load_yaml
from wf_core.schema.validation import parse_document


@task("shop.price")
async def price(order: dict[str, Any], currency: str = "EUR") -> float:
    """A task with a parameter that it needs and one that it does not."""
    return 1.0


def nodes(wf: Workflow) -> Any:
    """The nodes, once the document was found right."""
    parse_document(wf.to_dict())
    return wf.to_dict()["nodes"]


def test_the_head():
    """Fields that were not given are not there."""

    class Input(BaseModel):
        day: str

    with workflow(
        "orders", description="all", version="2", labels={"team": "a"}, input=Input, retry={"max_retries": 1},
        node_timeout="5m", timeout=timedelta(hours=1), on_failure="cancel", max_parallel=3, scheduling="priority",
    ) as wf:  # fmt: skip
        wf.concurrency(wf.input.day, on_conflict="skip")
        wf.task("core.noop")
        wf.returns({"day": wf.input.day, "id": wf.execution.id})
    assert wf.to_dict() == {
        "name": "orders",
        "description": "all",
        "version": "2",
        "labels": {"team": "a"},
        "input": Input.model_json_schema(),
        "defaults": {"retry": {"max_retries": 1}, "timeout": "5m"},
        "timeout": "3600s",
        "on_failure": "cancel",
        "max_parallel": 3,
        "scheduling": "priority",
        "concurrency": {"key": "${{ input.day }}", "limit": 1, "on_conflict": "skip"},
        "nodes": {"noop": {"task": "core.noop"}},
        "output": {"day": "${{ input.day }}", "id": "${{ execution.id }}"},
    }
    assert isinstance(wf.document(), WorkflowSchema)


def test_tasks_and_references():
    """Keywords are parameters or options; a node as a value is its output; ids are made unique."""
    with workflow("w") as wf:
        rows = wf.task("http.request", url=f"https://shop/{wf.input.day}", timeout="5s", params={"retry": 1})
        again = wf.task("http.request", body={"first": rows.output.body[0], "all": [rows]}, depends_on=rows)
        wf.task("core.noop", "tidy", depends_on=[rows, "request_2"], join="all_done", when=again.output.n > 3)
        wf.task(price, order=rows, retry={"max_retries": 2}, cache={"key": rows.output.id, "ttl": "1h"}, priority=9)
    assert nodes(wf) == {
        "request": {
            "task": "http.request",
            "params": {"retry": 1, "url": "https://shop/${{ input.day }}"},
            "timeout": "5s",
        },
        "request_2": {
            "task": "http.request",
            "params": {
                "body": {"first": "${{ nodes.request.output.body[0] }}", "all": ["${{ nodes.request.output }}"]}
            },
            "depends_on": ["request"],
        },
        "tidy": {
            "task": "core.noop",
            "depends_on": ["request", "request_2"],
            "join": "all_done",
            "when": "nodes.request_2.output.n > 3",
        },
        "price": {
            "task": "shop.price",
            "params": {"order": "${{ nodes.request.output }}"},
            "retry": {"max_retries": 2},
            "cache": {"key": "${{ nodes.request.output.id }}", "ttl": "1h"},
            "priority": 9,
        },
    }


def test_a_map_of_a_task():
    """The one parameter that is missing gets the item."""
    with workflow("w") as wf:
        rows = wf.task("http.request", url="x")
        wf.map(price, over=rows.output.body, as_="order", max_parallel=20, tolerate="10%", retry={"max_retries": 0})
        wf.map("core.echo", "plain", over=[1, 2], params={"value": 1}, order="sequential", batch=2)
    assert nodes(wf)["price"] == {
        "kind": "map",
        "items": "${{ nodes.request.output.body }}",
        "as": "order",
        "max_parallel": 20,
        "tolerate": "10%",
        "retry": {"max_retries": 0},
        "task": "shop.price",
        "params": {"order": "${{ order }}"},
    }
    assert nodes(wf)["plain"] == {
        "kind": "map",
        "items": [1, 2],
        "batch": 2,
        "order": "sequential",
        "task": "core.echo",
        "params": {"value": 1},
    }


def test_bodies_of_maps_and_loops():
    """Nodes go into the innermost block; a container's own methods put them inside as well."""
    with workflow("w") as wf:
        first = wf.task("core.echo", value=[1])
        with wf.map(over=first.output, id="m") as each:
            one = wf.task("core.echo", "one", value=[each.item, each.index, first])
            with wf.loop(max_iterations=5, delay="5s", keep_last=2) as poll:
                check = poll.task("core.echo", "check", value={"n": poll.iteration, "last": poll.last, "one": one})
                poll.until(check.output.n == 3)
            each.returns({"polled": poll})
        wf.loop("empty", while_=first.output.more, max_iterations=1).task("core.noop", "x")
        wf.task("core.echo", "end", value=each.output)
    assert nodes(wf)["m"] == {
        "kind": "map",
        "items": "${{ nodes.echo.output }}",
        "nodes": {
            "one": {
                "task": "core.echo",
                "params": {"value": ["${{ item }}", "${{ index }}", "${{ nodes.echo.output }}"]},
            },
            "loop": {
                "kind": "loop",
                "max_iterations": 5,
                "delay": "5s",
                "keep_last": 2,
                "nodes": {
                    "check": {
                        "task": "core.echo",
                        "params": {
                            "value": {"n": "${{ iteration }}", "last": "${{ last }}", "one": "${{ nodes.one.output }}"}
                        },
                    }
                },
                "until": "nodes.check.output.n == 3",
            },
        },
        "output": {"polled": "${{ nodes.loop.output }}"},
    }
    assert nodes(wf)["empty"] == {
        "kind": "loop",
        "max_iterations": 1,
        "while": "nodes.echo.output.more",
        "nodes": {"x": {"task": "core.noop"}},
    }
    assert nodes(wf)["end"]["params"] == {"value": "${{ nodes.m.output }}"}


def test_a_switch_names_the_nodes_of_its_blocks():
    """Those of a switch inside of a block belong to that one."""
    with workflow("w") as wf:
        rows = wf.task("core.echo", "rows")
        check = wf.switch("check")
        with check.case(size(rows.output) > 10):
            a = wf.task("core.noop", "a")
            wf.task("core.noop", "b", depends_on=a)
        with check.case(rows.output.odd):
            inner = wf.switch("inner")
            with inner.case(when="true"):
                wf.task("core.noop", "c")
        with check.default():
            wf.task("core.noop", "d")
        wf.switch("listed", cases=[(rows.output.x == 1, [a])], default=["d"], depends_on=rows)
    assert {name: nodes(wf)[name] for name in ("check", "inner", "listed")} == {
        "check": {
            "kind": "switch",
            "cases": [
                {"when": "size(nodes.rows.output) > 10", "to": ["a", "b"]},
                {"when": "nodes.rows.output.odd", "to": ["inner"]},
            ],
            "default": ["d"],
        },
        "inner": {"kind": "switch", "cases": [{"when": "true", "to": ["c"]}], "default": []},
        "listed": {
            "kind": "switch",
            "cases": [{"when": "nodes.rows.output.x == 1", "to": ["a"]}],
            "default": ["d"],
            "depends_on": ["rows"],
        },
    }


def test_catch_compensate_and_finally():
    """The remedies."""
    with workflow("w") as wf:
        charge = wf.task("shop.charge", amount=3, on_error="fail")
        charge.compensate("shop.refund", charge=charge.output.id)
        with charge.catch(["CardError"], as_="problem") as problem:
            wf.task("shop.tell", text=problem.message)
        other = wf.task("core.noop", "other")
        charge.catch(to=other)
        wf.task(
            "core.noop", "last", catch=[{"errors": ["E"], "to": other, "as": "e"}], compensate={"task": "core.noop"}
        )
        with wf.finally_():
            wf.task("shop.close", status=wf.execution.status, charge=charge.status)
    assert nodes(wf) == {
        "charge": {
            "task": "shop.charge",
            "params": {"amount": 3},
            "on_error": "fail",
            "compensate": {"task": "shop.refund", "params": {"charge": "${{ nodes.charge.output.id }}"}},
            "catch": [{"errors": ["CardError"], "as": "problem", "to": "tell"}, {"to": "other"}],
        },
        "tell": {"task": "shop.tell", "params": {"text": "${{ problem.message }}"}},
        "other": {"task": "core.noop"},
        "last": {
            "task": "core.noop",
            "catch": [{"errors": ["E"], "to": "other", "as": "e"}],
            "compensate": {"task": "core.noop"},
        },
    }
    assert wf.to_dict()["finally"] == {
        "close": {
            "task": "shop.close",
            "params": {"status": "${{ execution.status }}", "charge": "${{ nodes.charge.status }}"},
        }
    }


def test_children():
    """Registered ones, and one that is written here and sees its own input only."""
    with workflow("w") as wf:
        rows = wf.task("core.echo", "rows")
        wf.call("billing", input={"rows": rows}, version="3", on_parent_close="abandon", timeout="1h")
        with wf.call(id="inline", input=rows, defaults={"timeout": "5s"}) as child:
            wf.task("core.echo", "inner", value=child.input.rows)
            child.returns(child.input)
    assert nodes(wf)["billing"] == {
        "kind": "workflow",
        "workflow": "billing",
        "input": {"rows": "${{ nodes.rows.output }}"},
        "version": "3",
        "on_parent_close": "abandon",
        "timeout": "1h",
    }
    assert nodes(wf)["inline"] == {
        "kind": "workflow",
        "input": "${{ nodes.rows.output }}",
        "defaults": {"timeout": "5s"},
        "nodes": {"inner": {"task": "core.echo", "params": {"value": "${{ input.rows }}"}}},
        "output": "${{ input }}",
    }


def test_waits_approvals_ends_and_dynamic_nodes():
    """The other kinds."""
    with workflow("w") as wf:
        rows = wf.task("core.echo", "rows")
        wf.wait(duration=timedelta(minutes=5))
        wf.wait(signal="paid", match=payload.order == rows.output.id, timeout="1d", on_timeout={"value": None})
        wf.wait(any=[{"signal": "go", "match": payload.ok}, {"until": rows.output.at}], depends_on=rows)
        wf.approval(schema={"type": "boolean"}, assignees=["ann"], timeout="2d", on_timeout="skip")
        wf.end(status="FAILED", error=f"no rows: {rows.output.why}", when=size(rows.output) == 0)
        wf.dynamic(rows.output.plan, allow=["shop.*"], max_nodes=5)
    assert nodes(wf) == {
        "rows": {"task": "core.echo"},
        "wait": {"kind": "wait", "duration": "300s"},
        "paid": {
            "kind": "wait",
            "signal": "paid",
            "match": "payload.order == nodes.rows.output.id",
            "timeout": "1d",
            "on_timeout": {"value": None},
        },
        "wait_2": {
            "kind": "wait",
            "any": [{"signal": "go", "match": "payload.ok"}, {"until": "${{ nodes.rows.output.at }}"}],
            "depends_on": ["rows"],
        },
        "approval": {
            "kind": "approval",
            "schema": {"type": "boolean"},
            "assignees": ["ann"],
            "timeout": "2d",
            "on_timeout": "skip",
        },
        "end": {
            "kind": "end",
            "status": "FAILED",
            "error": "no rows: ${{ nodes.rows.output.why }}",
            "when": "size(nodes.rows.output) == 0",
        },
        "dynamic": {
            "kind": "dynamic",
            "nodes": "${{ nodes.rows.output.plan }}",
            "allow": ["shop.*"],
            "max_nodes": 5,
        },
    }


def test_text_forms_are_the_same_document():
    """Also where YAML would read a text as something else."""
    with workflow("w", labels={"no": "on", "n": "012", "o": "0o14", "é": "1e3"}) as wf:
        wf.task("core.echo", value={"text": "a\nb", "y": None, "yes": "~"})
    assert load_yaml(wf.to_yaml().encode()) == load_json(wf.to_json().encode()) == wf.to_dict()


def test_the_document_is_checked_when_the_block_ends():
    """With every problem; not when the block raised."""
    with pytest.raises(DocumentError, match="there is no node 'nobody'"), workflow("w") as wf:
        wf.task("core.noop", depends_on=["nobody"])
    with pytest.raises(ZeroDivisionError), workflow("w"):
        raise ZeroDivisionError


def _inside(wf: Workflow) -> Any:
    with wf.map(over=[1], id="m"):
        return wf.task("core.echo", "one")


def _loop_item(wf: Workflow) -> Any:
    with wf.map(over=[1], id="m") as each:
        wf.task("core.noop")
    wf.task("core.echo", value=each.item)


def _own_container(wf: Workflow) -> Any:
    with wf.map(over=[1], id="m") as each:
        wf.task("core.echo", value=each.output)


def _outer_in_child(wf: Workflow) -> Any:
    rows = wf.task("core.echo", "rows")
    with wf.call(id="child"):
        wf.task("core.echo", value=rows)


def _outer_input_in_child(wf: Workflow) -> Any:
    with wf.call(id="child"):
        wf.task("core.echo", value=f"{wf.input.day}")


def _finally_in_root(wf: Workflow) -> Any:
    with wf.finally_():
        last = wf.task("core.noop", "last")
    wf.task("core.echo", value=last.output)


def _another_workflow(wf: Workflow) -> Any:
    with workflow("other") as other:
        rows = other.task("core.noop", "rows")
    wf.task("core.echo", value=rows)


def _empty_catch(wf: Workflow) -> Any:
    with wf.task("core.noop").catch():
        pass


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda wf: wf.task("core.echo", value=_inside(wf).output), "'one' is known in the inside of 'm' only, not in"),
        (lambda wf: f"{_inside(wf).output}", "'one' is known in the inside of 'm' only"),
        (lambda wf: wf.task("core.noop", when=_inside(wf).output.x), "'one' is known in the inside of 'm' only"),
        (lambda wf: wf.returns(_inside(wf)), "'one' is known in the inside of 'm' only"),
        (_loop_item, "'item' is known in the inside of 'm' only, not in the workflow itself"),
        (_own_container, "what is inside of 'm' cannot wait for 'm' itself"),
        (_outer_in_child, "not in the inside of 'child'; give it to the child as input"),
        (_outer_input_in_child, "'input' is known in the workflow itself only"),
        (_finally_in_root, "'last' is known in the inside of 'finally' only"),
        (_another_workflow, "the node 'rows' is one of another workflow; call that one"),
        (_empty_catch, "a catch needs the node that runs then"),
        (lambda wf: [wf.task("core.noop", "a") for _ in "ab"], "the id 'a' is that of another node already"),
        (lambda wf: wf.task("core.noop", "a/b"), "an id may hold no"),
        (lambda wf: wf.task(price), "the task 'shop.price' needs 'order'"),
        (lambda wf: wf.task(price, order={}, curency="x"), "takes no 'curency'; did you mean 'currency'"),
        (lambda wf: wf.task(len), "decorated with @task"),
        (lambda wf: wf.map(over=[1], value=1), "a map without a task takes no parameters: value"),
        (lambda wf: wf.loop(max_iterations=1, wile=1), "a node takes no 'wile'"),
        (lambda wf: wf.task("core.noop", depends_on=wf.task("core.noop").output), "pass the node itself"),
        (lambda wf: wf.task("core.echo", value={1: 2}), "keys are plain texts"),
        (lambda wf: wf.task("core.echo", value=object()), "is no JSON value"),
        (lambda _: workflow("w", input=3), "a JSON Schema or a pydantic model"),
    ],
)  # fmt: skip
def test_mistakes_are_named_at_once(build: Any, sentence: str):
    """Where they are made, not when the document is sent."""
    with pytest.raises(BuildError, match=sentence), workflow("w") as wf:
        build(wf)


def test_a_node_is_its_output_in_conditions():
    """Comparing a node compares its output, a node may be a condition, and neither becomes Python's own truth."""
    with workflow("orders") as wf:
        ask = wf.task("core.echo", "ask", value=True)
        wf.task("core.noop", "same", when=ask == 1)
        wf.task("core.noop", "other", when=ask != 1)
        wf.task("core.noop", "held", when=ask)
    assert [node.get("when") for node in nodes(wf).values()] == [
        None,
        "nodes.ask.output == 1",
        "nodes.ask.output != 1",
        "nodes.ask.output",
    ]
    with pytest.raises(BuildError, match="while the workflow is being built"):
        wf.task("core.noop", "wrong", when=not ask)
