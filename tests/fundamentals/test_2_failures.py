"""What happens when a task fails."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def node(task: str = "core.noop", *after: str, **fields: Any) -> dict[str, Any]:
    """A node with params."""
    params = {k: fields.pop(k) for k in ("value", "times", "message", "seconds", "fatal") if k in fields}
    return {"task": task, "depends_on": list(after), "params": params, **fields}


QUICK = {"retry": {"delay": "100ms", "base": 2, "jitter": 0, "max_retries": 2}}


async def test_a_failing_task_is_retried_with_growing_delays_and_recovers(engine):
    """`max_retries` counts retries; delays are delay × base^(n−1); each attempt is kept with its error."""
    document = {"name": "recovers", "defaults": QUICK, "nodes": {"f": node("core.fail", times=2, value="ok")}}
    view = await engine.run(document)
    assert (view["status"], view["output"]) == ("COMPLETED", "ok")
    history = (await engine.get(f"/workflows/{view['execution_id']}/nodes/f"))["history"]
    assert [(a["attempt"], a["status"]) for a in history] == [(1, "FAILED"), (2, "FAILED"), (3, "COMPLETED")]
    assert history[0]["error"]["type"] == "DeliberateError"
    assert "attempt 1" in history[0]["error"]["message"]
    assert "Traceback" in history[0]["error"]["traceback"]
    ended = [datetime.fromisoformat(a["ended_at"]) for a in history]
    started = [datetime.fromisoformat(a["started_at"]) for a in history]
    assert (started[1] - ended[0]).total_seconds() >= 0.1
    assert (started[2] - ended[1]).total_seconds() >= 0.2


async def test_after_the_last_retry_the_node_fails_and_the_workflow_is_halted(engine):
    """The failed node is named; what depended on it is UPSTREAM_FAILED; what had not started is CANCELLED."""
    document = {
        "name": "halts",
        "defaults": QUICK,
        "nodes": {
            "bad": node("core.fail", message="no stock"),
            "child": node("core.noop", "bad"),
            "slow": node("core.sleep", seconds=1.5),
            "later": node("core.noop", "slow"),
        },
    }
    view = await engine.run(document)
    assert view["status"] == "FAILED"
    assert view["error"]["node"] == "bad"
    assert view["error"]["type"] == "DeliberateError"
    assert "no stock" in view["error"]["message"]
    assert view["error"]["attempt"] == 3
    assert {n: v["status"] for n, v in view["nodes"].items()} == {
        "bad": "FAILED",
        "child": "UPSTREAM_FAILED",
        "slow": "COMPLETED",  # what runs finishes
        "later": "CANCELLED",
    }


async def test_a_fatal_error_is_not_retried(engine):
    """A task that raises `Fatal` has one attempt, and the reason is told."""
    view = await engine.run({"name": "fatal", "defaults": QUICK, "nodes": {"f": node("core.fail", fatal=True)}})
    assert view["status"] == "FAILED"
    (attempt,) = (await engine.get(f"/workflows/{view['execution_id']}/nodes/f"))["history"]
    assert attempt["reason"]


async def test_clean_up_runs_after_a_failure(engine):
    """Nodes that join with `all_done` are still decided and run in a halted execution."""
    nodes = {
        "bad": node("core.fail", retry={"max_retries": 0}),
        "clean": node("core.echo", "bad", join="all_done", value=1),
    }
    view = await engine.run({"name": "clean-up", "nodes": nodes})
    assert view["status"] == "FAILED"
    assert view["nodes"]["clean"]["status"] == "COMPLETED"


async def test_on_error_continue_counts_as_success(engine):
    """The node ends FAILED, its output is null, the execution completes."""
    nodes = {
        "bad": node("core.fail", retry={"max_retries": 0}, on_error="continue"),
        "next": node("core.echo", value='${{ nodes.bad.status + (nodes.bad.output == null ? " null" : "") }}'),
    }
    view = await engine.run({"name": "continues", "nodes": nodes, "output": "${{ nodes.next.output }}"})
    assert (view["status"], view["output"]) == ("COMPLETED", "FAILED null")


async def test_on_failure_continue_runs_everything_that_still_can(engine):
    """Independent branches go on; the execution is FAILED in the end."""
    nodes = {
        "bad": node("core.fail", retry={"max_retries": 0}),
        "child": node("core.noop", "bad"),
        "other": node("core.sleep", seconds=0.3),
        "more": node("core.noop", "other"),
    }
    view = await engine.run({"name": "goes-on", "on_failure": "continue", "nodes": nodes})
    assert view["status"] == "FAILED"
    assert {n: v["status"] for n, v in view["nodes"].items()} == {
        "bad": "FAILED",
        "child": "UPSTREAM_FAILED",
        "other": "COMPLETED",
        "more": "COMPLETED",
    }


async def test_a_timeout_ends_an_attempt(engine):
    """It counts from the attempt's start on the worker and fails with TimeoutError."""
    nodes = {"slow": node("core.sleep", seconds=60, timeout="300ms", retry={"max_retries": 0})}
    view = await engine.run({"name": "times-out", "nodes": nodes})
    assert view["status"] == "FAILED"
    assert view["error"]["type"] == "TimeoutError"
    (attempt,) = (await engine.get(f"/workflows/{view['execution_id']}/nodes/slow"))["history"]
    assert (attempt["status"], attempt["class"]) == ("TIMED_OUT", "timeout")


async def test_a_timeout_really_ends_a_process(engine):
    """A task in a process is killed, however busy it is."""
    params = {"target": "time:sleep", "args": [60]}
    nodes = {"busy": {"task": "python.call", "params": params, "timeout": "500ms", "retry": {"max_retries": 0}}}
    view = await engine.run({"name": "killed", "nodes": nodes})
    assert view["error"]["type"] == "TimeoutError"


async def test_a_document_timeout_cancels_what_runs(engine):
    """The execution is FAILED with TimeoutError."""
    view = await engine.run({"name": "too-long", "timeout": "500ms", "nodes": {"slow": node("core.sleep", seconds=60)}})
    assert (view["status"], view["error"]["type"]) == ("FAILED", "TimeoutError")
    assert view["nodes"]["slow"]["status"] == "CANCELLED"


async def test_cancel_ends_every_node_at_once_and_reaches_running_code(engine, tmp_path):
    """A cancelled execution stays cancelled; the running command is ended; cancelling twice gives the same answer."""
    marker = tmp_path / "marker"
    command = f"trap 'echo ended > {marker}.ended; exit 1' TERM; echo begun > {marker}; sleep 60 & wait"
    nodes = {"run": {"task": "shell.run", "params": {"command": command}}, "after": node("core.noop", "run")}
    execution_id = await engine.submit({"name": "cancelled", "nodes": nodes})
    path = f"/workflows/{execution_id}"
    view = await engine.until("running", path, lambda _: marker.exists())
    assert view["nodes"]["run"]["status"] == "RUNNING"
    answers = [await engine.client.post(f"{path}/cancel", json={"reason": "enough"}) for _ in range(2)]
    assert [a.status_code for a in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    view = await engine.get(path)
    assert view["status"] == "CANCELLED"
    assert view["counts"] == {"CANCELLED": 2}
    await engine.until("ended", path, lambda _: marker.with_name("marker.ended").exists())
    trigger = await engine.client.post(f"/workflow/trigger/{execution_id}")
    assert trigger.status_code == 409


async def test_wrong_parameters_found_at_run_time_fail_without_retries(engine):
    """A template may yield a wrong type; the attempt's error names the parameter."""
    nodes = {
        "a": node("core.echo", value="soon"),
        "b": {"task": "core.sleep", "params": {"seconds": "${{ nodes.a.output }}"}},
    }
    view = await engine.run({"name": "wrong-type", "nodes": nodes})
    assert view["status"] == "FAILED"
    assert "/seconds" in view["error"]["message"]
    assert view["nodes"]["b"]["attempts"] == 1


async def test_a_failing_expression_fails_its_node_and_says_where(engine):
    """The message has the expression and its place in the document."""
    nodes = {
        "a": node("core.echo", value={}),
        "b": node("core.echo", value="${{ nodes.a.output.missing + 1 }}"),
    }
    view = await engine.run({"name": "bad-expression", "nodes": nodes})
    assert view["error"]["type"] == "ExpressionError"
    assert "nodes.a.output.missing + 1" in view["error"]["message"]
    assert "/nodes/b/params/value" in view["error"]["message"]
