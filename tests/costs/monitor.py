"""Every command that a Redis server carries out, those inside of scripts included: what MONITOR shows."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from redis.asyncio import Redis

_LONGEST = 256 * 2**20
_LINE = re.compile(rb"\+?[\d.]+ \[\d+ (\S+)\] (.*)")
_WORD = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"')
_ESCAPE = re.compile(rb"\\(?:x[0-9a-f]{2}|.)")
_SCRIPTS = frozenset({b"EVAL", b"EVALSHA"})


@dataclass(frozen=True, slots=True)
class Command:
    """One command; its words are as MONITOR writes them, so bytes that cannot be printed are escaped."""

    client: bytes
    """`host:port` of who sent it."""
    words: tuple[bytes, ...]

    @property
    def in_script(self) -> bool:
        """Whether the script above it did this."""
        return self.client == b"lua"

    @property
    def name(self) -> bytes:
        """The command in capitals."""
        return self.words[0].upper()

    @property
    def is_script(self) -> bool:
        """Whether it runs a script."""
        return self.name in _SCRIPTS

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The keys that a script was given; of any other command the first word after its name."""
        return self.words[3 : 3 + int(self.words[2])] if self.is_script else self.words[1:2]

    @property
    def size(self) -> int:
        """Bytes of all words, as they were sent."""
        return sum(len(_ESCAPE.sub(b".", word)) for word in self.words)


class Monitor:
    """Listens from `async with` on. Nothing is read before the end, so that listening takes no time from what runs."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def __aenter__(self) -> Self:
        options = self._redis.connection_pool.connection_kwargs
        self._reader, self._writer = await asyncio.open_connection(options["host"], options["port"], limit=_LONGEST)
        self._writer.write(b"MONITOR\r\n")
        await self._reader.readline()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def commands(self) -> list[Command]:
        """All until now, in their order."""
        mark = uuid.uuid4().hex
        await self._redis.echo(mark)
        lines: list[bytes] = []
        while not lines or mark.encode() not in lines[-1]:
            lines.append(await self._reader.readline())
        return list(_commands(lines[:-1]))


def _commands(lines: list[bytes]) -> Iterator[Command]:
    for line in lines:
        if found := _LINE.match(line):
            yield Command(found[1], tuple(_WORD.findall(found[2])))
