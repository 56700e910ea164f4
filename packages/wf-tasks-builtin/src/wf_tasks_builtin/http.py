"""`http.request`: one HTTP request."""

from __future__ import annotations

import base64
import email.utils
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field

from wf_core import Fatal, RetryAfter, TaskContext, task

if TYPE_CHECKING:
    import httpx

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_BAD_REQUEST = 400
_LONGEST_WAIT = 3600.0


class Response(BaseModel):
    """`body` is a JSON value for a JSON content type, text for text, else base64 (`encoding` says which)."""

    status: int
    headers: dict[str, str]
    body: Any
    encoding: Literal["json", "text", "base64"]
    url: str


class HttpError(Exception):
    """The server answered with a status that was not expected and may pass."""


@task("http.request", timeout="60s")
async def request(
    ctx: TaskContext,
    url: str,
    method: Method = "GET",
    headers: dict[str, str] | None = None,
    query: dict[str, str | int | float | bool] | None = None,
    json: Any = None,
    body: str | None = None,
    expect: list[int] | None = None,
    follow_redirects: bool = True,
    timeout: Annotated[float, Field(gt=0, le=3600)] = 30.0,
    verify: bool = True,
) -> Response:
    """Sends a request and returns the answer.

    Without `expect` every status below 400 is a success. 408, 425, 429 and 5xx fail so that a retry may help (after
    `Retry-After`, if the server says so); other statuses fail for good. Requests other than GET carry
    `Idempotency-Key: <execution>/<node>`, the same in each attempt, unless `headers` has one.
    """
    import httpx  # with the first request: every worker imports this module, and few ever send one

    sent = httpx.Headers(headers or {})
    if method not in ("GET", "HEAD", "OPTIONS"):
        sent.setdefault("idempotency-key", ctx.idempotency_key)
    async with httpx.AsyncClient(follow_redirects=follow_redirects, timeout=timeout, verify=verify) as client:
        answer = await client.request(method, url, headers=sent, params=query, json=json, content=body)
    expected = answer.status_code in expect if expect else answer.status_code < _BAD_REQUEST
    if not expected:
        _refuse(method, answer)
    return _response(answer)


def _refuse(method: str, answer: httpx.Response) -> None:
    text = f"{method} {answer.url} answered {answer.status_code} {answer.reason_phrase}: {answer.text[:300]}"
    if answer.status_code not in _TRY_AGAIN:
        raise Fatal(text)
    seconds = _retry_after(answer.headers.get("retry-after"))
    raise HttpError(text) if seconds is None else RetryAfter(seconds, text)


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number or an HTTP date (RFC 9110, section 10.2.3)."""
    if not value:
        return None
    if value.isdecimal():
        return min(float(value), _LONGEST_WAIT)
    try:
        at = email.utils.parsedate_to_datetime(value).timestamp()
    except ValueError:
        return None
    return min(max(at - time.time(), 0.0), _LONGEST_WAIT)


def _response(answer: httpx.Response) -> Response:
    kind = answer.headers.get("content-type", "").split(";")[0].strip().lower()
    body: Any
    encoding: Literal["json", "text", "base64"]
    if answer.content and (kind == "application/json" or kind.endswith("+json")):
        body, encoding = answer.json(), "json"
    elif (
        not answer.content
        or kind.startswith("text/")
        or kind in ("application/xml", "application/yaml", "application/javascript")
    ):
        body, encoding = answer.text, "text"
    else:
        body, encoding = base64.b64encode(answer.content).decode(), "base64"
    return Response(
        status=answer.status_code, headers=dict(answer.headers), body=body, encoding=encoding, url=str(answer.url)
    )
