"""A body that is a small JSON object, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wf_api.body import read_body
from wf_api.envelope import unknown_keys
from wf_api.problems import of_document
from wf_core.errors import DocumentError, Problem

if TYPE_CHECKING:
    from starlette.requests import Request

    from wf_api.context import ApiContext


async def read_members(request: Request, context: ApiContext, known: tuple[str, ...], limit: int) -> dict[str, Any]:
    """The body's members; no body is no members. Raises the problems of `read_body`, and 422 for what is not known."""
    body = await read_body(request, min(context.settings.max_body_bytes, limit))
    value = {} if body is None else await context.compute(len(body.data), body.load)
    if not isinstance(value, dict):
        problem = Problem("", "wrong_type", "The body is a JSON object, or there is none.")
        raise of_document(DocumentError([problem]), "invalid-parameters")
    if problems := unknown_keys(value, known):
        raise of_document(DocumentError(problems), "invalid-parameters")
    return value
