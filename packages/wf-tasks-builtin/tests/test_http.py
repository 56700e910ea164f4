"""One request against a real server on the loopback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from wf_core import Fatal, RetryAfter
from wf_tasks_builtin import http


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        status, extra, kind, data = 200, {}, "application/json", b""
        if self.path.startswith("/echo"):
            data = json.dumps(
                {"path": self.path, "body": body.decode(), "key": self.headers.get("idempotency-key")}
            ).encode()
        elif self.path == "/bytes":
            kind, data = "application/octet-stream", b"\x00\xff"
        elif self.path == "/busy":
            status, extra, kind, data = 503, {"Retry-After": "7"}, "text/plain", b"later"
        else:
            status, kind, data = int(self.path.strip("/")), "text/plain", b"no"
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Stays quiet."""


@pytest.fixture
def server():
    """The address of a server that answers as the path says."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


async def test_json_is_decoded_and_the_query_sent(ctx, server):
    """A JSON answer becomes a JSON value."""
    answer = await http.request.function(ctx, f"{server}/echo", query={"day": "2026-01-01"})
    assert (answer.status, answer.encoding, answer.body["path"]) == (200, "json", "/echo?day=2026-01-01")
    assert answer.body["key"] is None


async def test_a_post_carries_the_same_idempotency_key_in_each_attempt(ctx, server):
    """`execution/node`, so that the server can refuse a copy."""
    answer = await http.request.function(ctx, f"{server}/echo", "POST", json={"a": 1})
    assert answer.body["key"] == ctx.idempotency_key
    assert json.loads(answer.body["body"]) == {"a": 1}


async def test_bytes_arrive_as_base64(ctx, server):
    """What is neither JSON nor text is encoded, and says so."""
    answer = await http.request.function(ctx, f"{server}/bytes")
    assert (answer.encoding, answer.body) == ("base64", "AP8=")


async def test_statuses_that_may_pass_are_tried_again_and_others_are_not(ctx, server):
    """503 with Retry-After sets the delay; 500 fails; 404 is fatal; `expect` makes it a success."""
    with pytest.raises(RetryAfter) as caught:
        await http.request.function(ctx, f"{server}/busy")
    assert caught.value.seconds == 7
    with pytest.raises(http.HttpError, match="answered 500"):
        await http.request.function(ctx, f"{server}/500")
    with pytest.raises(Fatal, match="answered 404"):
        await http.request.function(ctx, f"{server}/404")
    assert (await http.request.function(ctx, f"{server}/404", expect=[404])).status == 404


async def test_a_server_that_is_not_there_is_an_ordinary_failure(ctx):
    """The error's class can be named in `retry_on`."""
    with pytest.raises(httpx.ConnectError):
        await http.request.function(ctx, "http://127.0.0.1:9/")
