"""The clock, the commands and the faults of the harness."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from wf_core.errors import DocumentError
from wf_orchestrator.testing import (
    CommandRefusedError,
    Harness,
    RunawayError,
    answers,
    crash,
    duplicate,
    late,
    lose,
    restart,
    run,
    stall,
    stub,
)

CHAIN: dict[str, Any] = {
    "name": "chain",
    "input": {"type": "object", "properties": {"day": {"type": "string", "default": "monday"}}},
    "nodes": {
        "fetch": {"task": "t", "params": {"day": "${{ input.day }}"}},
        "price": {"task": "t", "params": {"rows": "${{ nodes.fetch.output }}"}},
    },
}


def test_a_run_shows_all_that_happened():
    """Inputs, outputs, attempts, the history, the order of dispatch."""
    found = run(CHAIN, tasks={"t": stub(lambda params: params, takes="5s")}, input={"day": "friday"})
    assert (found.status, found.output) == ("COMPLETED", {"rows": {"day": "friday"}})
    assert found.results == {"fetch": {"day": "friday"}, "price": {"rows": {"day": "friday"}}}
    assert (found.node("price").input, found.dispatched) == ({"rows": {"day": "friday"}}, ["fetch", "price"])
    assert found.elapsed == timedelta(seconds=10)
    assert found.kinds("price") == ["node.queued", "node.completed"]
    assert [entry.at for entry in found.history if entry.kind == "node.completed"] == [
        timedelta(seconds=5),
        timedelta(seconds=10),
    ]
    with pytest.raises(KeyError, match="did you mean 'price'"):
        found.node("prise")


@pytest.mark.parametrize("form", ["dict", "text", "path", "name of a file"])
def test_a_document_comes_as_values_text_or_a_file(form: str, tmp_path: Path):
    """A `name` may be left out."""
    text = "nodes:\n  a: {task: t}\n"
    file = tmp_path / "w.yaml"
    file.write_text(f"name: w\n{text}")
    source = {"dict": {"nodes": {"a": {"task": "t"}}}, "text": text, "path": file, "name of a file": str(file)}[form]
    assert run(source, tasks={"t": 1}).output == 1


def test_wrong_documents_and_inputs_are_refused_as_at_the_door():
    """With every problem."""
    with pytest.raises(DocumentError):
        run({"nodes": {}})
    with pytest.raises(DocumentError):
        run(CHAIN, input={"day": 1}, tasks={"t": 1})


def test_defaults_of_the_input_are_filled_in():
    """As by the API."""
    assert run(CHAIN, tasks={"t": lambda params: params}).results["fetch"] == {"day": "monday"}


def test_time_passes_as_far_as_it_is_told():
    """A node that runs shows as RUNNING."""
    harness = Harness(CHAIN, tasks={"t": stub(1, takes="1h")})
    assert harness.advance("30m").statuses() == {"fetch": "RUNNING", "price": "PENDING"}
    assert harness.advance("30m").statuses() == {"fetch": "COMPLETED", "price": "RUNNING"}
    assert harness.run_until_idle().status == "COMPLETED"
    assert harness.step() is False


def test_what_was_seen_does_not_change():
    """A run is a picture of one moment."""
    harness = Harness(CHAIN, tasks={"t": 1})
    before = harness.run
    harness.run_until_idle()
    assert (before.status, before.node("fetch").status, harness.status) == ("RUNNING", "QUEUED", "COMPLETED")


def test_what_waits_for_nothing_that_can_come_is_returned_as_it_stands():
    """A task that hangs without a timeout, for one."""
    assert run(CHAIN, tasks={"t": stub(takes=None)}).statuses() == {"fetch": "RUNNING", "price": "PENDING"}


def test_cancel_at_a_planned_time():
    """What is not possible is refused."""
    harness = Harness(CHAIN, tasks={"t": stub(1, takes="1h")})
    harness.at("90m", lambda h: h.cancel("enough"))
    found = harness.run_until_idle()
    assert (found.status, found.elapsed) == ("CANCELLED", timedelta(minutes=90))
    assert found.statuses() == {"fetch": "COMPLETED", "price": "CANCELLED"}
    with pytest.raises(CommandRefusedError, match="cancel is not possible: the execution is CANCELLED"):
        harness.cancel()


@pytest.mark.parametrize("fault", [lose("fetch"), lose("fetch", reason="orphan"), lose("f*", reason="drain")])
def test_a_lost_worker_costs_no_retry_of_the_user(fault: Any):
    """The next attempt follows at once."""
    document = {**CHAIN, "defaults": {"retry": {"max_retries": 0}}}
    found = run(document, tasks={"t": answers(7)}, faults=[fault])
    assert (found.status, found.dispatched) == ("COMPLETED", ["fetch", "fetch", "price"])
    assert [str(a.status) for a in found.node("fetch").attempts] == ["LOST", "COMPLETED"]


def test_a_crashed_process_is_told_at_once():
    """Its worker lives."""
    found = run(CHAIN, tasks={"t": 1}, faults=[crash("fetch", after="3s")])
    assert (found.status, found.elapsed) == ("COMPLETED", timedelta(seconds=3))
    assert [str(a.status) for a in found.node("fetch").attempts] == ["LOST", "COMPLETED"]


def test_late_and_repeated_results_change_nothing():
    """The attempt that counts is the newest."""
    replies = answers("too late", "in time")
    found = run(CHAIN, nodes={"fetch": replies, "price": 1}, faults=[late("fetch"), duplicate("price", times=3)])
    assert (found.status, found.results) == ("COMPLETED", {"fetch": "in time", "price": 1})
    assert found.kinds("price").count("node.completed") == 1


def test_what_stalls_is_ended_by_its_timeout():
    """Or by nothing."""
    document = {"nodes": {"a": {"task": "t", "timeout": "1m"}}}
    found = run(document, tasks={"t": 1}, faults=[stall("a")])
    assert [str(a.status) for a in found.node("a").attempts] == ["TIMED_OUT", "COMPLETED"]
    assert run({"nodes": {"a": {"task": "t"}}}, tasks={"t": 1}, faults=[stall("a")]).status == "RUNNING"


@pytest.mark.parametrize("fault", [restart(every=1), restart(every=3), restart(after="fetch")])
def test_a_restart_of_the_orchestrator_changes_nothing(fault: Any):
    """Not while a retry waits either."""
    tasks = {"t": answers(ValueError("busy"), stub(4, takes="1m"))}
    assert run(CHAIN, tasks=tasks, faults=[fault]) == run(CHAIN, tasks=tasks)


def test_a_run_without_an_end_is_stopped():
    """With a sentence."""
    document = {"nodes": {"a": {"task": "t", "retry": {"max_retries": 10_000}}}}
    with pytest.raises(RunawayError, match="after 1,000 records"):
        run(document, tasks={"t": ValueError}, most_records=1000)


def test_halt_withdraws_what_no_worker_has_begun():
    """What runs finishes."""
    nodes = {name: {"task": name, "retry": {"max_retries": 0}} for name in ("bad", "slow", "queued")}
    tasks = {"bad": stub(ValueError("no"), takes="1s"), "slow": stub(1, takes="9s"), "queued": 1}
    found = run({"nodes": nodes}, tasks=tasks, slots=2)
    assert found.statuses() == {"bad": "FAILED", "slow": "COMPLETED", "queued": "CANCELLED"}
    assert (found.status, found.elapsed) == ("FAILED", timedelta(seconds=9))


def test_workers_go_on_by_themselves():
    """As real ones: what follows a node is begun by its worker, unless it took 100 ms already and somebody waits."""
    chain = {"kind": "map", "items": [1, 2], "nodes": {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"]}}}

    def sent(takes: str) -> tuple[list[str], list[str]]:
        found = run({"nodes": {"m": chain}}, tasks={"t": stub(1, takes=takes)}, slots=1)
        begun = [event.node for event in found.history if event.kind == "node.queued" and event.data]
        return found.dispatched, begun

    assert sent("50ms") == (["m[0]/a", "m[1]/a", "m[0]/b", "m[1]/b"], ["m[0]/b", "m[1]/b"])
    assert sent("200ms") == (["m[0]/a", "m[1]/a", "m[0]/b", "m[1]/b"], [])
