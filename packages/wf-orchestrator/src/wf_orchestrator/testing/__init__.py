"""Workflows in tests: the real machine, a virtual clock, no server.

    run = wf_orchestrator.testing.run(document, tasks={"http.request": {"body": []}}, input={"day": "2026-01-01"})
    assert run.status == "COMPLETED"

`Harness` does the same step by step; `stub` and `answers` stand in for tasks; `lose`, `crash`, `late`, `duplicate`,
`stall` and `restart` are faults.
"""

from wf_orchestrator.testing.faults import crash, duplicate, late, lose, restart, stall
from wf_orchestrator.testing.harness import CommandRefusedError, Harness, run
from wf_orchestrator.testing.known import UnknownStubError
from wf_orchestrator.testing.run import Entry, NodeRun, Run
from wf_orchestrator.testing.stubs import UnknownTaskError, answers, stub
from wf_orchestrator.testing.world import RunawayError

__all__ = [
    "CommandRefusedError",
    "Entry",
    "Harness",
    "NodeRun",
    "Run",
    "RunawayError",
    "UnknownStubError",
    "UnknownTaskError",
    "answers",
    "crash",
    "duplicate",
    "late",
    "lose",
    "restart",
    "run",
    "stall",
    "stub",
]
