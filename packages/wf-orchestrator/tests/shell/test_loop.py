"""What the loop remembers between two rounds; log and partitions are stand-ins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wf_core.broker.protocol import Batch, OffsetOutOfRangeError, TopicPartition
from wf_orchestrator import batches
from wf_orchestrator.loop import Loop

SOURCE = TopicPartition("events", 3)


class Ownership:
    """Has one partition, and notes whether it was stopped when it was dropped."""

    def __init__(self) -> None:
        self.partitions = {3: SimpleNamespace(position=7, unchecked=False)}
        self.stopped: list[bool] = []

    def drop(self, _partition: Any, _reason: str, *, stop: bool) -> None:
        self.stopped.append(stop)


@pytest.fixture
def loop(monkeypatch) -> Loop:
    async def end(_: TopicPartition) -> int:
        return 9

    async def process(*_: Any) -> None:
        """Folds nothing."""

    monkeypatch.setattr(batches, "process", process)
    log = SimpleNamespace(reader=lambda: None, end=end)
    return Loop(SimpleNamespace(log=log), Ownership())  # type: ignore[arg-type]


@pytest.mark.parametrize("folded", [False, True])
async def test_a_log_has_forgotten_a_position_that_is_out_of_range_twice_in_a_row(loop, folded):
    """The first time it may have been an old leader that said so, and it was if records were folded since."""
    await loop._lost_position(OffsetOutOfRangeError(SOURCE, 7))
    if folded:
        await loop._fold(loop._ownership.partitions[3], Batch(SOURCE, 7, [b"record"]))
    await loop._lost_position(OffsetOutOfRangeError(SOURCE, 7))
    assert loop._ownership.stopped == [False, not folded]
