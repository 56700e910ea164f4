"""Redis as the services see it: a client for each process, in front of one server that runs the real scripts."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from simulation.lua import Runtime
from simulation.network import Server
from simulation.store import Store

if TYPE_CHECKING:
    from simulation.loop import Process
    from simulation.world import World

_WRITES = {b"EVALSHA": 1.0, b"EVAL": 1.0, b"PUBLISH": 1.0}
"""Commands that matter most to the protocol are hit by faults most often."""
_FREQUENT = ("RENEW", "BEAT", "TASK_LEASE", "INSTALL")
"""Scripts that are called all the time, whether something happens or not."""
_OFTEN = 0.2

Command = list[bytes]


class RedisServer(Server):
    """The server: data, scripts that it knows, who listens to its channel."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "redis")
        self.store = Store(lambda: world.wall + self.clock_jump)
        self.run_id = "0"
        self.clock_jump = 0.0
        self.listeners: list[PubSub] = []
        self.names: dict[str, str] = {}
        """Hash of a script → its name, the first word of its comment."""
        self._known: dict[str, str] = {}
        self._runtime = Runtime(self._command)

    def failure(self, *, timed_out: bool) -> Exception:
        """As redis-py raises it."""
        if timed_out:
            return RedisTimeoutError("Timeout reading from redis:6379")
        return RedisConnectionError("Connection closed by server.")

    def restart(self) -> None:
        """Another process: it knows no script, and all connections broke."""
        self.epoch += 1
        self.run_id = f"{self.epoch:x}"
        self.flush_scripts()

    def promote(self) -> None:
        """A replica takes over: another run of the server, which knows the scripts."""
        self.epoch += 1
        self.run_id = f"{self.epoch:x}"

    def flush_scripts(self) -> None:
        """SCRIPT FLUSH."""
        self._known.clear()

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Carries out commands one after another. An error takes the place of a reply, as in a pipeline."""
        replies: list[Any] = []
        for command in commands:
            try:
                replies.append(self._execute(command))
            except ResponseError as error:
                replies.append(error)
            self.store.commit()
        return replies

    def name_of(self, command: Command) -> str:
        """What a trace calls the command: that of the script, if it is one."""
        if command[0] in (b"EVALSHA", b"EVAL"):
            return self.names.get(command[1].decode(), "") or self._learn(command[1].decode())
        return command[0].decode()

    def _learn(self, source: str) -> str:
        name = source.partition("-- ")[2].partition(" ")[0] or "EVAL"
        self.names[source] = self.names[hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()] = name
        return name

    def _execute(self, command: Command) -> Any:
        name = command[0]
        if name == b"EVALSHA":
            source = self._known.get(command[1].decode())
            if source is None:
                raise NoScriptError("No matching script.")
            return self._script(source, command)
        if name == b"EVAL":
            source = command[1].decode()
            self._known[hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()] = source
            return self._script(source, command)
        if name == b"PUBLISH":
            return self._publish(command[1], command[2])
        if name == b"INFO":
            return self.run_id
        return self.store.command(name, command[1:])

    def _script(self, source: str, command: Command) -> Any:
        count = int(command[2])
        keys, arguments = command[3 : 3 + count], command[3 + count :]
        reply = self._runtime.run(self.world.mutant.lua(source), keys, arguments)
        self.store.commit()
        self.world.after_script(self.names.get(source) or self._learn(source), keys, reply)
        return reply

    def _command(self, name: bytes, arguments: list[bytes]) -> Any:
        """A command of a script."""
        return f"run_id:{self.run_id}".encode() if name == b"INFO" else self.store.command(name, arguments)

    def _publish(self, channel: bytes, message: bytes) -> int:
        self.listeners = [one for one in self.listeners if one.hears(self.epoch)]
        heard = [one for one in self.listeners if one.channel == channel]
        for one in heard:
            self.world.loop.later(self.world.random.random() * 0.002, one.receive, message)
        return len(heard)


class Commands:
    """The commands of redis-py that are used, with the replies that it gives."""

    def _do(self, command: Iterable[Any], convert: Callable[[Any], Any] | None = None) -> Any:
        raise NotImplementedError

    def evalsha(self, sha: str, count: int, *arguments: Any) -> Any:
        return self._do(("EVALSHA", sha, count, *arguments))

    def eval(self, source: str, count: int, *arguments: Any) -> Any:
        return self._do(("EVAL", source, count, *arguments))

    def ping(self) -> Any:
        return self._do(("PING",), lambda _: True)

    def time(self) -> Any:
        return self._do(("TIME",), lambda reply: tuple(int(part) for part in reply))

    def info(self, section: str = "") -> Any:
        def parsed(run_id: str) -> dict[str, Any]:
            return {"run_id": run_id, "redis_version": "7.4.0", "aof_enabled": 1, "maxmemory_policy": "noeviction"}

        return self._do(("INFO", section), parsed)

    def publish(self, channel: str, message: Any) -> Any:
        return self._do(("PUBLISH", channel, message))

    def get(self, key: str) -> Any:
        return self._do(("GET", key))

    def mget(self, keys: Sequence[str]) -> Any:
        return self._do(("MGET", *keys))

    def set(self, key: str, value: Any, ex: int | None = None, px: int | None = None) -> Any:
        ttl = ("EX", ex) if ex is not None else ("PX", px) if px is not None else ()
        return self._do(("SET", key, value, *ttl), lambda _: True)

    def delete(self, *keys: str) -> Any:
        return self._do(("DEL", *keys))

    def exists(self, *keys: str) -> Any:
        return self._do(("EXISTS", *keys))

    def hget(self, key: str, name: str) -> Any:
        return self._do(("HGET", key, name))

    def hmget(self, key: str, names: Sequence[str], *more: str) -> Any:
        return self._do(("HMGET", key, *([names] if isinstance(names, str) else names), *more))

    def hgetall(self, key: str) -> Any:
        return self._do(("HGETALL", key), lambda flat: dict(zip(flat[::2], flat[1::2], strict=True)))

    def hkeys(self, key: str) -> Any:
        return self._do(("HKEYS", key))

    def hlen(self, key: str) -> Any:
        return self._do(("HLEN", key))

    def hexists(self, key: str, name: str) -> Any:
        return self._do(("HEXISTS", key, name), bool)

    def hset(self, key: str, name: str, value: Any) -> Any:
        return self._do(("HSET", key, name, value))

    def hsetnx(self, key: str, name: str, value: Any) -> Any:
        return self._do(("HSETNX", key, name, value))

    def hdel(self, key: str, *names: str) -> Any:
        return self._do(("HDEL", key, *names))

    def smembers(self, key: str) -> Any:
        return self._do(("SMEMBERS", key), set)

    def zadd(self, key: str, mapping: Mapping[str, float]) -> Any:
        return self._do(("ZADD", key, *(part for member, score in mapping.items() for part in (score, member))))

    def zrem(self, key: str, *members: str) -> Any:
        return self._do(("ZREM", key, *members))

    def zcard(self, key: str) -> Any:
        return self._do(("ZCARD", key))

    def zcount(self, key: str, low: Any, high: Any) -> Any:
        return self._do(("ZCOUNT", key, low, high))

    def zrange(self, key: str, start: int, end: int, *, withscores: bool = False) -> Any:
        return self._do(("ZRANGE", key, start, end, *_with(withscores)), _pairs if withscores else None)

    def zrangebyscore(
        self, key: str, low: Any, high: Any, start: int | None = None, num: int | None = None, withscores: bool = False
    ) -> Any:
        limit = () if start is None else ("LIMIT", start, num)
        return self._do(("ZRANGEBYSCORE", key, low, high, *_with(withscores), *limit), _pairs if withscores else None)

    def zremrangebyscore(self, key: str, low: Any, high: Any) -> Any:
        return self._do(("ZREMRANGEBYSCORE", key, low, high))

    def xrevrange(self, key: str, high: str = "+", low: str = "-", count: int | None = None) -> Any:
        return self._do(("XREVRANGE", key, high, low, *(("COUNT", count) if count is not None else ())), _entries)


class Client(Commands):
    """A process' client."""

    def __init__(self, server: RedisServer, process: Process) -> None:
        self.server = server
        self.process = process

    def pipeline(self, transaction: bool = True) -> Pipeline:  # noqa: ARG002 - as in redis-py
        """Commands that travel together."""
        return Pipeline(self)

    def pubsub(self, **_options: Any) -> PubSub:
        """A subscription."""
        return PubSub(self)

    async def aclose(self) -> None:
        """Nothing is kept open."""

    async def hscan_iter(self, key: str, **_options: Any) -> AsyncIterator[tuple[bytes, bytes]]:
        """Every field, all of them as of one moment."""
        for pair in (await self.hgetall(key)).items():
            yield pair

    async def zscan_iter(self, key: str, **_options: Any) -> AsyncIterator[tuple[bytes, float]]:
        """Every member, all of them as of one moment."""
        for pair in await self.zrange(key, 0, -1, withscores=True):
            yield pair

    async def send(self, commands: list[Command]) -> list[Any]:
        """The replies to commands that travel together."""
        server = self.server
        names = [server.name_of(command) for command in commands]
        weight = max((_WRITES.get(c[0], 0.1) for c in commands), default=0.1)
        if weight == 1.0 and names[0] in _FREQUENT:
            weight = _OFTEN
        what = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        key = (
            commands[0][3] if weight > 0.1 and len(commands[0]) > 3 else commands[0][1] if len(commands[0]) > 1 else b""
        )
        replies: list[Any] = await server.call(
            self.process, f"{what} {key.decode()}", lambda: server.execute(commands), weight=weight
        )
        return replies

    def _do(self, command: Iterable[Any], convert: Callable[[Any], Any] | None = None) -> Awaitable[Any]:
        return self._one([_wire(part) for part in command], convert)

    async def _one(self, command: Command, convert: Callable[[Any], Any] | None) -> Any:
        reply = (await self.send([command]))[0]
        if isinstance(reply, Exception):
            raise reply
        return convert(reply) if convert else reply


class Pipeline(Commands):
    """Collects commands until `execute`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._commands: list[tuple[Command, Callable[[Any], Any] | None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._commands = []

    async def execute(self) -> list[Any]:
        """The replies, in order. Raises the first error among them."""
        commands, self._commands = self._commands, []
        if not commands:
            return []
        replies = await self._client.send([command for command, _ in commands])
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return [convert(r) if convert else r for (_, convert), r in zip(commands, replies, strict=True)]

    def _do(self, command: Iterable[Any], convert: Callable[[Any], Any] | None = None) -> Pipeline:
        self._commands.append(([_wire(part) for part in command], convert))
        return self


class PubSub:
    """A subscription to one channel, which hears nothing more once the connections broke."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._heard: deque[bytes] = deque()
        self._epoch = -1
        self._waiter: Any = None
        self.channel = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._epoch = -1

    async def subscribe(self, channel: str) -> None:
        """Listens from now on."""
        await self._client.ping()
        server = self._client.server
        self.channel, self._epoch = channel.encode(), server.epoch
        server.listeners.append(self)

    def hears(self, epoch: int) -> bool:
        """Whether it is still connected."""
        return self._epoch == epoch and not self._client.process.killed

    def receive(self, message: bytes) -> None:
        """A message arrived."""
        self._heard.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get_message(self, timeout: float = 0.0, **_options: Any) -> dict[str, Any] | None:  # noqa: ASYNC109 - redis-py's
        """The next message, None when none came in time."""
        server = self._client.server
        if not self._heard:
            self._waiter = server.world.loop.create_future()
            handle = server.world.loop.call_later(timeout, lambda w: w.done() or w.set_result(None), self._waiter)
            await self._waiter
            handle.cancel()
        if self._heard:
            return {"type": "message", "data": self._heard.popleft()}
        if not self.hears(server.epoch):
            raise server.failure(timed_out=False)
        return None

    async def listen(self) -> AsyncIterator[dict[str, Any]]:
        """Every message."""
        while True:
            message = await self.get_message(timeout=1.0)
            if message is not None:
                yield message


def _wire(part: Any) -> bytes:
    if part.__class__ is bytes:
        return part
    if part.__class__ is str:
        return part.encode()
    return str(part).encode()


def _entries(found: list[Any]) -> list[tuple[bytes, dict[bytes, bytes]]]:
    return [(at, dict(zip(flat[::2], flat[1::2], strict=True))) for at, flat in found]


def _with(withscores: bool) -> tuple[str, ...]:
    return ("WITHSCORES",) if withscores else ()


def _pairs(flat: list[bytes]) -> list[tuple[bytes, float]]:
    return [(member, float(score)) for member, score in zip(flat[::2], flat[1::2], strict=True)]
