"""What runs in place of a task, and how its virtual time passes."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest

from wf_core import Fatal, RetryAfter, TaskContext, task
from wf_core.wire import FrozenSettings, RetrySettings
from wf_orchestrator.testing import UnknownStubError, UnknownTaskError, answers, run, stub, stubs

NO_RETRY = FrozenSettings(retry=RetrySettings(max_retries=0))


@task("shop.price")
async def price(ctx: TaskContext, quantity: int, unit: float = 2.5) -> dict[str, Any]:
    """Costs something, and an hour."""
    await asyncio.sleep(3600)
    return {"total": quantity * unit, "reference": ctx.idempotency_key, "attempt": ctx.attempt}


def one(**node: Any) -> dict[str, Any]:
    return {"nodes": {"a": {"task": "shop.price", **node}}}


def test_a_real_task_runs_in_the_tests_process_and_its_sleep_takes_no_time():
    """Parameters are converted by the annotations, the context is the node's."""
    result = run(one(params={"quantity": 4}), tasks=[price])
    assert (result.status, result.elapsed) == ("COMPLETED", timedelta(hours=1))
    assert result.output == {"total": 10.0, "reference": f"{result.execution_id}/a", "attempt": 1}


async def test_it_runs_beside_a_running_event_loop():
    """So an async test may use it as it is."""
    assert run(one(params={"quantity": 1}), tasks=[price]).output["total"] == 2.5


def test_parameters_that_do_not_fit_fail_the_node_without_a_retry():
    """As they do on a worker."""
    node = run(one(params={"quantity": "many"}), tasks=[price]).node("a")
    assert node.error is not None
    assert (node.status, node.error.type, len(node.attempts)) == ("FAILED", "ParametersError", 1)


def test_a_plain_function_runs_too():
    """In the thread of the test."""
    threads: list[Any] = []

    @task("shop.price")
    def sync(quantity: int) -> int:
        threads.append(threading.current_thread())
        return quantity

    assert run(one(params={"quantity": 3}), tasks=[sync]).output == 3
    assert threads == [threading.current_thread()]


def test_time_is_real_while_a_task_waits_for_a_thread():
    """A timer far away does not fire meanwhile."""

    @task("shop.price")
    async def threaded() -> str:
        return await asyncio.wait_for(asyncio.to_thread(lambda: "done"), timeout=5)

    found = run(one(), tasks=[threaded])
    assert (found.output, found.error) == ("done", None)


@pytest.mark.parametrize(
    ("reply", "output"),
    [
        ({"total": 1}, {"total": 1}),
        ([1, 2], [1, 2]),
        (None, None),
        (lambda params: params["quantity"] + 1, 5),
        (lambda params, ctx: [params["quantity"], ctx.node, ctx.attempt], [4, "a", 1]),
        (lambda: 7, 7),
        (price, {"total": 10.0}),
    ],
)
def test_a_stub_is_a_value_or_a_function(reply: Any, output: Any):
    """A function gets as much of the parameters and the context as it takes."""
    found = run(one(params={"quantity": 4}), tasks={"shop.price": reply}).output
    assert found == output or found["total"] == output["total"]


async def _later(params: Any) -> Any:
    await asyncio.sleep(60)
    return params


def test_a_function_may_be_async():
    """It takes virtual time."""
    assert run(one(params={"quantity": 4}), tasks={"shop.price": _later}).elapsed == timedelta(minutes=1)


@pytest.mark.parametrize("error", [ValueError("no tea"), ValueError])
def test_an_exception_is_raised(error: Any):
    """By its class or as it is; the retry policy is asked."""
    node = run(one(retry={"max_retries": 2, "policy": "fixed"}), tasks={"shop.price": error}).node("a")
    assert node.error is not None
    assert (node.status, node.error.type, len(node.attempts)) == ("FAILED", "ValueError", 3)
    assert [attempt.decision for attempt in node.attempts] == ["retry", "retry", "stop"]


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()])
def test_a_task_cannot_end_the_test(error: Any):
    """What would end a process, or cancel a coroutine, is a failure like any other."""

    @task("shop.price")
    async def leaving() -> None:
        raise error

    node = run(one(), tasks=[leaving], settings=NO_RETRY).node("a")
    assert node.error is not None
    assert node.error.type == type(error).__name__


def test_a_stub_may_fail_the_test():
    """An assertion in it is a failure of the node; pytest's own `fail` is one of the test."""

    def check(params: Any) -> None:
        pytest.fail(f"unexpected {params}")

    with pytest.raises(pytest.fail.Exception, match="unexpected"):
        run(one(), tasks={"shop.price": check})


def test_fatal_and_retry_after_count():
    """As they do on a worker."""
    assert len(run(one(), tasks={"shop.price": Fatal("no")}).node("a").attempts) == 1
    found = run(one(), tasks={"shop.price": answers(RetryAfter(7200), 1)})
    assert (found.output, found.elapsed) == (1, timedelta(hours=2))


def test_answers_go_by_attempt_and_the_last_one_stays():
    """Each may have a duration of its own."""
    found = run(one(), tasks={"shop.price": answers(ValueError("busy"), stub(5, takes="10s"))})
    assert (found.output, len(found.node("a").attempts)) == (5, 2)
    assert found.elapsed > timedelta(seconds=10)


def test_a_node_has_a_stub_of_its_own():
    """It is stronger than that of its task."""
    document = {"nodes": {"a": {"task": "t"}, "b": {"task": "t"}}}
    assert run(document, tasks={"t": 1}, nodes={"b": 2}).output == {"a": 1, "b": 2}


def test_what_is_too_long_or_no_json_fails_the_node():
    """As it does on a worker."""
    for reply in (float("nan"), object(), "x" * 300_000):
        node = run(one(), tasks={"shop.price": stub(reply)}).node("a")
        assert node.error is not None
        assert (node.error.type, len(node.attempts)) == ("PayloadError", 1)


def test_a_timeout_ends_what_takes_longer():
    """Of the document, else of the task."""
    short = task("shop.price", timeout="5m")(price.function)
    for node, tasks, seconds in [
        ({"timeout": "1s"}, {"shop.price": stub(takes="5s")}, 1),
        ({"timeout": "90s", "params": {"quantity": 1}}, [price], 90),
        ({"params": {"quantity": 1}}, [short], 300),
    ]:
        found = run(one(**node), tasks=tasks, settings=NO_RETRY)
        assert (found.status, found.elapsed) == ("FAILED", timedelta(seconds=seconds))
        assert [attempt.status for attempt in found.node("a").attempts] == ["TIMED_OUT"]


@task("shop.prize")
def prize() -> None:
    """Nothing that a document here runs."""


def test_an_unknown_task_says_what_there_is_and_what_to_do():
    """It is no failure of the workflow."""
    with pytest.raises(UnknownTaskError, match=r"node 'a' runs the task 'shop\.price'.*: .*shop\.prize.*tasks="):
        run(one(), tasks=[prize])


NESTED: dict[str, Any] = {
    "nodes": {
        "m": {"kind": "map", "items": [1], "nodes": {"one": {"task": "t", "compensate": {"task": "undo"}}}},
        "short": {"kind": "map", "items": [1], "task": "t"},
        "l": {"kind": "loop", "until": "true", "max_iterations": 2, "nodes": {"step": {"task": "t"}}},
        "c": {"kind": "workflow", "nodes": {"deep": {"task": "inner"}}},
    },
    "finally": {"end": {"task": "t"}},
}


def test_a_stand_in_for_what_no_document_has_is_refused():
    """A typo would do nothing otherwise; all of them are named, with what they are near to."""
    with pytest.raises(UnknownStubError, match=r"'innr'.*mean 'inner'.*'m\[3\]/on'.*mean 'm\[0\]/one'"):
        run(NESTED, tasks={"innr": 1, "t": 2, "undo": 3}, nodes={"m[3]/on": 1})
    for path in ("m/one", "l[0]/step", "c/deep", "zz"):
        with pytest.raises(UnknownStubError, match="there is no such node"):
            run(NESTED, tasks={"t": 1, "inner": 2, "undo": 3}, nodes={path: 1})


def test_a_stand_in_that_is_not_used_is_no_mistake():
    """An item that there is not this time, a task that is installed, whatever a dynamic node may give."""
    paths = ("m[7]/one", "m[0]/one~compensate", "short[0]", "l#1/step", "deep", "end", "c")
    tasks = {"t": 1, "inner": 2, "undo": 3, **dict.fromkeys(stubs._installed(), 4)}
    assert run(NESTED, tasks=tasks, nodes=dict.fromkeys(paths, 5)).status == "COMPLETED"
    dynamic = {"nodes": {"d": {"kind": "dynamic", "nodes": "${{ input.plan }}"}}}
    plan = {"a": {"task": "t"}}
    assert run(dynamic, input={"plan": plan}, tasks={"t": 1, "u": 1}, nodes={"d/b": 1}).output == {"a": 1}


def test_slots_bound_what_runs_at_once():
    """Higher priority first, then the order of the document."""
    nodes = {name: {"task": "t", "priority": priority} for name, priority in [("a", 1), ("b", 9), ("c", 5)]}
    started: list[str] = []

    def note(_params: Any, ctx: TaskContext) -> None:
        started.append(ctx.node)

    found = run({"scheduling": "priority", "nodes": nodes}, tasks={"t": stub(note, takes="10s")}, slots=1)
    assert (found.elapsed, started) == (timedelta(seconds=30), ["b", "c", "a"])
