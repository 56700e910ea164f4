"""`wait`: until a time, for a signal, or for any or all of several such terms. Holds no slot.

One timer, `wait|token`, stands for all of its times: it is set for the next one, and set anew when that has come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from wf_core import payload
from wf_core.durations import moment_ms, parse_duration_ms
from wf_core.errors import PayloadError
from wf_core.sentences import lasting
from wf_core.wire import Failure
from wf_orchestrator.machine import evaluate, failure, waits
from wf_orchestrator.machine.kinds import overdue
from wf_orchestrator.machine.kinds.nothing import no_bodies, nothing_to_open
from wf_orchestrator.machine.step import Kind
from wf_orchestrator.machine.waits import Signal, Wait

if TYPE_CHECKING:
    from wf_core.plan import WaitPlan, WaitTerm
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

_SHOWN = 100


class Offer:
    """A signal that is offered to waits; its payload is decoded once, when the first `match` asks for it."""

    __slots__ = ("_names", "signal")

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self._names: dict[str, Any] | None = None

    def fits(self, x: Execution, index: int) -> bool:
        """Whether an open wait that listens to signals of this name takes it. Raises one of EVALUATION_ERRORS."""
        condition = _term_of(_spec(x, index), self.signal.name)[1].match
        if condition is None:
            return True
        if self._names is None:
            try:
                self._names = {"payload": payload.decode(self.signal.payload)}
            except msgspec.DecodeError as error:
                raise PayloadError(f"the payload of the signal {self.signal.name!r} is no JSON: {error}") from error
        return evaluate.holds(x, index, condition, self._names)


def begin(step: Step, index: int) -> None:
    """Opens the wait. What has come already, a time that is past or a signal that was kept, counts at once."""
    x, spec = step.x, _spec(step.x, index)
    try:
        due = [_due(x, index, term, step.now) for term in spec.terms]
    except evaluate.EVALUATION_ERRORS as error:
        failure.reject(step, index, evaluate.failure_of(error))
        return
    except ValueError as error:
        failure.reject(step, index, Failure(type="ValueError", message=str(error), fatal=True))
        return
    step.open_node(index)
    wait = x.waits[index] = Wait(due, None if spec.timeout_ms is None else step.now + spec.timeout_ms, {})
    for term in spec.terms:
        if term.signal is not None:
            waits.listen(x, index, term.signal)
    for number, term in enumerate(spec.terms):
        time = wait.due[number]
        if term.signal is not None:
            early = _take_early(step, index, term.signal)
            ended = early is not None and _come(step, index, number, early.payload)
        else:
            ended = time is not None and time <= step.now and _come(step, index, number, b"null")
        if ended:
            return
    _save(step, index)
    signals = [term.signal for number, term in enumerate(spec.terms) if term.signal and number not in wait.came]
    step.tell("node.waiting", index, {"signals": signals, "due": wait.next_due()})


def receive(step: Step, index: int, signal: Signal) -> None:
    """An open wait takes a signal that fits it."""
    number, _ = _term_of(_spec(step.x, index), signal.name)
    if not _come(step, index, number, signal.payload):
        _save(step, index)


def time_has_come(step: Step, index: int) -> None:
    """The timer `wait` has fired: every time that is past has come, in their order, unless the timeout was earlier."""
    wait = step.x.waits.get(index)
    if wait is None:
        return
    is_over = wait.timeout is not None and wait.timeout <= step.now
    until = wait.timeout if is_over and wait.timeout is not None else step.now
    past = sorted((due, number) for number, due in enumerate(wait.due) if due is not None and due <= until)
    for _, number in past:
        if _come(step, index, number, b"null"):
            return
    if not is_over:
        _save(step, index)
        return
    spec = _spec(step.x, index)
    missing = [term.name for number, term in enumerate(spec.terms) if number not in wait.came]
    _leave(step, index)
    overdue.end(step, index, spec.on_timeout, f"{_awaited(missing)} within {lasting(spec.timeout_ms or 0)}")


def _awaited(missing: list[str]) -> str:
    shown = ", ".join(map(repr, missing[:3]))
    return f"no {shown}" if len(missing) <= 3 else f"no {shown} and {len(missing) - 3:,} more"  # noqa: PLR2004 - as shown


def _come(step: Step, index: int, number: int, data: bytes) -> bool:
    """A term has come, with `data` (JSON). Whether that ends the wait: it has then COMPLETED."""
    x, spec = step.x, _spec(step.x, index)
    wait, term = x.waits[index], spec.terms[number]
    wait.due[number] = None
    wait.came[number] = data
    if term.signal is not None:
        waits.ignore(x, index, term.signal)
    if spec.mode == "all" and len(wait.came) < len(spec.terms):
        return False
    _leave(step, index)
    failure.complete(step, index, _output(spec, wait, number))
    return True


def _output(spec: WaitPlan, wait: Wait, last: int) -> bytes:
    if spec.mode == "one":
        return wait.came[last]
    if spec.mode == "any":
        return b'{"by":' + payload.encode(spec.terms[last].name) + b',"payload":' + wait.came[last] + b"}"
    terms = (payload.encode(term.name) + b":" + wait.came[number] for number, term in enumerate(spec.terms))
    return b"{" + b",".join(terms) + b"}"


def _save(step: Step, index: int) -> None:
    """Stores an open wait, and has its next time brought."""
    x, spec = step.x, _spec(step.x, index)
    wait = x.waits[index]
    if waits.is_stored(spec):
        step.keep("w:" + x.path(index), waits.pack(wait))
    due = wait.next_due()
    if due is not None:
        step.set_timer("wait", index, due)
    elif waits.has_times(spec):
        step.clear_timer("wait", index)


def _leave(step: Step, index: int) -> None:
    """The wait is about to end: nothing is left of it."""
    x, spec = step.x, _spec(step.x, index)
    wait = x.waits.pop(index)
    for number, term in enumerate(spec.terms):
        if term.signal is not None and number not in wait.came:
            waits.ignore(x, index, term.signal)
    if waits.has_times(spec):
        step.clear_timer("wait", index)
    if waits.is_stored(spec):
        step.keep("w:" + x.path(index), None)


def _drop(step: Step, index: int, _reason: str) -> None:
    if index in step.x.waits:
        _leave(step, index)


def _take_early(step: Step, index: int, name: str) -> Signal | None:
    """The oldest signal that was kept and that the wait takes."""
    x = step.x
    errors: list[tuple[Signal, Exception]] = []
    taken = None
    for at, signal in enumerate(x.signals):
        if signal.name != name:
            continue
        try:
            if Offer(signal).fits(x, index):
                taken = x.signals.pop(at)
                step.touch("signals")
                break
        except evaluate.EVALUATION_ERRORS as error:
            errors.append((signal, error))
    if errors:
        tell_unmatched(step, index, *errors[0], len(errors))
    if taken is not None:
        step.tell("node.signalled", index, {"name": name, "command": taken.id})
    return taken


def tell_unmatched(step: Step, index: int, signal: Signal, error: Exception, number: int) -> None:
    """A `match` could not be evaluated for a signal (and for others, `number` in all): nobody took it for that."""
    data = {"name": signal.name, "command": signal.id, "error": str(error), "signals": number}
    step.tell("node.unmatched", index, data)


def _due(x: Execution, index: int, term: WaitTerm, now: int) -> int | None:
    """When a term comes by itself. Raises ValueError for a value that is no time, and EVALUATION_ERRORS."""
    if term.until is not None:
        value = evaluate.render(x, index, term.until)
        try:
            return moment_ms(value)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"`until` of {x.path(index)!r} gives {_shown(value)}: {error}") from error
    if term.duration_ms is None:
        return None
    if isinstance(term.duration_ms, int):
        return now + term.duration_ms
    value = evaluate.render(x, index, term.duration_ms)
    try:
        if not isinstance(value, str | int | float):
            raise ValueError("a duration is a text such as 90s, 5m or PT5M, or a number of seconds")  # noqa: TRY004, TRY301 - as any other wrong one
        return now + parse_duration_ms(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"`duration` of {x.path(index)!r} gives {_shown(value)}: {error}") from error


def _shown(value: Any) -> str:
    text = payload.encode(value).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _term_of(spec: WaitPlan, signal: str) -> tuple[int, WaitTerm]:
    """The term for a signal, and its place."""
    return next((number, term) for number, term in enumerate(spec.terms) if term.signal == signal)


def _spec(x: Execution, index: int) -> WaitPlan:
    spec: Any = x.node(index).spec
    return spec  # type: ignore[no-any-return]


KIND = Kind(begin, no_bodies, nothing_to_open, _drop, "cancel")
