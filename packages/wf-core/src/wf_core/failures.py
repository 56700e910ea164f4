"""Why an attempt failed, as a `Failure` that can travel: what its task raised, or how those who ran it ended it."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

from wf_core.durations import LONGEST_MS
from wf_core.errors import PayloadError, PluginError
from wf_core.tasks import Fatal, HeartbeatTimeoutError, ParametersError, RetryAfter
from wf_core.wire import Cause, Failure

TRACEBACK_LIMIT = 16 * 1024
MESSAGE_LIMIT = 8 * 1024
CAUSE_LIMIT = 1024
"""Characters that are kept of a traceback, of a message, and of the message of each error behind it."""
MOST_CAUSES = 10
_NAME_LIMIT = 200
_MOST_CLASSES = 64


def failure_of(error: BaseException, ours: Path) -> Failure:
    """What is kept of `error`: type, message, classes, traceback, the errors behind it.

    The traceback begins below the frames of `ours`, the folder of the code that called the task. Parameters that do not
    fit, an output that is not JSON or too long, and a task that is not to be had are refusals.
    """
    if isinstance(error, ParametersError | PayloadError):
        return refusal(type(error).__name__, str(error), fatal=True)
    if isinstance(error, PluginError):
        return refusal("PluginError", str(error))
    return Failure(
        type=_name(type(error).__name__),
        message=clean(_message(error))[:MESSAGE_LIMIT],
        traceback=_traceback(error, ours),
        classes=class_names(type(error)),
        retry_after_ms=_retry_after_ms(error),
        fatal=isinstance(error, Fatal),
        causes=_causes(error),
    )


def refusal(kind: str, message: str, *, fatal: bool = False) -> Failure:
    """A failure that no task raised: whoever runs the attempt refuses it, or ended it."""
    return Failure(type=kind, message=clean(message)[:MESSAGE_LIMIT], classes=(kind,), fatal=fatal)


def timed_out(timeout_ms: int, detail: str = "") -> Failure:
    """The failure of an attempt that took longer than its timeout."""
    message = f"the attempt took longer than its timeout of {timeout_ms / 1000:g} s{detail}"
    return Failure(type="TimeoutError", message=message, classes=class_names(TimeoutError))


def silent(silent_seconds: float, heartbeat_ms: int) -> Failure:
    """The failure of an attempt that did not call `ctx.heartbeat` for longer than the node's `heartbeat`."""
    message = (
        f"the attempt was silent for {silent_seconds:.3g} s, longer than its heartbeat of {heartbeat_ms / 1000:g} s; "
        "the task must call ctx.heartbeat() more often, or the node needs a longer heartbeat"
    )
    return Failure(type="HeartbeatTimeoutError", message=message, classes=class_names(HeartbeatTimeoutError))


def class_names(cls: type[BaseException]) -> tuple[str, ...]:
    """Short and full names of `cls` and its bases, nearest first, as `retry_on` and `fail_on` match them."""
    names: dict[str, None] = {}
    for base in cls.__mro__[:_MOST_CLASSES]:
        if base is not object:
            names[_name(base.__name__)] = None
            names[_name(f"{base.__module__}.{base.__qualname__}")] = None
    return tuple(names)


def _name(name: str) -> str:
    return clean(name)[:_NAME_LIMIT]


def _causes(error: BaseException) -> tuple[Cause, ...]:
    """The errors that led to `error`, nearest first, as Python chains them; `raise … from None` ends the chain."""
    found: list[Cause] = []
    seen = {id(error)}
    following = _cause(error)
    while following is not None and id(following) not in seen and len(found) < MOST_CAUSES:
        seen.add(id(following))
        found.append(Cause(type=_name(type(following).__name__), message=clean(_message(following))[:CAUSE_LIMIT]))
        following = _cause(following)
    return tuple(found)


def _cause(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None:
        return error.__cause__
    return None if error.__suppress_context__ else error.__context__


def _retry_after_ms(error: BaseException) -> int | None:
    if not isinstance(error, RetryAfter):
        return None
    try:
        return min(max(0, round(error.seconds * 1000)), LONGEST_MS)
    except Exception:  # noqa: BLE001 - a subclass may leave `seconds` out, or make it anything: as if nothing was asked
        return None


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as other:  # noqa: BLE001 - an error's own __str__ may raise anything
        return f"(its message cannot be shown: {type(other).__name__})"


def _traceback(error: BaseException, ours: Path) -> str:
    try:
        lines = traceback.format_exception(type(error), error, _theirs(error.__traceback__, ours))
    except Exception as other:  # noqa: BLE001 - formatting calls the error's own code
        lines = [f"(its traceback cannot be shown: {type(other).__name__})"]
    text = clean("".join(lines))
    return text if len(text) <= TRACEBACK_LIMIT else f"… {text[2 - TRACEBACK_LIMIT :]}"


def _theirs(trace: TracebackType | None, ours: Path) -> TracebackType | None:
    """The part of a traceback below our own frames; nothing of it when there is nothing else."""
    found = trace
    while found is not None and ours in Path(found.tb_frame.f_code.co_filename).parents:
        found = found.tb_next
    return found


def clean(text: str) -> str:
    """`text` without lone surrogates, which do not travel."""
    return text.encode("utf-8", "backslashreplace").decode()
