"""Which bytes are records, which are a newer release's, and which are garbage."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from wf_core import wire
from wf_core.wire import NewerRecordError

LOST: dict[str, Any] = {
    "kind": "lost",
    "execution": "x",
    "ts": 1,
    "source": "s",
    "node": "n",
    "attempt": 1,
    "reason": "dead",
}
CREATED: dict[str, Any] = {
    "kind": "created",
    "execution": "x",
    "ts": 1,
    "source": "s",
    "id": "create",
    "document": "d",
    "name": "n",
}
TASK: dict[str, Any] = {
    "execution": "x",
    "node": "n",
    "attempt": 1,
    "task": "t",
    "params": b"{}",
    "workflow": "w",
    "queued_at": 1,
}


def packed(record: dict[str, Any], **more: Any) -> bytes:
    return msgspec.msgpack.encode(record | more)


def test_fields_that_this_release_does_not_know_are_ignored():
    """A newer release may add fields to what an older one reads."""
    assert wire.decode_event(packed(LOST, colour="red")) == wire.decode_event(packed(LOST))
    assert wire.decode_task(packed(TASK, colour="red")) == wire.decode_task(packed(TASK))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (packed(LOST, kind="suspended"), "its kind 'suspended' is unknown"),
        (packed(LOST, v=3), "its version is 3, this release reads up to 2"),
        (packed(LOST, v=3, attempt={"of": "another shape"}), "its version is 3"),
        (packed({"kind": "suspended"}, v=3), "its version is 3"),
        (packed(CREATED, rules=3), "it needs rules 3, this release has 2"),
    ],
)
def test_a_record_of_a_newer_release_is_told_from_garbage(record: bytes, reason: str):
    """An unknown kind, a newer version, newer rules: nothing of it may be buried by a release that is too old."""
    with pytest.raises(NewerRecordError, match=reason):
        wire.decode_event(record)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xc1 garbage",
        b'{"kind": "lost"}',
        msgspec.msgpack.encode(["lost"]),
        msgspec.msgpack.encode({"kind": 7}),
        msgspec.msgpack.encode({1: "lost"}),
        packed({}, v=3),
        packed(LOST, v="2", kind="suspended"),
        packed(LOST, attempt="one"),
        packed({"kind": "lost"}),
    ],
)
def test_garbage_is_no_record(record: bytes):
    """Not msgpack, no map with a kind, or a known kind with fields of other types: it belongs in the dead letters."""
    with pytest.raises(msgspec.MsgspecError):
        wire.decode_event(record)


@pytest.mark.parametrize("more", [{"v": 3}, {"v": 3, "params": 7}])
def test_a_task_message_of_a_newer_release_is_told_from_garbage(more: dict[str, Any]):
    """A worker that is too old leaves it alone."""
    with pytest.raises(NewerRecordError, match="its version is 3"):
        wire.decode_task(packed(TASK, **more))
    with pytest.raises(msgspec.MsgspecError):
        wire.decode_task(packed(TASK, params=7))
