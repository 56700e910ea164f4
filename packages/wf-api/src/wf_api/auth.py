"""Who may call. On a loopback address nobody has to say; elsewhere each request carries the key of APP_API_KEY."""

from __future__ import annotations

import hmac
import ipaddress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from wf_api.problems import ProblemError, response
from wf_core.errors import SetupError
from wf_core.settings import Settings

OPEN_PATHS = frozenset({"/healthz"})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(settings: Settings, *, insecure: bool) -> None:
    """Raises SetupError when the API would listen to other machines without a key and nobody said `--insecure`."""
    if settings.api_key is not None and not settings.api_key.get_secret_value():
        raise SetupError("APP_API_KEY is empty. Unset it, or give it a long random text.")
    if settings.api_key is None and not insecure and not is_loopback(settings.api_host):
        raise SetupError(
            f"The API would listen on {settings.api_host} without a key. "
            "Set APP_API_KEY, listen on 127.0.0.1, or say --insecure."
        )


class BearerAuth:
    """ASGI middleware: without the right `Authorization: Bearer …` the answer is 401 and nothing else runs."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the request through, or answers 401."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS and not self._knows(Headers(scope=scope)):
            detail = "Send the header `Authorization: Bearer <APP_API_KEY>`."
            problem = ProblemError("unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
            await response(problem)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _knows(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self._key)
