"""Brings what a batch names from Redis into memory: executions, and the plans of documents."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wf_core.plan import Plan
from wf_core.states import ExecutionStatus
from wf_core.wire import Created, Document, Event, check_rules
from wf_orchestrator.context import Context
from wf_orchestrator.machine.restore import fill, keep_results, result_fields, skeleton
from wf_orchestrator.machine.state import Execution

if TYPE_CHECKING:
    from wf_orchestrator.partition import Partition

_ENDED = {status.encode() for status in ExecutionStatus if status.is_terminal}


async def take(
    context: Context, partition: Partition, ids: Collection[str], whole: Collection[str] = ()
) -> dict[str, Execution]:
    """The executions that exist, for folding: out of the cache, else from Redis.

    Those of `whole` that have ended come with their plan and all their results, as a `retry` needs them.
    """
    kept = {i: execution for i in ids if (execution := context.executions.take(i)) is not None}
    return kept | await stored(context, partition, [i for i in ids if i not in kept], whole)


async def read(context: Context, partition: Partition, ids: Collection[str]) -> dict[str, Execution]:
    """The executions that exist, to be read only. The partition's lock must be held."""
    kept = {i: execution for i in ids if (execution := context.executions.peek(i)) is not None}
    return kept | await stored(context, partition, [i for i in ids if i not in kept])


async def stored(
    context: Context, partition: Partition, ids: Sequence[str], whole: Collection[str] = ()
) -> dict[str, Execution]:
    """The executions that Redis holds. Raises NewerRecordError for one that is pinned to rules we do not have."""
    if not ids:
        return {}
    context.counters.inc("executions_loaded_total", len(ids))
    found = await context.queries.executions(partition.keys, ids)
    for execution in found.values():
        check_rules(int(execution.fields.get("rules", b"0")))
    plans = {
        execution_id: None
        if fields["status"] in _ENDED and execution_id not in whole
        else await plan_named(context, partition, fields["document"].decode())
        for execution_id, (fields, _, _) in found.items()
    }
    executions = {i: skeleton(i, plans[i], *one) for i, one in found.items()}
    again = [i for i in whole if i in executions and executions[i].status.is_terminal]
    wanted = {i: result_fields(execution) for i, execution in executions.items()}
    results = await context.queries.results(partition.keys, wanted)
    results |= await context.queries.all_results(partition.keys, again)
    return {i: (keep_results if i in again else fill)(execution, results[i]) for i, execution in executions.items()}


async def plan_named(context: Context, partition: Partition, document_hash: str) -> Plan | None:
    """The plan of a document that this partition holds; None when it does not, or when it does not compile."""
    plan = context.plans.get(document_hash)
    if plan is None:
        parts = _numbered(await context.queries.document(partition.keys, document_hash))
        plan = await context.plans.compile(document_hash, parts) if parts else None
    return plan


async def plans_of(context: Context, partition: Partition, events: Sequence[Event]) -> list[Plan | None]:
    """For each `created` of `events` the plan, if its document lies before it in this partition's log.

    Only what precedes counts, wherever the batch begins, and even if the plan is known from elsewhere: every fold of
    this log must decide the same.
    """
    documents: dict[str, _Parts] = {}
    plans: list[Plan | None] = []
    for event in events:
        if not isinstance(event, Document | Created):
            plans.append(None)
            continue
        name = event.hash if isinstance(event, Document) else event.document
        if name not in documents:
            documents[name] = await _parts(context, partition, name)
        if isinstance(event, Document):
            documents[name].add(event)
            plans.append(None)
        else:
            plans.append(await documents[name].compile(context, name))
    return plans


@dataclass(slots=True)
class _Parts:
    """What is known of a document at some point of the log."""

    parts: dict[int, bytes]
    number: int | None = None
    plan: Plan | None = None

    def add(self, event: Document) -> None:
        self.parts[event.part] = event.data
        self.number = event.parts

    async def compile(self, context: Context, name: str) -> Plan | None:
        if self.plan is None and self.number is not None and len(self.parts) == self.number:
            self.plan = context.plans.get(name) or await context.plans.compile(name, self.parts)
        return self.plan


async def _parts(context: Context, partition: Partition, name: str) -> _Parts:
    if name in partition.documents and (plan := context.plans.get(name)) is not None:
        return _Parts({}, plan=plan)
    fields = await context.queries.document(partition.keys, name)
    known = _Parts(_numbered(fields), int(fields["parts"]) if fields else None)
    if known.number is not None and len(known.parts) == known.number:
        partition.documents.add(name)
    return known


def _numbered(fields: dict[str, bytes]) -> dict[int, bytes]:
    """The parts of a document by number; without the field that says how many there are."""
    return {int(name): data for name, data in fields.items() if name != "parts"}
