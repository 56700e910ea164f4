"""One workflow of each kind, built in Python and run in the harness."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from wf_core import TaskContext, task, workflow
from wf_core.builder import Workflow, payload, size
from wf_core.errors import DocumentError
from wf_orchestrator.testing import CommandRefusedError, Harness, answers, restart, run, stub

ECHO = {"t": lambda params: params.get("value")}
OFTEN = [restart(every=1)]


def both(document: Workflow | dict[str, Any], **options: Any) -> Any:
    """A run; the same one with a restart behind each record has to give the same."""
    options.setdefault("tasks", ECHO)
    found = run(document, **options)
    assert found.crashes == []
    assert run(document, faults=OFTEN, **options) == found
    return found


def test_a_switch():
    """The nodes of the other cases are skipped."""
    with workflow("w") as wf:
        rows = wf.task("t", "rows", value=[1])
        check = wf.switch("check")
        with check.case(size(rows.output) > 1):
            wf.task("t", "many", value="many")
        with check.default():
            wf.task("t", "few", value="few")
    assert both(wf).statuses() == {"rows": "COMPLETED", "check": "COMPLETED", "many": "SKIPPED", "few": "COMPLETED"}


def test_a_map_of_bodies_and_a_map_of_a_task():
    """Outputs stand in the order of the items."""
    with workflow("w") as wf:
        with wf.map(over=[1, 2, 3], id="m", max_parallel=2) as each:
            one = wf.task("t", "one", value=each.item + each.index)
            wf.task("t", "two", value=one.output * 10)
        wf.map("t", "again", over=each.output, params={"value": "${{ item }}"})
    found = both(wf, tasks={"t": stub(ECHO["t"], takes="1s")})
    assert (found.output, found.elapsed) == ([10, 30, 50], timedelta(seconds=5))
    assert found.node("m[2]/two").output == 50
    assert found.dispatched[:2] == ["m[0]/one", "m[1]/one"]
    assert set(found.results) == {"m", "again"}


def test_a_loop():
    """With a delay between the passes, in virtual time."""
    with workflow("w") as wf, wf.loop("poll", max_iterations=5, delay="1h") as poll:
        check = wf.task("t", "check", n=poll.iteration)
        poll.until(check.output.done)
    found = both(wf, tasks={"t": lambda params: {"done": params["n"] == 2}})
    assert (found.status, found.elapsed) == ("COMPLETED", timedelta(hours=2))
    assert found.node("poll#2/check").input == {"n": 2}


def test_children():
    """Registered ones, and one that is written in its parent; each is a run of its own."""
    with workflow("billing", input={"required": ["rows"]}) as billing:
        billing.task("t", "bill", value=billing.input.rows)
    with workflow("w") as wf:
        wf.call("billing", input={"rows": 3})
        with wf.call(id="inline", input={"x": 4}) as child:
            wf.task("t", "inner", value=child.input.x)
    found = both(wf, definitions={"billing": billing})
    assert found.output == {"billing": 3, "inline": 4}
    assert found.children["billing"].node("bill").output == 3
    missing = run(wf, tasks=ECHO)
    assert missing.error is not None
    assert "pass definitions={'billing'" in missing.error.message


def test_what_a_child_says_as_it_cancels_itself_is_caught():
    """As around a map whose body has the same `end`."""
    stop = {"kind": "end", "status": "CANCELLED", "error": {"type": "OutOfStock", "message": "none left"}}
    nodes = {
        "order": {"kind": "workflow", "nodes": {"stop": stop}, "catch": [{"errors": ["OutOfStock"], "to": "mend"}]},
        "mend": {"task": "t", "params": {"value": "${{ nodes.order.error.message }}"}},
    }
    found = both({"nodes": nodes})
    assert (found.status, found.children["order"].status) == ("COMPLETED", "CANCELLED")
    assert found.node("mend").output.endswith("was cancelled: none left")


def test_a_wait_of_a_day():
    """It takes no time, and holds no slot."""
    with workflow("w") as wf:
        wf.wait("day", duration="24h")
        wf.wait("time", until="2026-01-01T12:00:00Z")
    assert both(wf, tasks={}).elapsed == timedelta(hours=24)


def test_a_wait_for_a_signal():
    """Early or late; what does not match does not end it."""
    with workflow("w") as wf:
        wf.wait(signal="paid", match=payload.order == wf.input.order)
    assert both(wf, tasks={}, input={"order": 7}, signals={"paid": {"order": 7}}).output == {"order": 7}
    harness = Harness(wf, input={"order": 7})
    harness.advance("3d")
    harness.signal("paid", {"order": 8})
    assert harness.run_until_idle().statuses() == {"paid": "WAITING"}
    harness.signal("paid", {"order": 7})
    assert harness.run_until_idle().status == "COMPLETED"


def test_an_approval():
    """Answered as soon as it is asked for, or by hand; an answer that does not fit is refused."""
    with workflow("w") as wf:
        asked = wf.approval(schema={"type": "boolean"}, assignees=["ann"], timeout="2d")
        wf.task("t", "go", value="went", when=asked.output)
    assert both(wf, approvals={"approval": True}).results["go"] == "went"
    harness = Harness(wf, tasks=ECHO)
    with pytest.raises(DocumentError):
        harness.approve("approval", "yes")
    harness.approve("approval", False)
    assert harness.run_until_idle().node("go").status == "SKIPPED"
    with pytest.raises(CommandRefusedError, match="only an approval that is WAITING"):
        harness.approve("approval", True)
    assert both(wf).elapsed == timedelta(days=2)


def test_an_end():
    """It ends the execution at once."""
    with workflow("w") as wf:
        rows = wf.task("t", "rows", value=[])
        wf.end(status="FAILED", error={"type": "NoRows", "message": "no rows"}, when=size(rows.output) == 0)
        wf.task("slow", "slow")
    found = both(wf, tasks={**ECHO, "slow": stub(takes=None)})
    assert found.error is not None
    assert (found.status, found.error.type, found.node("slow").status) == ("FAILED", "NoRows", "CANCELLED")


def test_dynamic_nodes():
    """They are checked like a document."""
    with workflow("w") as wf:
        plan = wf.task("plan")
        wf.dynamic(plan.output, allow=["t"])
    nodes = {"a": {"task": "t", "params": {"value": 1}}, "b": {"task": "t", "depends_on": ["a"]}}
    assert both(wf, tasks={**ECHO, "plan": stub(nodes)}).output == {"a": 1, "b": None}
    refused = both(wf, tasks={"plan": stub({"a": {"task": "shell.run"}})})
    assert refused.status == "FAILED"


def test_catch_compensation_and_finally():
    """The remedies, in their order."""
    with workflow("w", retry={"max_retries": 0}) as wf:
        charge = wf.task("t", "charge", value="c1").compensate("t", value=1)
        ship = wf.task("ship", depends_on=charge)
        with ship.catch("OutOfStock", as_="why") as why:
            wf.task("t", "tell", value=why.message)
        wf.task("broken", depends_on=ship, join="all_done")
        with wf.finally_():
            wf.task("t", "close", value=wf.execution.status)
    out = type("OutOfStock", (Exception,), {})
    found = both(wf, tasks={**ECHO, "ship": out("no tea"), "broken": ValueError("no")})
    assert (found.status, found.node("tell").output) == ("FAILED", "no tea")
    assert found.statuses()["charge~compensate"] == "COMPLETED"
    assert found.node("close").output == "FAILED"


def test_a_cache():
    """The second node with the same key runs nothing."""
    with workflow("w") as wf:
        first = wf.task("t", "first", value=1, cache={"key": "k", "ttl": "1h"})
        wf.task("t", "second", value=1, depends_on=first, cache={"key": "k", "ttl": "1h"})
    assert both(wf, tasks={"t": stub(5, takes="1m")}).dispatched == ["first"]


def test_a_concurrency_key():
    """Alone, an execution gets it at once."""
    with workflow("w") as wf:
        wf.task("t", value=1)
        wf.concurrency(wf.input.customer)
    assert both(wf, input={"customer": "c"}).output == 1


def test_pause_resume_and_retry():
    """While it is paused nothing starts; what was done is not done again."""
    with workflow("w", retry={"max_retries": 0}) as wf:
        one = wf.task("one")
        wf.task("two", depends_on=one)
    harness = Harness(wf, tasks={"one": stub(1, takes="1h"), "two": answers(ValueError("no"), 2)})
    harness.advance("30m")
    harness.pause()
    assert harness.advance("10h").statuses() == {"one": "COMPLETED", "two": "PENDING"}
    assert harness.status == "PAUSED"
    harness.resume()
    assert harness.run_until_idle().status == "FAILED"
    harness.restart()
    harness.retry()
    assert harness.run_until_idle().output == 2
    assert harness.run.dispatched == ["one", "two", "two"]


@pytest.mark.parametrize("inside", [False, True])
def test_a_retry_after_a_compensation_sees_nothing_of_what_was_undone(inside: bool):
    """What comes after an undone node is made of its new output, in the document itself and inside a map."""
    booking = {
        "hotel": {"task": "book", "compensate": {"task": "t", "params": {"value": "${{ nodes.hotel.output }}"}}},
        "invoice": {"task": "t", "params": {"value": "invoice for ${{ nodes.hotel.output }}"}},
    }
    trip = {"kind": "map", "items": [1], "nodes": booking, "output": "${{ nodes.invoice.output }}"}
    before = {"trip": trip} if inside else booking
    invoice = "trip" if inside else "invoice"
    nodes = {**before, "flight": {"task": "fly", "depends_on": [invoice]}}
    document = {
        "nodes": nodes,
        "defaults": {"retry": {"max_retries": 0}},
        "output": f"${{{{ nodes.{invoice}.output }}}}",
    }
    harness = Harness(document, tasks={**ECHO, "book": answers("H1", "H2"), "fly": answers(ValueError("no"), "F1")})
    assert harness.run_until_idle().status == "FAILED"
    hotel = "trip[0]/hotel" if inside else "hotel"
    assert harness.run.node(f"{hotel}~compensate").output == "H1"
    harness.retry()
    found = harness.run_until_idle()
    assert (found.status, found.node(hotel).output) == ("COMPLETED", "H2")
    assert found.output == (["invoice for H2"] if inside else "invoice for H2")


def test_heartbeats():
    """A task that is silent for longer than its heartbeat is ended."""
    document = {"nodes": {"a": {"task": "t", "heartbeat": "30s", "retry": {"max_retries": 0}}}}
    found = run(document, tasks={"t": stub(takes="1h", silent=True)})
    assert found.error is not None
    assert (found.error.type, found.elapsed) == ("HeartbeatTimeoutError", timedelta(seconds=30))
    assert run(document, tasks={"t": stub(1, takes="1h")}).output == 1


def test_a_task_that_beats_is_left_alone():
    """As long as it does."""

    @task("t")
    async def beating(ctx: TaskContext, beats: int) -> str:
        for beat in range(beats):
            ctx.heartbeat(beat)
            await asyncio.sleep(20)
        await asyncio.sleep(20)
        return "done"

    node: dict[str, Any] = {"task": "t", "heartbeat": "30s", "retry": {"max_retries": 0}}
    found = run({"nodes": {"a": {**node, "params": {"beats": 9}}}}, tasks=[beating])
    assert (found.status, found.elapsed) == ("FAILED", timedelta(seconds=190))
    assert run({"nodes": {"a": {**node, "params": {"beats": 0}}}}, tasks=[beating]).output == "done"


def test_a_queue_timeout():
    """When no worker takes it."""
    document = {"nodes": {"a": {"task": "t", "queue_timeout": "5m", "retry": {"max_retries": 0}}}}
    found = both(document, slots=0)
    assert (found.status, found.elapsed) == ("FAILED", timedelta(minutes=5))
