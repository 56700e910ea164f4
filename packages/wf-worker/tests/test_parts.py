"""The parts of a worker that need no server: frames, failures, lanes."""

from __future__ import annotations

import asyncio
import time

import pytest

from wf_core.broker.protocol import Batch, TopicPartition
from wf_core.ids import new_execution_id
from wf_core.tasks import Fatal, RetryAfter
from wf_core.wire import TaskMessage
from wf_worker.failure import MESSAGE_LIMIT, TRACEBACK_LIMIT, class_names, failure_of
from wf_worker.frames import Cancel, Done, Run, Splitter, from_child, pack, to_child
from wf_worker.lanes import Lane, Lanes, Waiting, share
from wf_worker.loading import is_allowed, split_paths
from wf_worker.registration import new_worker_id

RUN = Run(id=1, execution="e", node="n", attempt=1, task="t", params=b"{}")


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_frames_in_pieces(size: int):
    """Frames come out whole, in order, however the stream is cut."""
    stream = pack(RUN) + pack(Cancel(id=1)) + pack(RUN)
    splitter = Splitter()
    found = [to_child(body) for at in range(0, len(stream), size) for body in splitter.feed(stream[at : at + size])]
    assert found == [RUN, Cancel(id=1), RUN]
    assert from_child(pack(Done(id=2, output=b"1"))[4:]) == Done(id=2, output=b"1")


def test_frame_beyond_the_limit():
    """An absurd length means that the other side speaks something else."""
    with pytest.raises(ValueError, match="at most"):
        list(Splitter().feed(b"\xff\xff\xff\xff"))


def raised(error: BaseException) -> BaseException:
    """The error with a traceback."""
    try:
        raise error  # noqa: TRY301 - it needs a traceback
    except BaseException as caught:  # noqa: BLE001 - whatever it is
        return caught


def test_failure_is_bounded():
    """Message and traceback are cut; what matters of a traceback is its end."""

    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise ValueError("x" * 3 * MESSAGE_LIMIT)

    try:
        deep(300)
    except ValueError as error:
        failure = failure_of(error)
    assert len(failure.message) == MESSAGE_LIMIT
    assert len(failure.traceback) <= TRACEBACK_LIMIT
    assert failure.traceback.endswith("x\n")


def test_failure_of_anything():
    """Errors whose own methods raise, and texts with lone surrogates, become failures that can travel."""

    class RudeError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert "cannot be shown" in failure_of(raised(RudeError())).message
    assert failure_of(raised(ValueError("\ud800"))).message == "\\ud800"
    assert failure_of(raised(Fatal("x"))).fatal
    assert failure_of(raised(RetryAfter(float("inf")))).retry_after_ms is None


def test_class_names():
    """An error is known by the short and full names of its class and its bases, itself first."""
    assert class_names(asyncio.TimeoutError)[:2] == ("TimeoutError", "builtins.TimeoutError")
    assert {"OSError", "builtins.Exception", "BaseException"} <= set(class_names(TimeoutError))


def waiting(offset: int, partition: int, queued_at: int) -> Waiting:
    """A message of a new execution."""
    message = TaskMessage(
        execution=new_execution_id(partition, 1),
        node="n",
        attempt=1,
        task="t",
        params=b"{}",
        workflow="w",
        queued_at=queued_at,
    )
    return Waiting.of(offset, message)


def lane(number: int, *messages: Waiting) -> Lane:
    """A lane in which messages wait."""
    source = TopicPartition("tasks", number)
    return Lane(source, "default", f"key{number}", 0, len(messages), waiting={m.offset: m for m in messages})


def test_oldest_messages_are_picked_first():
    """Messages are picked by age over all lanes, in order within a lane, and as many as there are slots."""
    lanes = Lanes()
    lanes.add(lane(0, waiting(0, 1, 10), waiting(1, 1, 30)))
    lanes.add(lane(1, waiting(0, 1, 20), waiting(1, 1, 40)))
    assert [found.message.queued_at for _, found in lanes.pick(3, 0.0)] == [10, 20, 30]
    assert lanes.waiting == 4


def test_offset_never_passes_what_waits():
    """The committed offset stays before the first message that waits, whatever was claimed behind it."""
    it = lane(0, waiting(0, 1, 1), waiting(1, 2, 2))
    assert it.position == 0
    del it.waiting[1]
    assert it.position == 0
    del it.waiting[0]
    assert it.position == 2


def test_messages_of_a_partition_that_is_not_live_are_passed():
    """LATER holds up only the messages of its event partition, and only for a moment."""
    lanes = Lanes()
    lanes.add(lane(0, waiting(0, 1, 1), waiting(1, 2, 2)))
    now = time.monotonic()
    lanes.later(1, now)
    assert [found.partition for _, found in lanes.pick(9, now)] == [2]
    assert lanes.blocked(now)
    assert [found.partition for _, found in lanes.pick(9, now + 1)] == [1, 2]
    assert not lanes.blocked(now + 1)


def test_batches_of_an_assignment_that_is_over():
    """A batch that does not continue its lane is thrown away, and the reader is assigned anew."""
    lanes = Lanes()
    it = lane(0)
    lanes.add(it)
    lanes.changed = False
    assert lanes.lane_of(Batch(it.source, 0, [b""])) is it
    assert not lanes.changed
    assert lanes.lane_of(Batch(it.source, 5, [b""])) is None
    assert lanes.lane_of(Batch(TopicPartition("tasks", 9), 0, [b""])) is None
    assert lanes.changed


def test_share():
    """A queue's partitions are divided so that all are taken."""
    assert [share(32, n) for n in (0, 1, 3, 40)] == [32, 32, 11, 1]


def test_allow():
    """APP_WORKER_ALLOW names tasks; `*` allows all."""
    assert is_allowed("shell.run", ["shell.run"])
    assert not is_allowed("shell.run", [])
    assert is_allowed("shell.run", ["*"])


def test_paths():
    """Directories of task files become absolute."""
    assert split_paths("") == ()
    assert all(path.startswith("/") for path in split_paths("tasks: ./more"))


def test_worker_ids_differ():
    """Each worker has an id of its own, that no key or claim can misread."""
    ids = {new_worker_id() for _ in range(50)}
    assert len(ids) == 50
    assert not any(set("|/ ") & set(name) for name in ids)
