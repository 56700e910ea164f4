"""Whether a triggered execution may start: its side of a concurrency key. The key's is `machine.concurrency`.

While it waits the execution is RUNNING and nothing of it starts, not even `finally`; its timeout counts. A holder that
ends in any way gives the key back, once everything of it has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wf_core import ids, payload
from wf_core.errors import PayloadError
from wf_core.states import ExecutionStatus
from wf_core.wire import Acquire, Failure, Holds, Release
from wf_orchestrator.machine import cascade, control, ending, evaluate
from wf_orchestrator.machine.concurrency import ASKED, HELD, LONGEST_KEY, RELEASED, WAITING, Hold, keep
from wf_orchestrator.machine.effects import ClearTimer, Send, SetTimer

if TYPE_CHECKING:
    from wf_core.wire import KeyAnswer
    from wf_orchestrator.machine.effects import Effect
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step

AGAIN_MS = 600_000
"""An execution that waits asks again so often: a key that forgot it, in a disaster, hears of it once more."""


def request(x: Execution) -> Acquire | None:
    """What an `acquire` timer says to the key; None when the timer is stale. `ts` and `source` are the shell's."""
    hold, plan = x.hold, x.plan
    if hold is None or hold.state not in (ASKED, WAITING) or plan is None or plan.concurrency is None:
        return None
    return Acquire(
        execution=x.id,
        ts=0,
        source="",
        key=hold.key,
        era=hold.era,
        limit=plan.concurrency.limit,
        on_conflict=plan.concurrency.on_conflict,
    )


def admit(step: Step) -> bool:
    """Whether the execution may start now. Else it asks for its key, or has failed because the key cannot be told."""
    x = step.x
    concurrency = x.plan_of().concurrency
    if concurrency is None:
        return True
    try:
        key = _key(x)
    except evaluate.EVALUATION_ERRORS as error:
        _end(step, ExecutionStatus.FAILED, evaluate.failure_of(error), "its concurrency key cannot be told")
        return False
    keep(step, Hold(key, x.era))
    step.effect(SetTimer("acquire", ids.token(x.id, key, x.era), step.now))
    step.tell("execution.acquiring", None, {"key": key, "limit": concurrency.limit})
    return False


def answered(step: Step, event: KeyAnswer) -> None:
    """Folds what the key says."""
    x, hold = step.x, step.x.hold
    ours = hold is not None and (hold.key, hold.era) == (event.key, event.era) and hold.state != RELEASED
    if hold is None or not ours or x.status.is_terminal:
        step.outcome.effects += unwanted(event)
    elif answer := _ANSWERS.get(event.answer):
        step.effect(ClearTimer("acquire", ids.token(x.id, event.key, event.era)))
        answer(step, event, hold)


def unwanted(event: KeyAnswer) -> list[Effect]:
    """What follows when the execution has ended, has another key by now, or does not exist any more."""
    if event.answer == "released":
        return [ClearTimer("release", ids.token(event.execution, event.key, event.era))]
    if event.answer == "refused":
        return []
    return [Send(Release(execution=event.execution, ts=0, source="", key=event.key, era=event.era))]


def _granted(step: Step, event: KeyAnswer, hold: Hold) -> None:
    step.effect(Send(Holds(execution=event.execution, ts=0, source="", key=event.key, era=event.era)))
    if hold.state == HELD:
        return
    keep(step, Hold(hold.key, hold.era, HELD))
    step.tell("execution.admitted", None, {"key": hold.key})
    control.admitted(step)


def _queued(step: Step, event: KeyAnswer, hold: Hold) -> None:
    if hold.state == HELD:
        return
    _ask_later(step, hold)
    if hold.state == ASKED:
        keep(step, Hold(hold.key, hold.era, WAITING, event.holder))
        step.tell("execution.waiting", None, {"key": hold.key, "holder": event.holder})


def _ask_later(step: Step, hold: Hold) -> None:
    step.effect(SetTimer("acquire", ids.token(step.x.id, hold.key, hold.era), step.now + AGAIN_MS))


def _refused(step: Step, event: KeyAnswer, hold: Hold) -> None:
    """`skip`: CANCELLED, as a run that a newer one made needless; else FAILED."""
    if hold.state == WAITING:  # the key forgot that it waits, and has no room; or this is late
        _ask_later(step, hold)
    if hold.state != ASKED:
        return
    concurrency = step.x.plan_of().concurrency
    if concurrency is None:
        return
    skips = concurrency.on_conflict == "skip"
    keep(step, Hold(hold.key, hold.era, RELEASED))
    if skips or concurrency.on_conflict == "reject":
        limit = f"limit {concurrency.limit}"
        message = f"the concurrency key {hold.key!r} ({limit}) is held by execution {event.holder}"
    else:
        message = f"too many executions wait for the concurrency key {hold.key!r}"
    error = Failure(type="ConcurrencySkipped" if skips else "ConcurrencyError", message=message)
    _end(step, ExecutionStatus.CANCELLED if skips else ExecutionStatus.FAILED, error, message)


def _evicted(step: Step, _event: KeyAnswer, hold: Hold) -> None:
    """Told again and again until the key is given back: clean-up that runs by then is left to end."""
    if step.x.ending:
        return
    reason = f"a newer execution takes over the concurrency key {hold.key!r}"
    step.tell("execution.cancelling", None, {"reason": reason})
    ending.stop(step, reason, ExecutionStatus.CANCELLED)
    cascade.settle(step)


_ANSWERS = {"granted": _granted, "queued": _queued, "refused": _refused, "evicted": _evicted}


def _end(step: Step, status: ExecutionStatus, error: Failure, reason: str) -> None:
    """Ends the execution, of which nothing has started: nothing is cleaned up."""
    step.x.error = error
    step.touch("error")
    ending.stop_unstarted(step, reason, status)


def _key(x: Execution) -> str:
    """The key as text. Raises one of EVALUATION_ERRORS."""
    concurrency = x.plan_of().concurrency
    if concurrency is None:
        raise RuntimeError("the document has no concurrency")
    value = evaluate.render_for_all(x, concurrency.key)
    key = value if isinstance(value, str) else payload.encode(value).decode()
    if len(key) > LONGEST_KEY:
        raise PayloadError(f"the concurrency key is {len(key):,} characters long, and {LONGEST_KEY:,} are the most")
    return key
