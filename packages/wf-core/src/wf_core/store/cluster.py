"""A Redis Cluster behind the interface of one Redis: each command goes to the master that serves its key's slot.

redis-py's own asyncio cluster client is not used: a node that is away makes it close the connections to all others,
its pipelines leave tasks behind, transactions take a thread a command, and errors of its map are no Redis errors. Here
every node is a plain client with a pool of its own, and whatever goes wrong is one of `client.redis_errors`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline, PubSub
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 - Redis' own, which is none of the built-in one
    MovedError,
    RedisError,
    TimeoutError,  # noqa: A004 - Redis' own, which is none of the built-in one
)

from wf_core.store.connections import NotNowError
from wf_core.store.shared import SharedClient

Address = tuple[str, int]
Command = tuple[tuple[Any, ...], Mapping[str, Any]]

_SLOTS = 16384
_MAP_SECONDS = 1.0
"""How long one node is waited for that is asked who serves what."""
_MAP_PAUSE = 0.2
"""Nobody is asked again sooner."""
_REDIRECTIONS = 5
_EVERYWHERE = frozenset({"PING", "INFO"})
_KEYLESS = frozenset({"TIME", "PUBLISH", "ECHO"})
"""Go to the master of slot 0: one clock for all, and a message reaches the subscribers of every node."""
_LOST = (ConnectionError, TimeoutError, OSError, ClusterDownError)
"""The map may be out of date."""


class ClusterClient(Redis):
    """Takes what the engine sends: commands on keys of one slot, scripts, pipelines, publish and subscribe, SCAN."""

    def __init__(self, seeds: Sequence[Address], options: Mapping[str, Any]) -> None:
        """`options` are those of the pool of each node, with its `connection_class`."""
        self._seeds = tuple(seeds)
        self._options = dict(options)
        self._nodes: dict[Address, Redis] = {}
        self._slots: list[Address] = []
        self._addresses: list[Address] = []
        self._stale = True
        self._asked = float("-inf")
        self._asking: asyncio.Task[Exception | None] | None = None
        first = self._open(self._seeds[0])
        super().__init__(connection_pool=first.connection_pool)
        self._nodes[self._seeds[0]] = first
        first.response_callbacks = self.response_callbacks

    def twin(self, **options: Any) -> ClusterClient:
        """A client of the same cluster with connections of its own."""
        return ClusterClient(self._seeds, {**self._options, **options})

    async def masters(self) -> list[Redis]:
        """A client of each master. Raises ConnectionError while a slot is served by none."""
        await self._known()
        return [self._node(address) for address in self._addresses]

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """The reply of the master that has the command's key; PING and INFO ask every master."""
        if args[0] in _EVERYWHERE:
            return await self._everywhere(args, options)
        await self._known()
        address, asking = self._owner(args), False
        for _ in range(_REDIRECTIONS):
            try:
                return await self._send(address, args, options, asking=asking)
            except MovedError as error:
                address, asking = self._moved(error, address), False
            except AskError as error:
                address, asking = _place(error.host, error.port, address), True
            except _LOST:
                self._stale = True
                raise
        raise NotNowError(f"the Redis Cluster passed {args[0]} on {_REDIRECTIONS} times")

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:  # noqa: ARG002 - Redis'
        """Commands that travel together to each node. The keys of a transaction share a slot."""
        return _ClusterPipeline(self, transaction=transaction)

    async def run(self, commands: Sequence[Command], *, transaction: bool) -> list[Any]:
        """The replies, in order, with errors among them; what was redirected is sent again by itself."""
        replies = await self._parts(commands, transaction=transaction)
        for place, ((args, options), reply) in enumerate(zip(commands, replies, strict=True)):
            if not isinstance(reply, AskError):
                continue
            if transaction:
                self._moved(reply, self._owner(args))
                return await self._parts(commands, transaction=True)
            try:
                replies[place] = await self.execute_command(*args, **options)
            except (RedisError, OSError) as error:
                replies[place] = error
        return replies

    def pubsub(self, **options: Any) -> PubSub:
        """A subscription at any node: messages reach all of them."""
        return self._node(random.choice(self._addresses or self._seeds)).pubsub(**options)

    async def scan_iter(self, *args: Any, **options: Any) -> AsyncIterator[Any]:  # type: ignore[override] # annotated as sync
        """The keys of every master."""
        for node in await self.masters():
            async for key in node.scan_iter(*args, **options):
                yield key

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: ARG002 - they are all its own
        """Closes the connections to every node."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        await asyncio.gather(*(node.aclose() for node in self._nodes.values()))

    def _open(self, address: Address) -> Redis:
        host, port = address
        return SharedClient.from_pool(BlockingConnectionPool(host=host, port=port, **self._options))

    def _node(self, address: Address) -> Redis:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = self._open(address)
            node.response_callbacks = self.response_callbacks
        return node

    def _owner(self, args: tuple[Any, ...]) -> Address:
        return self._slots[_slot(args)]

    async def _send(self, address: Address, args: tuple[Any, ...], options: Mapping[str, Any], *, asking: bool) -> Any:
        if not asking:
            node: Any = self._node(address)
            return await node.execute_command(*args, **options)
        pipe: Any = self._node(address).pipeline(transaction=False)  # ASKING holds for the next command alone
        pipe.execute_command("ASKING")
        pipe.execute_command(*args, **options)
        _, reply = await pipe.execute(raise_on_error=False)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def _everywhere(self, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """The first master's reply; its `run_id` names all of them, so it tells when any was started again."""
        nodes: list[Any] = await self.masters()
        asked = [node.execute_command(*args, **options) for node in nodes]
        replies: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                self._stale = True
                raise reply
        if isinstance(replies[0], dict) and "run_id" in replies[0]:
            return {**replies[0], "run_id": ",".join(reply["run_id"] for reply in replies)}
        return replies[0]

    async def _parts(self, commands: Sequence[Command], *, transaction: bool) -> list[Any]:
        await self._known()
        replies: list[Any] = [None] * len(commands)
        shares: dict[Address, list[int]] = {}
        for place, (args, options) in enumerate(commands):
            if args[0] in _EVERYWHERE:
                replies[place] = await self._everywhere(args, options)
            else:
                shares.setdefault(self._owner(args), []).append(place)
        if transaction and len(shares) > 1:
            raise ValueError("the keys of a transaction lie on several nodes")

        async def part(address: Address, places: list[int]) -> None:
            found = await self._part(address, [commands[place] for place in places], transaction=transaction)
            for place, reply in zip(places, found, strict=True):
                replies[place] = reply

        if len(shares) == 1:
            await part(*next(iter(shares.items())))
        else:
            await asyncio.gather(*(part(address, places) for address, places in shares.items()))
        return replies

    async def _part(self, address: Address, commands: list[Command], *, transaction: bool) -> list[Any]:
        pipe: Any = self._node(address).pipeline(transaction=transaction)
        for args, options in commands:
            pipe.execute_command(*args, **options)
        try:
            replies: list[Any] = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            replies = [error] * len(commands)
        if any(isinstance(reply, _LOST) for reply in replies):
            self._stale = True
        return replies

    def _moved(self, error: AskError, asked: Address) -> Address:
        """Notes where a slot is now; the whole map is asked for with the next command."""
        address = _place(error.host, error.port, asked)
        self._slots[error.slot_id] = address
        self._stale = True
        return address

    async def _known(self) -> None:
        """Sees to a map of the slots that is not known to be wrong. Raises what the last node that was asked said."""
        if self._stale and time.monotonic() - self._asked > _MAP_PAUSE:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask(), name="redis cluster map")
            error = await asyncio.shield(self._asking)
            if error is not None:
                raise error
        if not self._slots:
            raise ConnectionError("no node of the Redis Cluster has answered yet")

    async def _ask(self) -> Exception | None:
        """Asks one node after the other who serves what; the last error when none says it."""
        error: Exception | None = None
        places = list({*self._addresses, *self._seeds})
        random.shuffle(places)
        for address in places:
            node: Any = self._node(address)
            try:
                async with asyncio.timeout(_MAP_SECONDS):
                    ranges = await node.execute_command("CLUSTER", "SLOTS")
                slots = _read_map(ranges, address)
            except (RedisError, OSError) as found:
                error = found
                continue
            self._slots, self._addresses = slots, sorted(set(slots))
            self._stale = False
            error = None
            break
        self._asked = time.monotonic()
        return error


class _ClusterPipeline(Pipeline):
    """Gathers commands; the client sends them."""

    def __init__(self, cluster: ClusterClient, *, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """The replies, in order. Raises the first error among them."""
        commands, self.command_stack = self.command_stack, []
        replies = await self._cluster.run(commands, transaction=self.is_transaction) if commands else []
        for reply in replies:
            if raise_on_error and isinstance(reply, Exception):
                raise reply
        return replies


def _slot(args: tuple[Any, ...]) -> int:
    """The slot of a command's first key; 0 for one without."""
    name, key = args[0], None
    if name in {"EVAL", "EVALSHA"}:
        key = args[3] if int(args[2]) else None
    elif name == "XREAD":
        key = args[args.index("STREAMS") + 1]
    elif name not in _KEYLESS and len(args) > 1:
        key = args[1]
    if key is None:
        return 0
    found: int = key_slot(key if isinstance(key, bytes) else str(key).encode())
    return found


def _place(host: str, port: int, asked: Address) -> Address:
    """An address as a node says it; without a host it means the node that was asked."""
    return (asked[0] if host in {"", "?"} else host, port)


def _read_map(ranges: Sequence[Any], asked: Address) -> list[Address]:
    """The master of each slot. Raises ConnectionError when one has none."""
    slots: dict[int, Address] = {}
    for first, last, master, *_ in ranges:
        address = _place((master[0] or b"").decode(), int(master[1]), asked)
        slots.update(dict.fromkeys(range(first, last + 1), address))
    if len(slots) < _SLOTS:
        raise ConnectionError(f"masters of the Redis Cluster serve {len(slots)} of {_SLOTS} slots")
    return [slots[number] for number in range(_SLOTS)]
