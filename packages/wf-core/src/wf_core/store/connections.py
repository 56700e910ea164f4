"""Connections and pools as every form of Redis needs them: prompt cancels, and replies that say `not now`."""

from __future__ import annotations

import asyncio
import re
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import (
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - Redis' own, which is none of the built-in one
    ReadOnlyError,
    ResponseError,
)

# Alone at the start, or behind a dash where Redis 6.2 quotes what a script's call answered.
_NOT_NOW = re.compile(r"(?:^|: -)(MISCONF|NOREPLICAS|BUSY|UNBLOCKED|OOM|READONLY|LOADING|CLUSTERDOWN|MASTERDOWN) ")


class NotNowError(ResponseError):
    """Redis answers, but cannot write or serve for the moment: try again later. Nothing was written."""


class _Prompt:
    """Sends without `asyncio.wait_for`, by which redis-py loses cancels on Python 3.11 (CPython issue 86296).

    A task that is cancelled while it sends would go on as if nothing had been said. It also saves a task a command.
    Replies that mean `not now` become NotNowError, and a connection to a server that is no master any more is closed
    before its next command, so that the next attempt looks for the new one.
    """

    _demoted = False

    async def send_packed_command(self: Any, command: Any, check_health: bool = True) -> None:
        if self._demoted:
            self._demoted = False
            await self.disconnect(nowait=True)
        if not self.is_connected:
            await self._reopen()
        if check_health:
            await self.check_health()
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self._send_packed_command([command] if isinstance(command, bytes) else command)
        except BaseException as error:
            await self.disconnect(nowait=True)  # half a command may have left
            # The built-in TimeoutError is an OSError; uvloop raises RuntimeError for a connection that was reset.
            if isinstance(error, OSError | RuntimeError):
                raise ConnectionError(f"sending to Redis failed: {error or 'no answer in time'}") from error
            raise

    async def _reopen(self: Any) -> None:
        await self.connect_check_health(check_health=False)

    async def hand_over(self: Any, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Connects, and gives what arrives from then on to `protocol`. All that is left for this object is to close."""
        await self._reopen()
        transport = cast("asyncio.Transport", self._writer.transport)
        transport.set_protocol(protocol)
        return transport

    def forget(self: Any) -> None:
        """Closes what was handed over."""
        self._close()

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """The reply. Raises NotNowError for what redis-py knows no class of its own for."""
        try:
            return await super().read_response(*args, **options)  # type: ignore[misc] # a connection's
        except ResponseError as error:
            named = named_error(error)
            self._demoted = is_demoted(named)
            if named is error:
                raise
            raise named from error


def named_error(error: ResponseError) -> ResponseError:
    """NotNowError in place of what redis-py knows no class of its own for; else the error itself."""
    not_now = type(error) is ResponseError and _NOT_NOW.search(str(error))
    return NotNowError(*error.args) if not_now else error


def is_demoted(error: ResponseError) -> bool:
    """Whether the server that answered so is no master any more."""
    found = _NOT_NOW.search(str(error)) if isinstance(error, NotNowError) else None
    return isinstance(error, ReadOnlyError) or (found is not None and found[1] == "READONLY")


class _PromptConnection(_Prompt, Connection):
    """TCP."""


class _PromptSocket(_Prompt, UnixDomainSocketConnection):
    """A Unix socket."""


class _PromptTls(_Prompt, SSLConnection):
    """TCP with TLS."""


class _Managed(_Prompt):
    """Asks Sentinel again where the master is whenever it has to connect anew."""

    async def _reopen(self: Any) -> None:
        await self.connect_to(await self.connection_pool.get_master_address())


class _ManagedConnection(_Managed, SentinelManagedConnection):
    """TCP to whichever server Sentinel calls the master."""


class _ManagedTls(_Managed, SentinelManagedSSLConnection):
    """TCP with TLS to whichever server Sentinel calls the master."""


PROMPT: dict[type, type] = {
    Connection: _PromptConnection,
    UnixDomainSocketConnection: _PromptSocket,
    SSLConnection: _PromptTls,
}
"""Ours, by redis-py's class."""


MANAGED: dict[type, type] = {Connection: _ManagedConnection, SSLConnection: _ManagedTls}
"""Ours for a MasterPool, by redis-py's class."""


class MasterPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the master that Sentinel names; waits for a free one, as the plain pool does."""
