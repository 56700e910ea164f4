"""A partition's log folded again, into a model of Redis in memory: what Redis must hold after some offset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from wf_core import wire
from wf_core.plan import Plan
from wf_core.store.keys import PartitionKeys
from wf_core.wire import Created, Document, Event, Retried
from wf_orchestrator.batches import Decoded, fold
from wf_orchestrator.machine.snapshot import to_ops
from wf_orchestrator.machine.state import Execution, PartitionState
from wf_orchestrator.plans import Plans
from wf_orchestrator.redis_model import Model


class Refold:
    """A partition's log, folded from its beginning, as nobody but the log knows it."""

    def __init__(self, namespace: str, partition: int) -> None:
        self.keys = PartitionKeys.of(namespace, partition)
        self.state = PartitionState()
        self.model = Model()
        self.offset = 0
        self._executions: dict[str, Execution] = {}
        self._documents: dict[str, dict[int, bytes]] = {}
        self._parts: dict[str, int] = {}
        self._plans = Plans()

    async def add(self, records: Sequence[bytes]) -> None:
        """Folds the next records."""
        decoded: list[Decoded] = []
        for offset, record in enumerate(records, self.offset):
            try:
                event = wire.decode_event(record)
            except msgspec.MsgspecError:
                continue
            decoded.append(Decoded(offset, event, await self._plan(event)))
        for piece in _pieces(decoded):
            if isinstance(piece[0].event, Retried):
                await self._load_whole(piece[0].event.execution)
            self.model.apply(to_ops(self.keys, fold(self.state, self._executions, piece)))
        self.offset += len(records)

    async def _load_whole(self, execution_id: str) -> None:
        """Loads an execution that has ended from what was written, with all its results, as a `retry` needs it."""
        x = self._executions.get(execution_id)
        if x is None or not x.status.is_terminal:
            return
        plan = await self._compiled(x.document)
        self._executions[execution_id] = self.model.load(self.keys, execution_id, plan, whole=True)

    async def _plan(self, event: Event) -> Plan | None:
        if isinstance(event, Document):
            self._documents.setdefault(event.hash, {})[event.part] = event.data
            self._parts[event.hash] = event.parts
        elif isinstance(event, Created):
            return await self._compiled(event.document)
        return None

    async def _compiled(self, name: str) -> Plan | None:
        """The plan of a document; None as long as the log had not all of its parts."""
        parts = self._documents.get(name, {})
        if not parts or len(parts) != self._parts[name]:
            return None
        return self._plans.get(name) or await self._plans.compile(name, parts)


def _pieces(decoded: Sequence[Decoded]) -> Iterator[Sequence[Decoded]]:
    """Cut before each `retried`, as a batch is."""
    start = 0
    for i, one in enumerate(decoded):
        if i > start and isinstance(one.event, Retried):
            yield decoded[start:i]
            start = i
    if decoded:
        yield decoded[start:]
