"""Appends that travel together; what sends them is a stand-in, needs no broker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from wf_core.broker.group_commit import Append, GroupCommit
from wf_core.broker.protocol import LogUnavailableError, RecordTooLargeError, TopicPartition

SOURCE = TopicPartition("a", 0)


class Sending:
    """Refuses every group of several, and is away for some records."""

    def __init__(self, away: bytes) -> None:
        self.away = away
        self.hanging = False
        self.sent: list[bytes] = []

    async def __call__(self, group: Sequence[Append]) -> list[list[int]]:
        await asyncio.sleep(0.001)
        if len(group) > 1:
            raise RecordTooLargeError("together they are too large")
        (record,) = group[0].records
        if record == self.away:
            if self.hanging:
                await asyncio.Event().wait()
            raise LogUnavailableError("away")
        self.sent.append(record)
        return [[len(self.sent)]]


def appending(lane: GroupCommit) -> list[asyncio.Task[list[int]]]:
    """One append that goes alone, three that wait for it and are a group, in which the second will fail."""
    return [asyncio.create_task(lane.append(SOURCE, [record], None)) for record in (b"0", b"1", b"2", b"3")]


async def test_what_follows_an_append_that_failed_does_not_land_before_it_is_repeated():
    """A group that was too large goes singly; the log was away for one of it: the rest fails too."""
    sending = Sending(away=b"2")
    results = await asyncio.gather(*appending(GroupCommit(sending)), return_exceptions=True)
    assert results[:2] == [[1], [2]]
    assert [type(result) for result in results[2:]] == [LogUnavailableError] * 2
    assert sending.sent == [b"0", b"1"]


async def test_a_lane_that_is_cancelled_leaves_nobody_waiting():
    """Also those of its group whose turn had not come."""
    sending = Sending(away=b"2")
    sending.hanging = True
    lane = GroupCommit(sending)
    appends = appending(lane)
    await asyncio.wait(appends, timeout=0.1)
    assert lane._task is not None
    lane._task.cancel()
    async with asyncio.timeout(5):
        for append in appends[2:]:
            with pytest.raises(LogUnavailableError):
                await append
