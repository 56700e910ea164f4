"""Child executions: starting them, closing them, passing commands down to them, telling their parents how they ended.

Parent and child live in the same partition, so that the order of what is appended here is the order in which it is
folded. What happens in another execution is asked for by a timer, which fires again until it was folded there.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from wf_core import ids
from wf_core.definitions import Reference
from wf_core.schema.canonical import document_hash
from wf_core.store.codec import pack_timer, unpack_timer
from wf_core.wire import Document, Event, Parent
from wf_orchestrator import child_records, loading
from wf_orchestrator.machine.kinds.workflow import passed_down, waiting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wf_core.plan import Plan
    from wf_orchestrator.context import Context
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.partition import Partition

ABSENT_MS = 60_000
"""A child that a command is for and that does not exist after so long never will."""


async def spawn(context: Context, partition: Partition, tokens: list[str]) -> list[Event]:
    """Starts the children of these attempts, as far as these still wait for them: those of a paused one after that."""
    events: list[Event] = []
    sent: set[str] = set()
    async with partition.lock:  # nobody folds meanwhile: what is read from Redis is whole
        if partition.closed:
            return []
        executions = await loading.read(context, partition, {ids.split_token(token)[0] for token in tokens})
        for token in tokens:
            x = executions.get(ids.split_token(token)[0])
            index = None if x is None else waiting(x, token)
            if x is None or index is None:
                events.append(child_records.useless("spawn", token, **_by(context)))
            elif not x.is_paused:
                born = await _birth(context, partition, x, index, sent)
                sent.update(event.hash for event in born if isinstance(event, Document))
                events += born
    return events


async def _birth(context: Context, partition: Partition, x: Execution, index: int, sent: set[str]) -> list[Event]:
    """The records that start a child. Documents that were `sent` just before need not go along."""
    spec: Any = x.node(index).spec
    token, document = x.token(index), None
    if spec.document is not None:
        plan = await _compiled(context, spec.document)
        problem = "InternalError", "the document of the child does not compile"
        if plan is not None and plan.hash not in sent and not await _is_kept(context, partition, plan.hash):
            document = spec.document
    else:
        key = Reference(spec.workflow, spec.version).key
        pinned = x.definitions.get(key)
        plan = None if pinned is None else await loading.plan_named(context, partition, pinned)
        problem = "UnknownDefinitionError", f"the definition {key!r} was not pinned when this execution was created"
    if plan is None:
        return [child_records.never_started(token, *problem, **_by(context))]
    return child_records.birth(x, index, plan, document=document, **_by(context))


async def _compiled(context: Context, canonical: bytes) -> Plan | None:
    name = document_hash(canonical)
    return context.plans.get(name) or await context.plans.compile(name, {0: zlib.compress(canonical)})


async def _is_kept(context: Context, partition: Partition, name: str) -> bool:
    """Whether Redis holds a document whole for this partition."""
    if name in partition.documents:
        return True
    found = await context.queries.document(partition.keys, name)
    if not found or len(found) <= int(found["parts"]):
        return False
    partition.documents.add(name)
    return True


async def close(context: Context, partition: Partition, tokens: list[str]) -> list[Event]:
    """Cancels the children of attempts that have ended before them."""
    children = {token: ids.child_execution_id(token) for token in tokens}
    known = await _known(context, partition, children.values())
    if known is None:
        return []
    return [
        child_records.closed(token, **_by(context))
        if child in known or not _is_overdue(context, partition, "close", token)
        else child_records.useless("close", token, **_by(context))
        for token, child in children.items()
    ]


async def pass_down(context: Context, partition: Partition, tokens: list[str]) -> list[Event]:
    """Passes on what was said to parents, to each child in the order in which it was said."""
    children = dict.fromkeys(ids.split_token(token)[0] for token in tokens)
    known = await _known(context, partition, children)
    events: list[Event] = []
    if known is None:
        return events
    # All of them, not only those that fired: one that was appended in vain must not overtake a later one.
    pending: dict[str, list[tuple[int, str]]] = {child: [] for child in children}
    for due, member in partition.timers.beginning(pack_timer("down", "")):
        _, token = unpack_timer(member)
        if (child := ids.split_token(token)[0]) in pending:
            pending[child].append((due, token))
    for child, told in pending.items():
        for _, token in sorted(told, key=lambda one: (one[0], passed_down(one[1]))):
            if child in known or not _is_overdue(context, partition, "down", token):
                events.append(child_records.said(token, **_by(context)))
            else:
                events.append(child_records.useless("down", token, **_by(context)))
    return events


async def tell_parents(context: Context, partition: Partition, tokens: list[str]) -> list[Event]:
    """Tells the parents of children that have ended. One that runs again ends again, and that end is told."""
    known = await _known(context, partition, [ids.split_token(token)[0] for token in tokens])
    events: list[Event] = []
    if known is None:
        return events
    for token in tokens:
        child = known.get(ids.split_token(token)[0])
        if child is None or child.parent is None:
            events.append(child_records.useless("child", token, **_by(context)))
        elif child.status.is_terminal:
            events.append(_end(context, child, child.parent))
    return events


def _end(context: Context, child: Execution, parent: Parent) -> Event:
    return child_records.end(child.id, parent, child.status, child.output, child.error, **_by(context))


async def _known(context: Context, partition: Partition, children: Iterable[str]) -> dict[str, Execution] | None:
    """Those of the children that exist; None when the partition was let go, so that nobody here knows."""
    async with partition.lock:  # nobody folds meanwhile: what is read from Redis is whole
        return None if partition.closed else await loading.read(context, partition, list(dict.fromkeys(children)))


def _is_overdue(context: Context, partition: Partition, kind: str, token: str) -> bool:
    due = partition.timers.due_of(pack_timer(kind, token))
    return due is not None and context.clock.now_ms() - due > ABSENT_MS


def _by(context: Context) -> dict[str, Any]:
    return {"source": context.id, "now": context.clock.now_ms()}
