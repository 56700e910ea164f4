"""What is kept for nodes that wait: the signals that nobody has taken yet, and what an open wait still lacks.

The state of an execution has three parts of it:

* `signals`, a field of the execution: signals that came early, oldest first;
* `waits`, by node while it is open: field `w:<path>` of the results, where there is more to it than names of signals;
* `listeners`, derived: which open waits take a signal, by its name, longest waiting first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from wf_core.plan import WaitPlan
    from wf_orchestrator.machine.state import Execution


class Signal(msgspec.Struct, frozen=True, array_like=True):
    """A signal: the id of its command, its name, and its payload as JSON."""

    id: str
    name: str
    payload: bytes


class Wait(msgspec.Struct, array_like=True):
    """The open attempt of a wait. Terms go by their place in the document; times are Unix ms."""

    due: list[int | None]
    """Of each term that is a time and has not come."""
    timeout: int | None = None
    came: dict[int, bytes] = {}
    """What came (JSON), of those that wait for all of their terms."""

    def next_due(self) -> int | None:
        """When something happens by itself; None: never."""
        times = [time for time in (*self.due, self.timeout) if time is not None]
        return min(times, default=None)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Wait)


def pack(wait: Wait) -> bytes:
    """Field `w:<path>`."""
    return _encoder.encode(wait)


def has_times(spec: WaitPlan) -> bool:
    """Whether a wait needs a timer."""
    return spec.timeout_ms is not None or any(term.signal is None for term in spec.terms)


def is_stored(spec: WaitPlan) -> bool:
    """Whether a wait is more than what the document says of it."""
    return spec.mode == "all" or has_times(spec)


def load(x: Execution, index: int, spec: WaitPlan, data: bytes | None) -> None:
    """An open wait out of its field, or out of the document when it needs none."""
    wait = x.waits[index] = _decoder.decode(data) if data else Wait([None] * len(spec.terms))
    for number, term in enumerate(spec.terms):
        if term.signal is not None and number not in wait.came:
            listen(x, index, term.signal)


def listen(x: Execution, index: int, name: str) -> None:
    """The open wait takes the next signal of this name."""
    insort(x.listeners.setdefault(name, []), (x.cells[index].time_ms, index))


def ignore(x: Execution, index: int, name: str) -> None:
    """The wait, which is still open, takes no signal of this name any more."""
    waiting = x.listeners.get(name, [])
    entry = (x.cells[index].time_ms, index)
    at = bisect_left(waiting, entry)
    if at < len(waiting) and waiting[at] == entry:
        del waiting[at]
    if not waiting:
        x.listeners.pop(name, None)
