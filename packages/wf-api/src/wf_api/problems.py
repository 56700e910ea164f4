"""RFC 9457 problems: every answer that is no success. They name the place and the remedy, and echo no input."""

from __future__ import annotations

import json
import secrets
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from wf_core.errors import DocumentError, Problem, UnavailableError, UnparsableError
from wf_core.schema.pointers import join
from wf_core.store.client import redis_errors
from wf_core.store.reads import UnknownNodeError

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 200
"""A document may be wrong in as many places as it has nodes; so many are listed."""
RETRY_AFTER_SECONDS = 2
TRACE_FRAMES = 20
_METHODS = ("DELETE", "GET", "POST", "PUT")

_KINDS: dict[str, tuple[int, str]] = {
    "bad-request": (400, "The request is malformed"),
    "unparsable": (400, "The body cannot be parsed"),
    "unauthorized": (401, "A valid API key is required"),
    "foreign-site": (403, "The request comes from another site"),
    "not-found": (404, "There is nothing at this address"),
    "unknown-execution": (404, "There is no such execution"),
    "unknown-node": (404, "There is no such node"),
    "unknown-definition": (404, "There is no such definition"),
    "unknown-dead-letter": (404, "There is no such dead letter"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "request-timeout": (408, "The body did not arrive in time"),
    "wrong-state": (409, "The execution is not in a state that allows this"),
    "version-taken": (409, "The version is registered with another document"),
    "dead-letter-settled": (409, "The dead letter was dealt with before"),
    "idempotency-conflict": (409, "The idempotency key was used for another request"),
    "too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The body's media type is not supported"),
    "invalid-parameters": (422, "The request's parameters are wrong"),
    "invalid-document": (422, "The workflow document is wrong"),
    "invalid-input": (422, "The workflow's input is wrong"),
    "invalid-answer": (422, "The answer does not fit the approval"),
    "invalid-record": (422, "The record is wrong"),
    "internal": (500, "Something went wrong here"),
    "unavailable": (503, "A server behind the API does not answer"),
}


class ProblemError(Exception):
    """An answer that is a problem. `kind` is the slug of its type; `members` are members beside the standard ones."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        errors: Iterable[Problem] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.members = members

    @property
    def status(self) -> int:
        """The HTTP status of this kind."""
        return _KINDS[self.kind][0]


def unavailable(detail: str, **members: Any) -> ProblemError:
    """503 with Retry-After."""
    return ProblemError("unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)}, **members)


def unknown_execution() -> ProblemError:
    """404 for an execution; an id that is no id gets the same answer."""
    return ProblemError("unknown-execution", "No execution has this id; GET /workflows lists the known ones.")


def unknown_node(execution_id: str, unknown: UnknownNodeError) -> ProblemError:
    """404 for a node, naming the known one that looks most like it."""
    near = f"; did you mean {unknown.nearest[0]!r}?" if unknown.nearest else "."
    detail = f"The execution has no such node{near} GET /workflows/{execution_id}/nodes lists them."
    return ProblemError("unknown-node", detail)


def of_document(error: DocumentError, kind: str = "invalid-document", prefix: str = "") -> ProblemError:
    """What is wrong with a document or, by `kind`, something else; `prefix` goes before each pointer."""
    errors = [Problem(prefix + p.pointer, p.code, p.detail) for p in error.problems]
    count = len(errors)
    if isinstance(error, UnparsableError):
        kind = "unparsable"
    detail = errors[0].detail if count == 1 else f"{count} things are wrong; each has its place in `errors`."
    return ProblemError(kind, detail, errors=errors)


def response(problem: ProblemError) -> Response:
    """The HTTP response of a problem."""
    status, title = _KINDS[problem.kind]
    body = {
        "type": f"/problems/{problem.kind}",
        "title": title,
        "status": status,
        "detail": problem.detail,
        "errors": [asdict(p) for p in problem.errors[:MOST_ERRORS]],
        **problem.members,
    }
    content = json.dumps(body).encode()  # ASCII: a message can hold anything and still be sent
    return Response(content, status, headers=problem.headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes every error of the app a problem."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_parameters)
    app.add_exception_handler(DocumentError, _on_document)
    app.add_exception_handler(UnavailableError, _on_unavailable)
    for away in redis_errors:
        app.add_exception_handler(away, _on_unavailable)


def unexpected(error: Exception, method: str, path: str) -> Response:
    """500: the log has the traceback under the id that the client is given; the client learns nothing else."""
    incident = secrets.token_hex(8)
    # As text: a renderer of tracebacks may print local variables, and they hold what users sent.
    trace = "".join(traceback.format_exception(error, limit=-TRACE_FRAMES))
    log.error("request failed", incident=incident, method=method, path=path, traceback=trace)
    detail = f"This is a fault of the server. Its log has the cause under the id {incident}."
    return response(ProblemError("internal", detail, incident=incident))


async def _on_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101 - registered for this class
    return response(error)


async def _on_document(_request: Request, error: Exception) -> Response:
    assert isinstance(error, DocumentError)  # noqa: S101 - registered for this class
    return response(of_document(error))


def _methods(request: Request) -> str:
    """The methods that the address takes: it may have a route for each of them.

    An address that is known to the letter (`/workflows/cancel`) is not one with an id that reads the same.
    """
    if literal := request.app.openapi()["paths"].get(request.scope["path"]):
        return ", ".join(method.upper() for method in literal)
    routes = request.app.routes
    taken = [m for m in _METHODS if any(r.matches({**request.scope, "method": m})[0] is Match.FULL for r in routes)]
    return ", ".join(taken)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = _methods(request)
        return response(
            ProblemError("method-not-allowed", f"This address takes {allowed}.", headers={"Allow": allowed})
        )
    if error.status_code == HTTPStatus.NOT_FOUND:
        return response(ProblemError("not-found", "GET /openapi.json lists every address."))
    return response(ProblemError("bad-request", "The request cannot be understood."))


async def _on_parameters(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    problems = [Problem(join(e["loc"]), e["type"], f"{e['loc'][-1]}: {e['msg']}") for e in error.errors()]
    return response(of_document(DocumentError(problems), "invalid-parameters"))


async def _on_unavailable(_request: Request, error: Exception) -> Response:
    log.warning("answered 503", error=f"{type(error).__name__}: {error}")
    detail = (
        "Redis or the log does not answer. Whether a POST had its effect is not known; "
        "repeated under the same Idempotency-Key it is carried out once."
    )
    return response(unavailable(detail))
