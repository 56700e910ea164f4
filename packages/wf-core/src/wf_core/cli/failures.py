"""Errors as sentences on stderr and as exit codes. The client is imported only when something went wrong."""

from __future__ import annotations

import re
import sys

from wf_core.cli import exits
from wf_core.errors import DocumentError, Problem, SetupError, UnavailableError, WfError

_HTTP_NOT_FOUND = 404
_HTTP_UNAVAILABLE = 503
_KEY_NEEDED = (401, 403)
MOST_PROBLEMS = 50
_COMMANDS = (
    (re.compile(r"GET /workflows/(\w+)/nodes lists"), r"`wf nodes \1` lists"),
    (re.compile(r"GET /workflows lists"), "`wf ls` lists"),
    (re.compile(r"PUT /definitions/\{name\} registers"), "`wf definitions put` registers"),
    (re.compile(r"GET /definitions lists"), "`wf definitions ls` lists"),
    (re.compile(r"`GET /tasks` lists"), "`wf tasks` lists"),
    (
        re.compile(r"name (\S+) in APP_WORKER_ALLOW where a worker runs"),
        r"start what runs it (`wf dev`, `wf run`, `wf worker`) with --allow \1",
    ),
    (re.compile(r"or submit with \?allow_unknown=true"), "or use `wf submit --allow-unknown`"),
    (re.compile(r"\b(This|another) Idempotency-Key\b"), r"\1 --key"),
)


class NotFoundError(WfError):
    """The caller must act: no execution, node or file of that name."""


class UsageError(WfError):
    """The caller must act: the arguments do not make sense together."""


def report(error: Exception) -> int:
    """Says what is wrong on stderr; returns the exit code. An error that is not one of ours is raised again: a bug."""
    code = exit_code(error)
    if code is None:
        raise error
    for line in sentences(error):
        sys.stderr.write(line + "\n")
    return code


def exit_code(error: Exception) -> int | None:
    """The exit code that an error ends in, None for one that nobody expected."""
    from wf_core.client import ApiError, BadAnswerError, StillRunningError

    if isinstance(error, ApiError):
        return {_HTTP_NOT_FOUND: exits.NOT_FOUND, _HTTP_UNAVAILABLE: exits.UNREACHABLE}.get(error.status, exits.USAGE)
    table: tuple[tuple[type[Exception], int], ...] = (
        (NotFoundError, exits.NOT_FOUND),
        (StillRunningError, exits.TIMEOUT),
        (BadAnswerError, exits.UNREACHABLE),
        (UnavailableError, exits.UNREACHABLE),
        (DocumentError, exits.USAGE),
        (SetupError, exits.USAGE),
        (UsageError, exits.USAGE),
        (OSError, exits.USAGE),
        (WfError, exits.FAILED),
    )
    return next((code for kind, code in table if isinstance(error, kind)), None)


def sentences(error: Exception) -> list[str]:
    """What to tell the user, a line each, with the remedy where there is one."""
    from wf_core.client import ApiError, ServerUnreachableError

    if isinstance(error, ServerUnreachableError):
        return [
            f"error: {error}",
            "Start one here with `wf dev`, or name a running one with --server or WF_SERVER.",
        ]
    if isinstance(error, ApiError):
        hint = ["Set WF_API_KEY to a key of this server."] if error.status in _KEY_NEEDED else []
        if len(error.problems) == 1 and error.problems[0].detail == error.detail:
            return [f"error: {_in_words_of_here(listed(error.problems)[0].strip())}", *hint]
        return [*map(_in_words_of_here, [f"error: {error.detail}", *listed(error.problems)]), *hint]
    if isinstance(error, DocumentError):
        return ["error: the document is not valid", *listed(error.problems)]
    return [f"error: {error}"]


def _in_words_of_here(line: str) -> str:
    """The server names its remedies as requests; here they are commands."""
    for request, command in _COMMANDS:
        line = request.sub(command, line)
    return line


def listed(problems: tuple[Problem, ...]) -> list[str]:
    """One indented line a problem, so many that they still help."""
    lines = [f"  {_place(problem)}: {problem.detail}" for problem in problems[:MOST_PROBLEMS]]
    more = len(problems) - MOST_PROBLEMS
    return [*lines, f"  ... and {more} more"] if more > 0 else lines


def _place(problem: Problem) -> str:
    """The place in the user's own file: the envelope that the document travels in is none of theirs."""
    return problem.pointer.removeprefix("/workflow") or "/"
