"""Who may call: whoever sends the key of APP_API_KEY. On a loopback address none is needed; see SameSite."""

from __future__ import annotations

import functools
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from wf_api.problems import ProblemError, response
from wf_core.errors import SetupError
from wf_core.settings import Settings

OPEN_PATHS = frozenset({"/healthz"})
_SITE = frozenset({b"host", b"origin", b"sec-fetch-site"})
_FOREIGN = frozenset({b"cross-site", b"same-site"})
"""What browsers put into `Sec-Fetch-Site` for a page of another site, and of another port or name of this one."""


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


class SameSite:
    """ASGI middleware for an API without a key: what a browser says that it sends for another site's page gets 403.

    It says so in `Origin` where a page's script asks, or posts; in `Sec-Fetch-Site` for an image or a link as well, but
    to a loopback address or by https only. A page of another site can have its name resolve to this machine, and is
    then no other site to the browser: the name in `Host` gives it away. `anywhere` is for an API that other machines
    reach, by names that nobody knows here.
    """

    def __init__(self, app: ASGIApp, *, anywhere: bool) -> None:
        self._app = app
        self._anywhere = anywhere

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the request through, or answers 403."""
        if scope["type"] == "http":
            site = {name: value for name, value in scope["headers"] if name in _SITE}
            host, origin, fetched = site.get(b"host", b""), site.get(b"origin"), site.get(b"sec-fetch-site")
            reason = refusal(host, origin, fetched, anywhere=self._anywhere)
            if reason is not None:
                await response(ProblemError("foreign-site", reason))(scope, receive, send)
                return
        await self._app(scope, receive, send)


@functools.lru_cache(maxsize=64)
def refusal(host: bytes, origin: bytes | None, fetch_site: bytes | None, *, anywhere: bool) -> str | None:
    """Why a request without a key is refused, by its headers; None when it is not."""
    name = _name(b"//" + host)
    if not anywhere and not is_loopback(name):
        return (
            "Without APP_API_KEY the API answers only where the header Host names localhost, 127.0.0.1 or [::1]. "
            "Address it so, or set APP_API_KEY and send it."
        )
    if origin is not None and _name(origin) != name:
        return "Without APP_API_KEY web pages of other sites may not use the API: the header Origin names one."
    if fetch_site in _FOREIGN:
        return "Without APP_API_KEY web pages of other sites may not use the API: Sec-Fetch-Site tells of one."
    return None


def _name(url: bytes) -> str:
    try:
        return urlsplit(url.decode("latin-1")).hostname or ""
    except ValueError:
        return ""
