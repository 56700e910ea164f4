"""Query parameters that need more than their type."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, NoReturn, TypeVar

from fastapi import Query, Request

from wf_api.problems import of_document
from wf_core.durations import parse_duration_ms
from wf_core.errors import DocumentError, Problem
from wf_core.schema.pointers import join
from wf_core.suggest import did_you_mean

Limit = Annotated[int, Query(ge=1, le=1000, description="longest page")]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before")]
S = TypeVar("S", bound=StrEnum)


async def only_known(request: Request) -> None:
    """A dependency of routes. Raises the problem 422 for query parameters that the route does not take."""
    if not request.query_params:
        return
    route = request.scope["route"].dependant
    known = [field.alias for part in (route, *route.dependencies) for field in part.query_params]
    problems = [
        Problem(
            join(("query", name[:100])),
            "unknown_parameter",
            f"{name[:100]!r} is not known here{did_you_mean(name, known) or '.'}",
        )
        for name in request.query_params
        if name not in known
    ]
    if problems:
        raise of_document(DocumentError(problems), "invalid-parameters")


def refuse(parameter: str, code: str, detail: str) -> NoReturn:
    """Raises the problem 422 about a query parameter."""
    raise of_document(DocumentError([Problem(f"/query/{parameter}", code, detail)]), "invalid-parameters")


def refuse_path(parameter: str, code: str, detail: str) -> NoReturn:
    """Raises the problem 422 about a part of the address."""
    raise of_document(DocumentError([Problem(f"/path/{parameter}", code, detail)]), "invalid-parameters")


def statuses(given: Iterable[str] | None, known: type[S]) -> list[S]:
    """The statuses named in `?status=`, which may be repeated, or list several with commas."""
    names = [name.strip().upper() for text in given or () for name in text.split(",") if name.strip()]
    if any(name not in known.__members__ for name in names):
        refuse("status", "unknown_status", f"status takes: {', '.join(known)}.")
    return [known(name) for name in names]


def labels(given: Iterable[str] | None) -> dict[str, str]:
    """The labels named in `?label=`, each `name=value`."""
    found = {}
    for text in given or ():
        name, separator, value = text.partition("=")
        if not separator or not name:
            refuse("label", "wrong_label", "label takes name=value.")
        found[name] = value
    return found


def since_ms(given: str | None, now_ms: int) -> int | None:
    """Unix ms of `?since=`: an RFC 3339 time, or a duration before now such as 1h."""
    if given is None:
        return None
    try:
        return now_ms - parse_duration_ms(given)
    except (ValueError, OverflowError):
        pass
    try:
        at = datetime.fromisoformat(given.replace(" ", "+"))  # a + that nobody percent-encoded arrives as a space
        return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        refuse("since", "wrong_time", "since takes a time such as 2026-01-31T12:00:00Z, or a duration such as 1h.")
