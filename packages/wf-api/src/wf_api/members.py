"""A body that is a small JSON object, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from wf_api.body import read_body
from wf_api.envelope import unknown_keys
from wf_api.problems import of_document
from wf_core.errors import DocumentError, Problem

if TYPE_CHECKING:
    from starlette.requests import Request

    from wf_api.context import ApiContext


class Members(dict[str, Any]):
    """The members of a body. Those that are absent are null."""

    def text(self, name: str, longest: int) -> str:
        """A text, "" for null. Raises the problem 422."""
        value = self.get(name)
        if not isinstance(value, str | None) or len(value or "") > longest:
            _refuse(f"/{name}", "wrong_type", f"`{name}` is a text of at most {longest} characters.")
        return value or ""

    def texts(self, name: str, most: int) -> list[str]:
        """A list of texts, [] for null. Raises the problem 422."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > most or not all(isinstance(item, str) for item in value):
            _refuse(f"/{name}", "wrong_type", f"`{name}` is a list of at most {most} texts.")
        return value


async def read_members(request: Request, context: ApiContext, known: tuple[str, ...], limit: int) -> Members:
    """The body's members; no body is no members. Raises the problems of `read_body`, and 422 for what is not known."""
    body = await read_body(request, min(context.settings.max_body_bytes, limit))
    value = {} if body is None else await context.compute(len(body.data), body.load)
    if not isinstance(value, dict):
        _refuse("", "wrong_type", "The body is a JSON object, or there is none.")
    if problems := unknown_keys(value, known):
        raise of_document(DocumentError(problems), "invalid-parameters")
    return Members(value)


def _refuse(pointer: str, code: str, detail: str) -> NoReturn:
    raise of_document(DocumentError([Problem(pointer, code, detail)]), "invalid-parameters")
