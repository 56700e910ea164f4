"""The Lua scripts, typed: the only writers of partition keys. Each may be retried after a lost reply."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, Literal, NamedTuple, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from wf_core.errors import SetupError
from wf_core.store import ops as operations
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_core.store.ops import Op

_pack = msgspec.msgpack.Encoder().encode

VERSION = 1
"""Of an installation: how its keys and records are laid out. A process leaves a newer one alone."""
FORGET_MS = 8_000
"""Age after which BEAT drops a claim that its holder does not name: the reply to CLAIM never reached it."""
PROGRESS_MS = 15_000
"""Age after which progress is forgotten in a partition where no worker holds anything any more."""

Applied = Literal["OK", "DUP", "FENCED", "BEHIND"]
Claimed = Literal["OK", "MINE", "DUP", "STALE", "LATER"]


class Lease(NamedTuple):
    """What the owner of a partition starts from. `offset` is the next one to fold, `ts` Unix ms of the last record."""

    nonce: str
    offset: int
    incarnation: str
    """Of the log that `offset` belongs to; "" before the first REBASE."""
    seq: int
    """The dispatch counter."""
    ts: int
    generation: int = 0
    """How often offsets began to repeat; makes ids of the history grow across logs."""
    last: str = ""
    """Digest of the record before `offset`; "" when there is none or nobody noted it."""


class BeatReply(NamedTuple):
    """Tokens that a worker must stop, results it may forget, results it must append again (not more than every 5 s)."""

    cancel: list[str]
    folded: list[str]
    resend: list[str]
    begun: list[str]
    """Tokens that the worker began by itself and that are now in flight and its own, as any other one."""


class AcceptReply(NamedTuple):
    """`OK` with the command; `EXISTS` with the one accepted before; `STATE` with the status that does not allow it."""

    kind: Literal["OK", "EXISTS", "STATE"]
    value: bytes


class Creation(NamedTuple):
    """An execution that is to be accepted, and the command that creates it."""

    keys: PartitionKeys
    execution_id: str
    command: bytes


class Created(NamedTuple):
    """An execution that is there already: its command while that waits to be folded, else the hash of its request."""

    command: bytes
    request: str


class Installation(NamedTuple):
    """What all services of a namespace agree on."""

    partitions: int
    task_partitions: int
    incarnation: str


class Script:
    """One Lua script, called by its hash; sent again when Redis does not know it (a restart, SCRIPT FLUSH)."""

    def __init__(self, redis: Redis, name: str) -> None:
        self._redis = redis
        self._source = resources.files(__package__).joinpath("lua", f"{name}.lua").read_text("utf-8")
        self._sha = hashlib.sha1(self._source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str | bytes], *args: str | bytes | float) -> Any:
        """Runs the script; replies are bytes, integers, lists or None."""
        arguments = cast("list[str]", [*keys, *args])  # redis-py annotates text, and takes bytes and numbers too
        try:
            return await self._redis.evalsha(self._sha, len(keys), *arguments)
        except NoScriptError:
            return await self._redis.eval(self._source, len(keys), *arguments)


class Scripts:
    """Every script of a Redis. Raises one of `client.redis_errors` when Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._lease = Script(redis, "lease")
        self._renew = Script(redis, "renew")
        self._release = Script(redis, "release")
        self._apply = Script(redis, "apply")
        self._rebase = Script(redis, "rebase")
        self._trim = Script(redis, "trim")
        self._claim = Script(redis, "claim")
        self._beat = Script(redis, "beat")
        self._condemn = Script(redis, "condemn")
        self._withdraw = Script(redis, "withdraw")
        self._accept = Script(redis, "accept")
        self._accept_all = Script(redis, "accept_all")
        self._define = Script(redis, "define")
        self._task_lease = Script(redis, "task_lease")
        self._task_commit = Script(redis, "task_commit")
        self._install = Script(redis, "install")
        self._redis = redis

    async def lease(self, keys: PartitionKeys, nonce: str, lease_ms: int) -> Lease | None:
        """Takes a partition that is free, expired or this owner's; None while another holds it. Clears `live`."""
        reply = await self._lease([keys.meta], nonce, lease_ms)
        if reply is None:
            return None
        off, inc, seq, ts, generation, last = reply
        return Lease(nonce, int(off), inc.decode(), int(seq), int(ts), int(generation), last.decode())

    async def renew(
        self, keys: PartitionKeys, nonce: str, lease_ms: int, offset: int | None, *, live: bool = False
    ) -> int | None:
        """Holds on to a partition; the stored offset, None when fenced.

        `offset` is the owner's, None while a batch is folded. When Redis stores another one it forgot what was applied,
        and `live` is cleared: LEASE again with the same nonce and read from there. Otherwise `live=True` says that the
        owner has caught up; False leaves what was said before.
        """
        expected = "" if offset is None else str(offset)
        stored = await self._renew([keys.meta], nonce, lease_ms, expected, "1" if live else "")
        return None if stored is None else int(stored)

    async def release(self, keys: PartitionKeys, nonce: str) -> bool:
        """Gives a partition back; False when it was not this owner's (any more)."""
        return bool(await self._release([keys.meta], nonce))

    async def apply(  # noqa: PLR0913 - the guard, the step and what it writes
        self,
        keys: PartitionKeys,
        nonce: str,
        previous: int,
        next: int,  # noqa: A002 - the protocol's word
        batch: str,
        ops: Sequence[Op],
        *,
        seq: int,
        ts: int,
        last: str = "",
    ) -> Applied:
        """Writes the outcome of the records `previous` to `next` (exclusive), all or nothing, at most once.

        `last` is the digest of the record before `next`, by which a later owner knows the log again.
        `DUP`: this batch landed before (a lost reply), which is success. `FENCED`: another owns the partition.
        `BEHIND`: the stored offset is not `previous`. Raises ValueError for an operation that could fail in Redis.
        """
        touched, words = operations.flat(ops)
        reply = await self._apply([keys.meta, *touched], nonce, previous, next, batch, seq, ts, last, *words)
        return cast("Applied", reply.decode())

    async def rebase(self, keys: PartitionKeys, nonce: str, incarnation: str, offset: int) -> bool:
        """Continues with a new log, or with one that lost its tail, from `offset`; False when fenced.

        Clears `live`, and begins a generation unless it is the partition's first log.
        """
        return bool(await self._rebase([keys.meta], nonce, incarnation, offset))

    async def trim(self, keys: PartitionKeys, nonce: str, sent: Sequence[tuple[str, str, str]]) -> bool:
        """Takes `(token, queue, where)`, 1,000 at most, out of the outbox, and keeps where if still in flight.

        False when fenced.
        """
        by_queue: dict[str, list[str]] = {}
        for token, queue, _ in sent:
            by_queue.setdefault(queue, []).append(token)
        touched = [keys.meta, keys.in_flight, keys.sent, *map(keys.outbox, by_queue)]
        tokens, places = [token for token, _, _ in sent], [where for _, _, where in sent]
        return bool(await self._trim(touched, nonce, _pack(tokens), _pack(places), _pack(list(by_queue.values()))))

    async def claim(  # noqa: PLR0913 - what the worker knows of each message
        self,
        keys: PartitionKeys,
        worker: str,
        tokens: Sequence[str],
        seen: Sequence[bool],
        queued: Sequence[int] = (),
        *,
        server: str = "",
    ) -> list[Claimed]:
        """An answer a token. `seen[i]`: this worker knows that it took token i. `queued[i]`: its message's `queued_at`.

        `server` holds the run ids of the servers that the worker has beaten on; on another one the answer is `LATER`.

        `OK`, `MINE` (claimed before, but the reply was lost): run it. `DUP`, `STALE`: drop it. `LATER`: the partition's
        owner has not caught up, or has not been there since Redis started; ask again.
        """
        asked = zip(tokens, seen, map(str, queued), strict=True) if queued else zip(tokens, seen, strict=True)
        packed = _pack(list(asked))
        return cast("list[Claimed]", _texts(await self._claim(_worker_keys(keys), worker, packed, server)))

    async def beat(  # noqa: PLR0913 - all that a worker says of itself at once
        self,
        keys: PartitionKeys,
        worker: str,
        running: Sequence[str],
        finished: Sequence[tuple[str, int, str]],
        progress: Sequence[tuple[str, bytes]] = (),
        begun: Sequence[tuple[str, str]] = (),
        *,
        forget_ms: int = FORGET_MS,
    ) -> BeatReply:
        """Says that `worker` lives and holds `running`: all it claimed here and has no acknowledged result of.

        `finished` are results `(token, offset, incarnation)` that the log acknowledged and that were not reported as
        folded. While the partition is not live nothing is reported gone. A claim of this worker that it names in
        neither list is dropped after `forget_ms`: the worker never learnt of it. `progress` is what tasks said since
        the last beat, `(token, JSON bytes)`; it is kept while the claim stands. `begun` says of tokens in either list
        that the worker began them by itself, and by the result of which token: such a one is never reported gone while
        the token before it is in flight, as then that result was not folded, or is undecided in the same way.
        """
        said = [(token, value.decode()) for token, value in progress]
        packed = _pack(list(running)), _pack(list(finished)), forget_ms, _pack(said), PROGRESS_MS, _pack(list(begun))
        return BeatReply(*map(_texts, await self._beat([*_worker_keys(keys), keys.progress], worker, *packed)))

    async def condemn(  # noqa: PLR0913 - the judgement is compared with what it was based on
        self,
        keys: PartitionKeys,
        nonce: str,
        token: str,
        holder: str | None,
        counter: str | None,
        *,
        where: str | None = None,
    ) -> bool:
        """Takes a dead worker's claim away, for good, if `holder` still has it and its heartbeat is still `counter`.

        `holder=None`: an orphan, if it is still unclaimed, in no outbox and, when `where` is given, was last sent
        there. True also for a token that was condemned before: append its `lost` record (again).
        """
        queues = sorted(_texts(await cast("Any", self._redis.smembers(keys.queues)))) if holder is None else []
        touched = [keys.meta, keys.in_flight, keys.claims, keys.heartbeats, keys.sent, *map(keys.outbox, queues)]
        wanted = "*" if where is None else where
        return bool(await self._condemn(touched, nonce, token, holder or "", counter or "", wanted))

    async def withdraw(self, keys: PartitionKeys, nonce: str, tokens: Sequence[str]) -> list[str]:
        """Condemns those of `tokens` that are in flight and unclaimed; returns them and those condemned before."""
        touched = [keys.meta, keys.in_flight, keys.claims]
        return _texts(await self._withdraw(touched, nonce, _pack(list(tokens))))

    async def accept(
        self, keys: PartitionKeys, execution_id: str, verb: str, command: bytes, statuses: Sequence[str]
    ) -> AcceptReply:
        """Keeps a command until it is folded, if the execution's status is one of `statuses` ("": it does not exist).

        An execution that is only accepted so far counts as PENDING. `EXISTS`: a command of this verb waits already.
        """
        fields = f"{execution_id}/{verb}", f"{execution_id}/create"
        reply = await self._accept([keys.accepted, keys.execution(execution_id)], *fields, command, *statuses)
        return AcceptReply(reply[0].decode(), reply[1])

    async def accept_all(
        self, creations: Sequence[Creation], documents: Iterable[str] = ()
    ) -> dict[int, Created] | None:
        """Keeps the commands that create executions, all or none; nothing when all are kept now.

        Otherwise nothing was written: those that are there already, by their place in `creations`, or None when one of
        `documents` (keys) is not there whole. In a Redis Cluster all have one partition. A call whose reply was lost
        finds its own commands.
        """
        keys = [key for c in creations for key in (c.keys.accepted, c.keys.execution(c.execution_id))]
        args = [part for c in creations for part in (f"{c.execution_id}/create", c.command)]
        reply = await self._accept_all([*keys, *documents], len(creations), *args)
        if reply is None:
            return None
        return {int(place): Created(command, request.decode()) for place, command, request in reply}

    async def define(  # noqa: PLR0913 - what is compared, what is written
        self,
        keys: InstallationKeys,
        name: str,
        known: bytes,
        versions: bytes,
        *,
        document_hash: str,
        document: bytes = b"",
    ) -> bool:
        """Registers `versions` of a definition if those that are stored are still `known` (b"": none); else False.

        `document` (compressed) is kept under `document_hash`; without it that document is dropped, and with no
        `versions` the whole definition. A call whose reply was lost gives True again.
        """
        touched = [keys.definition_names, keys.definition(name)]
        return bool(await self._define(touched, name, known, versions, document_hash, document))

    async def task_lease(self, key: str, nonce: str, lease_ms: int, *, incarnation: str = "") -> int | None:
        """Takes or renews a task partition; its committed offset, None while another holds it.

        Under another `incarnation` of the log than the stored one the offset is 0 again; "" does not compare.
        """
        offset = await self._task_lease([key], nonce, lease_ms, incarnation)
        return None if offset is None else int(offset)

    async def task_commit(self, key: str, nonce: str, offset: int, lease_ms: int, *, known: int = 0) -> bool:
        """Commits the offset of the next message, never backwards, and renews.

        False when another holds it, and when less is stored than was committed before (`known`): Redis rolled back.
        """
        return bool(await self._task_commit([key], nonce, offset, lease_ms, known))

    async def task_release(self, key: str, nonce: str) -> bool:
        """Gives a task partition back; False when it was not this worker's (any more)."""
        return bool(await self._release([key], nonce))

    async def install(
        self, keys: InstallationKeys, partitions: int, task_partitions: int, *, incarnation: str = ""
    ) -> Installation:
        """What the first caller said, but for the incarnation: the newest that is not "" stays.

        Raises SetupError when a newer release has changed the installation so that this one must not touch it.
        """
        reply = await self._install([keys.installation], partitions, task_partitions, incarnation, VERSION)
        if (version := int(reply[3])) > VERSION:
            raise SetupError(
                f"the installation {keys.namespace!r} has version {version}, and this release knows versions up to "
                f"{VERSION}: upgrade this process, or use another namespace"
            )
        return Installation(int(reply[0]), int(reply[1]), reply[2].decode())


def _worker_keys(keys: PartitionKeys) -> list[str]:
    return [keys.meta, keys.in_flight, keys.claims, keys.heartbeats]


def _texts(replies: Iterable[bytes]) -> list[str]:
    return [reply.decode() for reply in replies]
