"""A client whose callers share one connection: what they ask in one turn of the loop leaves together.

redis-py takes a connection out of a pool for each command, guards its sending and its reply with a timer each and wakes
a stream in between: 60 us of this process' time a command. Here it is 15 us for a command that comes alone and 3 us for
one among others, and the server reads and answers many with one system call. How to connect (login, TLS, who is the
master) stays redis-py's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import DefaultParser
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - Redis' own, which is none of the built-in one
    DataError,
    InvalidResponse,
    ResponseError,
    TimeoutError,  # noqa: A004 - Redis' own, which is none of the built-in one
)

from wf_core.store.connections import MasterPool, is_demoted, named_error

Arguments = tuple[Any, ...]


@dataclass(eq=False, slots=True)
class _Asked:
    """Commands of one caller, and what was answered so far."""

    count: int
    since: float
    """When they were sent, by the loop's clock."""
    replies: asyncio.Future[list[Any]]
    found: list[Any] = field(default_factory=list)


class _Line(asyncio.Protocol):
    """One open connection. Replies come in the order of the commands, those that nobody waits for any more as well.

    It closes when the first of those who wait has waited for `patience` seconds (None: for ever), and all of them fail.
    """

    def __init__(self, patience: float | None) -> None:
        self.is_open = False
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=DefaultParser.parse_error)
        self._waiting: deque[_Asked] = deque()
        self._unsent: list[bytes] = []
        self._watch: asyncio.TimerHandle | None = None

    async def connect(self, connection: Any) -> None:
        """Takes over what `connection` (one of `connections`) connects to. Raises what redis-py does."""
        self._connection = connection
        self._transport: asyncio.Transport = await connection.hand_over(self)
        self.is_open = True

    def ask(self, commands: bytes, count: int) -> asyncio.Future[list[Any]]:
        """The future of the replies to `count` packed commands, errors among them. Raises ConnectionError.

        They leave in this turn of the loop, with what else is asked in it: a system call costs more than a command.
        """
        if not self.is_open:
            raise ConnectionError("the connection to Redis was closed")
        asked = _Asked(count, self._loop.time(), self._loop.create_future())
        self._waiting.append(asked)
        if self._watch is None and self._patience is not None:
            self._watch = self._loop.call_later(self._patience, self._look)
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(commands)
        return asked.replies

    def data_received(self, data: bytes) -> None:
        """Replies, whole ones or not."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                asked = self._waiting[0]
                asked.found.append(reply)
                if len(asked.found) == asked.count:
                    self._waiting.popleft()
                    if not asked.replies.done():  # else its caller was cancelled
                        asked.replies.set_result(asked.found)
        except (InvalidResponse, IndexError) as error:
            self.close(ConnectionError(f"Redis answered what was not asked: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The server, or the network, closed the connection."""
        self.close(ConnectionError(f"Redis closed the connection: {exc or 'it went away'}"))

    def close(self, error: Exception) -> None:
        """Closes the connection; whoever waits gets `error`."""
        self.is_open = False
        self._transport.abort()
        self._connection.forget()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        waiting, self._waiting = self._waiting, deque()
        for asked in waiting:
            if not asked.replies.done():
                asked.replies.set_exception(error)

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self.is_open:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _look(self) -> None:
        self._watch = None
        if not self._waiting or self._patience is None:
            return
        left = self._waiting[0].since + self._patience - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look)
        else:
            self.close(TimeoutError(f"Redis did not answer within {self._patience:g} s"))


class SharedClient(Redis):
    """A client of one server, whichever a pool connects to, and of whoever asks in this process.

    A subscription takes a connection of the pool; a command that blocks needs a client of its own. Nothing can be
    watched: of transactions only those are carried out that are known as a whole.
    """

    alone = False
    """Its commands may block: whoever gives up waiting closes the connection, lest the next one wait behind him."""
    _line: _Line | None = None
    _opening: asyncio.Task[_Line | Exception] | None = None
    _closed = False

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """The reply. Retried as redis-py would."""
        reply = (await self.run((args,)))[0]
        if isinstance(reply, Exception):
            raise reply
        return self.converted(args, options, reply)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:  # noqa: ARG002 - Redis'
        """Commands that travel together."""
        return _SharedPipeline(self, transaction=transaction)

    async def run(self, commands: Sequence[Arguments]) -> list[Any]:
        """The replies, in order, with errors among them."""
        packed = b"".join(map(_packed, commands)) if len(commands) > 1 else _packed(commands[0])
        retry: Any = self.get_retry()
        replies: list[Any] = await retry.call_with_retry(lambda: self._ask(packed, len(commands)), _pass)
        return replies

    def converted(self, args: Arguments, options: Mapping[str, Any], reply: Any) -> Any:
        """What redis-py makes of a reply."""
        convert = self.response_callbacks.get(args[0])
        if convert is None:
            return reply
        return convert(reply, **{name: value for name, value in options.items() if name != "keys"})  # for its own cache

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Closes every connection, for good."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        self._hang_up()
        await super().aclose(close_connection_pool)

    async def _ask(self, packed: bytes, count: int) -> list[Any]:
        line = self._line
        if line is None or not line.is_open:
            line = await self._open()
        try:
            replies = await line.ask(packed, count)
        except asyncio.CancelledError:
            if self.alone:
                self._hang_up()
            raise
        for place, reply in enumerate(replies):
            if isinstance(reply, ConnectionError):  # it is loading, or refuses us
                raise reply
            if isinstance(reply, ResponseError):
                replies[place] = self._noted(line, named_error(reply))
        return replies

    def _noted(self, line: _Line, error: ResponseError) -> ResponseError:
        """A server that is no master any more is left: the next command looks for the new one."""
        if is_demoted(error):
            line.close(ConnectionError("the master of Redis is a replica now"))
        return error

    async def _open(self) -> _Line:
        """The connection, which one caller opens for all. It goes on when that one is cancelled."""
        if self._closed:
            raise ConnectionError("the client of Redis was closed")
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._connect(), name="connect to redis")
        opened = await asyncio.shield(self._opening)
        if isinstance(opened, Exception):
            raise opened
        return opened

    async def _connect(self) -> _Line | Exception:
        pool: Any = self.connection_pool  # not annotated
        line = _Line(pool.connection_kwargs.get("socket_timeout"))
        try:
            await line.connect(pool.make_connection())
        except Exception as error:  # noqa: BLE001 - for all who wait for the connection, who may be none
            return error
        self._line = line
        return line

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close(ConnectionError("the connection to Redis was closed"))


class MasterClient(SharedClient):
    """A client of the master that Sentinel names; closes its connections to the sentinels, too."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Closes every connection."""
        await super().aclose(close_connection_pool)
        pool = cast("MasterPool", self.connection_pool)
        await asyncio.gather(*(sentinel.aclose() for sentinel in pool.sentinel_manager.sentinels))


class _SharedPipeline(Pipeline):
    """Gathers commands; the client sends them."""

    def __init__(self, client: SharedClient, *, transaction: bool) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, None)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """The replies, in order. Raises the first error among them."""
        commands, self.command_stack = self.command_stack, []
        if not commands:
            return []
        asked = [args for args, _ in commands]
        replies = await (self._executed(asked) if self.is_transaction else self._client.run(asked))
        for place, ((args, options), reply) in enumerate(zip(commands, replies, strict=True)):
            if not isinstance(reply, Exception):
                replies[place] = self._client.converted(args, options, reply)
        if raise_on_error:
            self.raise_first_error(commands, replies)
        return replies

    async def _executed(self, commands: list[Arguments]) -> list[Any]:
        """The replies of a transaction. Raises the error for which it was not carried out."""
        *queued, replies = await self._client.run([("MULTI",), *commands, ("EXEC",)])
        for reply in (*queued, replies):
            if isinstance(reply, Exception):
                raise reply
        return cast("list[Any]", replies)


def _packed(args: Arguments) -> bytes:
    """The bytes of a command. Its name may be two words."""
    words: Iterable[Any] = args[0].split() if " " in args[0] else (args[0],)
    try:
        return cast("bytes", hiredis.pack_command((*words, *args[1:])))
    except TypeError as error:
        raise DataError(f"{args[0]} takes text, bytes and numbers: {error}") from error


async def _pass(_error: Exception) -> None:
    """Nothing to tidy up between two tries."""
