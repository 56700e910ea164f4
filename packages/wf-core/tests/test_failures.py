"""What is kept of an error: all that helps, bounded, and able to travel."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from wf_core.errors import PluginError, Problem
from wf_core.failures import CAUSE_LIMIT, MESSAGE_LIMIT, MOST_CAUSES, TRACEBACK_LIMIT, class_names, failure_of
from wf_core.tasks import Fatal, ParametersError, RetryAfter

OURS = Path("/nowhere")


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
        failure = failure_of(error, OURS)
    assert len(failure.message) == MESSAGE_LIMIT
    assert len(failure.traceback) <= TRACEBACK_LIMIT
    assert failure.traceback.endswith("x\n")


def test_failure_of_anything():
    """Errors whose own methods raise, and texts with lone surrogates, become failures that can travel."""

    class RudeError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert "cannot be shown" in failure_of(raised(RudeError()), OURS).message
    assert failure_of(raised(ValueError("\ud800")), OURS).message == "\\ud800"
    assert failure_of(raised(Fatal("x")), OURS).fatal
    assert failure_of(raised(RetryAfter(float("inf"))), OURS).retry_after_ms is None


def test_everything_of_a_failure_is_bounded():
    """Names, classes and the chain of causes are cut too, so that the log takes any failure."""
    endless = type("N" * 5000, (ValueError,), {})("x" * 5000)
    endless.__cause__ = other = RuntimeError("y" * 5000)
    other.__context__ = endless  # a ring
    failure = failure_of(raised(endless), OURS)
    assert (len(failure.type), max(map(len, failure.classes))) == (200, 200)
    assert [(cause.type, len(cause.message)) for cause in failure.causes] == [("RuntimeError", CAUSE_LIMIT)]
    longest = ValueError("ü" * 10_000)
    for _ in range(50):
        wrapped = ValueError("\U0001f600" * 10_000)
        wrapped.__cause__, longest = longest, wrapped
    assert len(failure_of(raised(longest), OURS).causes) == MOST_CAUSES
    assert len(msgspec.msgpack.encode(failure_of(raised(longest), OURS))) < 200_000


def test_class_names():
    """An error is known by the short and full names of its class and its bases, itself first."""
    assert class_names(asyncio.TimeoutError)[:2] == ("TimeoutError", "builtins.TimeoutError")
    assert {"OSError", "builtins.Exception", "BaseException"} <= set(class_names(TimeoutError))


def test_refusals_are_no_failures_of_the_task():
    """What is refused before or after the task's code has no traceback; parameters that do not fit never will."""
    refused = failure_of(raised(ParametersError("t", (Problem("/rows", "missing", "it is required"),))), OURS)
    assert (refused.type, refused.fatal, refused.traceback) == ("ParametersError", True, "")
    missing = failure_of(raised(PluginError("no such task")), OURS)
    assert (missing.type, missing.fatal, missing.traceback) == ("PluginError", False, "")


def test_a_traceback_begins_with_the_task():
    """Frames of the code that called the task are left out, and only those."""
    error = raised(ValueError("x"))
    assert "in raised" in failure_of(error, OURS).traceback
    assert failure_of(error, Path(__file__).parent).traceback == "ValueError: x\n"
    assert "in raised" in failure_of(error, Path(__file__).parent / "other").traceback
