"""Turns what a task raised into a `Failure` that can travel."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

from wf_core.tasks import Fatal, RetryAfter
from wf_core.wire import Failure

TRACEBACK_LIMIT = 16 * 1024
MESSAGE_LIMIT = 8 * 1024
"""Characters that are kept."""

_OURS = str(Path(__file__).parent)


def failure_of(error: BaseException, *, fatal: bool = False) -> Failure:
    """What is kept of `error`: type, message, classes, traceback without our own frames."""
    return Failure(
        type=type(error).__name__,
        message=_clean(_message(error))[:MESSAGE_LIMIT],
        traceback=_traceback(error),
        classes=class_names(type(error)),
        retry_after_ms=_retry_after_ms(error),
        fatal=fatal or isinstance(error, Fatal),
    )


def refusal(kind: str, message: str, *, fatal: bool = False) -> Failure:
    """A failure that no task raised: the worker itself refuses, or ended the attempt."""
    return Failure(type=kind, message=_clean(message)[:MESSAGE_LIMIT], classes=(kind,), fatal=fatal)


def timed_out(timeout_ms: int, detail: str = "") -> Failure:
    """The failure of an attempt that took longer than its timeout."""
    message = f"the attempt took longer than its timeout of {timeout_ms / 1000:g} s{detail}"
    return Failure(type="TimeoutError", message=message, classes=class_names(TimeoutError))


def class_names(cls: type[BaseException]) -> tuple[str, ...]:
    """Short and full names of `cls` and its bases, nearest first, as `retry_on` and `fail_on` match them."""
    names: dict[str, None] = {}
    for base in cls.__mro__:
        if base is not object:
            names[base.__name__] = None
            names[f"{base.__module__}.{base.__qualname__}"] = None
    return tuple(names)


def _retry_after_ms(error: BaseException) -> int | None:
    if not isinstance(error, RetryAfter):
        return None
    try:
        return max(0, round(error.seconds * 1000))
    except (OverflowError, TypeError, ValueError):  # not a number: as if nothing was asked
        return None


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as other:  # noqa: BLE001 - an error's own __str__ may raise anything
        return f"(its message cannot be shown: {type(other).__name__})"


def _traceback(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, _theirs(error.__traceback__))
    except Exception as other:  # noqa: BLE001 - formatting calls the error's own code
        lines = [f"(its traceback cannot be shown: {type(other).__name__})"]
    text = _clean("".join(lines))
    return text if len(text) <= TRACEBACK_LIMIT else f"… {text[2 - TRACEBACK_LIMIT :]}"


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """The part of a traceback below our own frames; all of it when there is nothing else."""
    found = trace
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_OURS):
        found = found.tb_next
    return found


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
