"""How values lie in Redis: node cells of 10 bytes, attempts in msgpack, entries of the history."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from wf_core.states import AttemptClass, AttemptStatus, NodeStatus, ScopeState
from wf_core.wire import Failure

NODE_BYTES = 10
MOST_ATTEMPTS = 2**16 - 1
MOST_LOST = 2**8 - 1
MOST_SIGNALS = 1000
"""Signals of one execution that are kept until a wait takes them: its field `signals`, [[id, name, payload], …]."""
MOST_SIGNAL_BYTES = 4 * 2**20
"""Of their payloads."""

_CELL = struct.Struct(">BHBHI")
_CODES: tuple[NodeStatus, ...] = (
    NodeStatus.PENDING,  # 0, so that bytes that were never written read as PENDING
    NodeStatus.QUEUED,
    NodeStatus.RUNNING,
    NodeStatus.RETRYING,
    NodeStatus.WAITING,
    NodeStatus.COMPLETED,
    NodeStatus.FAILED,
    NodeStatus.CANCELLED,
    NodeStatus.SKIPPED,
    NodeStatus.UPSTREAM_FAILED,
)
"""Codes are stored: append only."""
_CODE = {status: code for code, status in enumerate(_CODES)}

NodeCell = tuple[NodeStatus, int, int, int]
"""`(status, attempt, attempts lost to the platform, Unix ms of the last change)`."""


def pack_node(status: NodeStatus, attempt: int, lost: int, time_ms: int) -> bytes:
    """The cell of a node. `attempt` and `lost` stop at MOST_ATTEMPTS and MOST_LOST, `time_ms` has 48 bits."""
    high, low = divmod(time_ms, 2**32)
    return _CELL.pack(_CODE[status], min(attempt, MOST_ATTEMPTS), min(lost, MOST_LOST), high & 0xFFFF, low)


def unpack_nodes(data: bytes, count: int) -> list[NodeCell]:
    """The first `count` cells; those beyond the end of `data` are PENDING and were never tried."""
    whole = data[: count * NODE_BYTES].ljust(count * NODE_BYTES, b"\0")
    return [
        (_CODES[code], attempt, lost, high << 32 | low) for code, attempt, lost, high, low in _CELL.iter_unpack(whole)
    ]


class AttemptRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One try of a node that ended. Times are Unix ms; `started_at` is None when no worker began it."""

    attempt: int
    status: AttemptStatus
    class_: AttemptClass | None = msgspec.field(default=None, name="class")
    """Whose budget it used; None when it COMPLETED."""
    worker: str = ""
    package: str = ""
    worker_package: str = ""
    host: str = ""
    queued_at: int | None = None
    started_at: int | None = None
    ended_at: int | None = None
    error: Failure | None = None
    decision: str = ""
    """What followed: `retry`, `stop` or nothing."""
    reason: str = ""
    log_tail: str = ""
    """The last lines that it logged or printed, when it did not complete."""
    era: int = 0
    """How often the body that its node is in had been started again: budgets count the attempts of one era."""


class ScopeRecord(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """The inside of a container: a map item, a loop pass, a dynamic node, a compensation.

    Its nodes' cells lie from `base` on, in the order of the body's nodes; `parent` is the cell of the node it is in.
    Field names of the hash are scope keys: `price[3]`, `poll#2`, `dyn`, `price[3]/inner#0`, `charge~compensate`.
    """

    base: int
    parent: int
    number: int = 0
    state: ScopeState = ScopeState.OPEN
    halting: str = ""
    """`halt` or `cancel` once a failure has stopped it from starting anything but clean-up."""
    wanted: bytes = b""
    error: Failure | None = None
    floor: int = 0
    """The attempt that its nodes count from: the number of an attempt never comes again."""
    forgotten: int = 0
    """Most attempts of a node in the passes whose cells later ones took over."""
    era: int = 0
    """How often it was started again: budgets count the attempts of one era."""
    document: bytes = b""
    """Canonical JSON of a document that holds its nodes, of a dynamic node."""
    held: bool = False
    """Opened again by `retry`, it waits until its map's `max_parallel` leaves it a place."""


_encoder = msgspec.msgpack.Encoder()
_attempts = msgspec.msgpack.Decoder(list[AttemptRecord])
_scope = msgspec.msgpack.Decoder(ScopeRecord)
_failure = msgspec.msgpack.Decoder(Failure)


def pack_scope(scope: ScopeRecord) -> bytes:
    """A field of `{p}:b:<id>`."""
    return _encoder.encode(scope)


def unpack_scope(data: bytes) -> ScopeRecord:
    """What `pack_scope` made."""
    return _scope.decode(data)


def pack_attempts(attempts: Sequence[AttemptRecord]) -> bytes:
    """Field `a:<node>` of the results."""
    return _encoder.encode(attempts)


def unpack_attempts(data: bytes | None) -> list[AttemptRecord]:
    """What `pack_attempts` made; no attempts when there is no field."""
    return _attempts.decode(data) if data else []


def pack_failure(failure: Failure) -> bytes:
    """Field `error` of an execution."""
    return _encoder.encode(failure)


def unpack_failure(data: bytes | None) -> Failure | None:
    """What `pack_failure` made; None when there is no field."""
    return _failure.decode(data) if data else None


def history_fields(  # noqa: PLR0913 - the columns of an entry
    ts: int, kind: str, *, node: str = "", attempt: int = 0, status: str = "", data: bytes = b""
) -> tuple[str | bytes, ...]:
    """Fields and values of an entry of the history stream, to follow its id in XADD. `data` is a JSON object."""
    pairs: list[str | bytes] = ["ts", str(ts), "kind", kind]
    for name, value in (("node", node), ("attempt", str(attempt) if attempt else ""), ("status", status)):
        if value:
            pairs += (name, value)
    if data:
        pairs += ("data", data)
    return tuple(pairs)
