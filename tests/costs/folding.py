"""How many functions Python calls to fold an event: what the processor has to do, counted and not timed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from costs.workloads import Workload, chain, fan
from wf_core import ids, wire
from wf_core.continuing import next_of
from wf_core.plan import Plan, load_plan
from wf_core.schema.validation import canonical_bytes, document_hash, parse_document
from wf_core.store.keys import PartitionKeys
from wf_core.store.ops import flat
from wf_orchestrator.machine.decide import decide
from wf_orchestrator.machine.effects import Dispatch, Outcome
from wf_orchestrator.machine.snapshot import to_ops
from wf_orchestrator.machine.state import PartitionState

FOLDS = (Workload("chain of 200, folded", chain(200), 1, 200), Workload("fan-out of 198, folded", fan(198), 1, 200))

_EXECUTION = ids.derived_execution_id("costs", 1)
_KEYS = PartitionKeys.of("wf", 0)


class _Calls:
    """Counts while it is the profiler."""

    def __init__(self) -> None:
        self.python: Counter[str] = Counter()
        self.native = 0

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        """A function is called, or returns."""
        if event == "call":
            self.python[f"{frame.f_globals.get('__name__', '')}.{frame.f_code.co_qualname}"] += 1
        elif event == "c_call":
            self.native += 1


def calls(workload: Workload) -> tuple[Counter[str], int]:
    """Calls of Python functions by name, and of native ones, of the whole fold: decide, write down, make flat."""
    plan = _plan(workload.document)
    found = _Calls()
    state, execution = PartitionState(), None
    waves: list[list[wire.Event]] = [list(_beginning(plan))]
    offset = 0
    while waves[-1]:
        outcomes: list[Outcome] = []
        before = sys.getprofile()
        sys.setprofile(found)
        try:
            for event in waves[-1]:
                outcomes.append(decide(state, execution, event, offset, plan))
                execution = outcomes[-1].execution
                offset += 1
            flat(to_ops(_KEYS, outcomes))
        finally:
            sys.setprofile(before)
        waves.append(list(_results(outcomes)))
    assert execution is not None
    assert execution.status == "COMPLETED"
    return found.python, found.native


def figures(workload: Workload) -> dict[str, float]:
    """Calls per task."""
    python, native = calls(workload)
    return {
        "calls of Python functions": python.total() / workload.tasks,
        "calls of native functions": native / workload.tasks,
    }


def _plan(document: dict[str, Any]) -> Plan:
    canonical = canonical_bytes(parse_document(document))
    return load_plan(canonical, document_hash(canonical))


def _beginning(plan: Plan) -> Iterator[wire.Event]:
    common: dict[str, Any] = {"execution": _EXECUTION, "ts": 1, "source": "costs"}
    yield wire.Created(**common, id="create", document=plan.hash, name="costs")
    yield wire.Triggered(**common, id="trigger")


def _results(outcomes: Iterable[Outcome]) -> Iterator[wire.Event]:
    """Each attempt completes, and its worker goes on with what follows as long as it may."""
    for outcome in outcomes:
        for effect in outcome.effects:
            if isinstance(effect, Dispatch):
                message = effect.message
                while (begun := next_of(message, b"null")) is not None:
                    yield _result(message, begun[1])
                    message = begun[0]
                yield _result(message)


def _result(message: wire.TaskMessage, begin: wire.Begin | None = None) -> wire.Result:
    return wire.Result(
        execution=message.execution,
        ts=2,
        source="costs",
        node=message.node,
        attempt=message.attempt,
        worker="w",
        started_at=2,
        ended_at=2,
        output=b"null",
        package="p 1",
        begin=begin,
        v=wire.BEGINS if begin else 1,
    )
