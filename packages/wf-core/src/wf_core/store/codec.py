"""How values lie in Redis: node cells of 10 bytes, attempts in msgpack, lines of the history."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

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


def pack_timer(kind: str, token: str) -> str:
    """A timer as a member of its partition's zset. `token` is that of an attempt, or an execution's id."""
    return f"{kind}|{token}"


def unpack_timer(member: str) -> tuple[str, str]:
    """Kind and token."""
    kind, _, token = member.partition("|")
    return kind, token


def pack_failure(failure: Failure) -> bytes:
    """Field `error` of an execution."""
    return _encoder.encode(failure)


def unpack_failure(data: bytes | None) -> Failure | None:
    """What `pack_failure` made; None when there is no field."""
    return _failure.decode(data) if data else None


class HistoryLine(NamedTuple):
    """One line of an execution's history: `data` is a JSON object in bytes, or empty."""

    seq: str
    kind: str
    node: str
    attempt: int
    status: str
    ts: int
    data: bytes


PackedLine = tuple[int, int, tuple[str, str, int, str, int, bytes]]
"""`(position, number, line without its seq)`: the seq is `position-number`."""
MOST_LINES = 32
"""Of one entry: a page of the history reads as many entries as it has lines at most."""
_LINES, _SHIFTED = b"lines", b"shifted"
_lines = msgspec.msgpack.Decoder(list[PackedLine])


def pack_history(lines: Sequence[PackedLine]) -> bytes:
    """Field `lines` of an entry of the history stream, which has the seq of the last one of `lines` for its id."""
    return _encoder.encode(lines)


def history_lines(entry_id: bytes, fields: Mapping[bytes, bytes]) -> list[HistoryLine]:
    """The lines of an entry, oldest first. An entry of an older release holds one line in columns of its own.

    Where APPLY gave the entry another id (see there), the lines are counted back from it.
    """
    packed = fields.get(_LINES)
    if packed is None:
        return [_from_columns(entry_id.decode(), fields)]
    lines = _lines.decode(packed)
    if _SHIFTED in fields:
        position, _, last = entry_id.decode().partition("-")
        first = int(last) - len(lines) + 1
        return [HistoryLine(f"{position}-{first + i}", *line) for i, (_, _, line) in enumerate(lines)]
    return [HistoryLine(f"{position}-{number}", *line) for position, number, line in lines]


def _from_columns(seq: str, fields: Mapping[bytes, bytes]) -> HistoryLine:
    kind, node, status = (fields.get(name, b"").decode() for name in (b"kind", b"node", b"status"))
    attempt, ts = int(fields.get(b"attempt", b"0")), int(fields.get(b"ts", b"0"))
    return HistoryLine(seq, kind, node, attempt, status, ts, fields.get(b"data", b""))
