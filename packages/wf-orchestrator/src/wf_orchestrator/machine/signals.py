"""Signals from outside: each is taken by one wait, or kept until one takes it. A copy changes nothing."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from wf_core.store.codec import MOST_SIGNAL_BYTES, MOST_SIGNALS
from wf_orchestrator.machine import cascade, evaluate
from wf_orchestrator.machine.effects import Accepted
from wf_orchestrator.machine.kinds import wait
from wf_orchestrator.machine.state import KEPT_COMMANDS
from wf_orchestrator.machine.waits import Signal

if TYPE_CHECKING:
    from wf_core.wire import Signalled
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

_MARK_BYTES = 8
_MOST_HEARD = 1024
"""Signals that an execution knows again: more than `signalled`, since that many may be on their way at once."""


def signalled(step: Step, event: Signalled) -> None:
    """Folds a signal: the wait that has been open longest takes it, of those that it fits; else it is kept.

    One for which there is no room is no obeyed command, and may be sent again.
    """
    x = step.x
    step.effect(Accepted(f"{event.execution}/signal:{event.id}"))
    mark = blake2b(event.id.encode(), digest_size=_MARK_BYTES).digest()
    if x.status.is_terminal or event.ts <= step.partition.expired or _was_heard(x, mark):
        return
    signal = Signal(event.id, event.name, event.payload)
    taker = _taker(step, signal)
    if taker is None and not has_room(x, signal):
        reason = f"an execution keeps at most {MOST_SIGNALS:,} signals, {MOST_SIGNAL_BYTES:,} bytes of payloads in all"
        data = {"name": event.name, "command": event.id, "reason": reason}
        step.tell("execution.signal_dropped", None, data)
        return
    # Apart from `commands`: however many signals come, a copy of an earlier pause or cancel is still known.
    x.signalled = [*x.signalled, (event.id, event.request)][-KEPT_COMMANDS:]
    x.heard = (x.heard + mark)[-_MOST_HEARD * _MARK_BYTES :]
    step.touch("signalled", "heard")
    taken_by = None if taker is None else x.path(taker)
    step.tell("execution.signalled", None, {"name": event.name, "command": event.id, "consumed_by": taken_by})
    if taker is None:
        x.signals.append(signal)
        step.touch("signals")
    else:
        wait.receive(step, taker, signal)
        cascade.settle(step)


def has_room(x: Execution, signal: Signal) -> bool:
    """Whether one more signal can be kept."""
    size = sum(len(kept.payload) for kept in x.signals) + len(signal.payload)
    return len(x.signals) < MOST_SIGNALS and size <= MOST_SIGNAL_BYTES


def _taker(step: Step, signal: Signal) -> int | None:
    """The open wait that takes a signal. The history tells of the first one whose `match` could not be evaluated."""
    x, offer = step.x, wait.Offer(signal)
    failed: tuple[int, Exception] | None = None
    taker = None
    for _, index in x.listeners.get(signal.name, ()):
        try:
            if offer.fits(x, index):
                taker = index
                break
        except evaluate.EVALUATION_ERRORS as error:
            failed = failed or (index, error)
    if failed is not None:
        wait.tell_unmatched(step, failed[0], signal, failed[1], 1)
    return taker


def _was_heard(x: Execution, mark: bytes) -> bool:
    """Whether a signal is a copy. Marks lie one after the other."""
    at = x.heard.find(mark)
    while at % _MARK_BYTES and at >= 0:
        at = x.heard.find(mark, at + 1)
    return at >= 0
