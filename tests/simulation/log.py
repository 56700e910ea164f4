"""The log in memory: it may be away, repeat what was appended, and lose its tail or all it held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from simulation.network import Server
from wf_core.broker.protocol import Batch, LogUnavailableError, OffsetOutOfRangeError, TopicPartition

if TYPE_CHECKING:
    from simulation.loop import Process
    from simulation.world import World

_OFTEN = 0.1


class LogServer(Server):
    """Every partition's records. `twice`: each append lands twice, as a producer that retries may do."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "log")
        self.partitions: dict[TopicPartition, list[bytes]] = {}
        self.twice = False
        self._waiting: set[Any] = set()

    def failure(self, *, timed_out: bool) -> Exception:
        """As the drivers raise it."""
        return LogUnavailableError("the log did not answer" + (" in time" if timed_out else ""))

    def records(self, source: TopicPartition) -> list[bytes]:
        """What a partition holds."""
        return self.partitions.setdefault(source, [])

    def append(self, source: TopicPartition, added: Sequence[bytes]) -> list[int]:
        """Appends, once or twice; the offsets of one copy."""
        held = self.records(source)
        first = len(held)
        held.extend(added)
        if self.twice:
            first = self.world.random.choice((first, len(held)))
            held.extend(added)
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()
        self.world.after_append()
        return list(range(first, first + len(added)))

    def lose_all(self) -> None:
        """A broker without a disk starts again."""
        self.partitions.clear()
        self.epoch += 1

    def lose_tail(self, source: TopicPartition, most: int) -> None:
        """The newest records are gone, and their offsets will be used again."""
        held = self.records(source)
        del held[max(0, len(held) - most) :]

    def wait(self) -> Any:
        """A future that is done when something was appended."""
        waiter = self.world.loop.create_future()
        self._waiting.add(waiter)
        return waiter


class Log:
    """A process' connection: the protocol of `wf_core.broker`."""

    def __init__(self, server: LogServer, process: Process) -> None:
        self.server = server
        self.process = process

    async def start(self) -> None:
        """Nothing is kept open."""

    async def close(self) -> None:
        """Nothing is kept open."""

    async def ensure_topics(self, topics: Mapping[str, int]) -> None:  # noqa: ARG002 - as in the protocol
        """Topics make themselves."""
        await self.server.call(self.process, "topics", lambda: None)

    async def append(
        self,
        source: TopicPartition,
        records: Sequence[bytes],
        key: bytes | None = None,  # noqa: ARG002 - the partition is given
    ) -> list[int]:
        """Appends in order."""
        what = f"append {len(records)} to {source.topic}-{source.partition}"
        offsets: list[int] = await self.server.call(
            self.process, what, partial(self.server.append, source, tuple(records)), weight=1.0, copies=True
        )
        return offsets

    def reader(self) -> Reader:
        """A reader with no assignment."""
        return Reader(self.server, self.process)

    async def begin(self, source: TopicPartition) -> int:
        """Nothing is ever trimmed."""
        begin: int = await self.server.call(self.process, f"begin {source.topic}-{source.partition}", lambda: 0)
        return begin

    async def end(self, source: TopicPartition) -> int:
        """The offset of the next record."""
        what = f"end {source.topic}-{source.partition}"
        end: int = await self.server.call(self.process, what, lambda: len(self.server.records(source)))
        return end

    async def trim(self, source: TopicPartition, before: int) -> None:
        """Keeps everything: the oracle folds it again."""


class Reader:
    """Reads an assignment."""

    def __init__(self, server: LogServer, process: Process) -> None:
        self._server = server
        self._process = process
        self._positions: dict[TopicPartition, int] = {}
        self._epoch = 0

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Reads these from the next read on."""
        self._positions = dict(positions)
        self._epoch += 1

    async def read(self, max_wait: float, max_records: int = 500) -> list[Batch]:
        """What has come; waits for the first record. A batch ends anywhere: that must make no difference."""
        loop = self._server.world.loop
        deadline = loop.now + max_wait
        while True:
            batches = await self._fetch(max_records)
            if batches or loop.now >= deadline:
                return batches
            waiter = self._server.wait()
            handle = loop.call_at(deadline, lambda w: w.done() or w.set_result(None), waiter)
            await waiter
            handle.cancel()

    async def _fetch(self, most: int) -> list[Batch]:
        epoch, asked = self._epoch, self._positions
        found: list[Batch] = await self._server.call(
            self._process, f"read {_spell(asked)}", partial(self._found, asked, most), weight=_OFTEN
        )
        if epoch != self._epoch:
            return []
        for batch in found:
            self._positions[batch.source] = batch.next
        return found

    def _found(self, asked: Mapping[TopicPartition, int], most: int) -> list[Batch]:
        found: list[Batch] = []
        for source, position in asked.items():
            held = self._server.records(source)
            if position > len(held):
                raise OffsetOutOfRangeError(source, position)
            if position < len(held):
                count = min(most, self._server.world.random.choice((1, 2, 3, 500)))
                found.append(Batch(source, position, held[position : position + count]))
        return found

    async def close(self) -> None:
        """Nothing is kept open."""


def _spell(positions: Mapping[TopicPartition, int]) -> str:
    return " ".join(f"{s.topic.rpartition('.')[2]}-{s.partition}:{n}" for s, n in positions.items())
