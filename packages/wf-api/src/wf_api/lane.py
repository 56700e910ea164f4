"""What is asked while a call is under way travels with the next one: many small requests cost few round trips."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Generic, NamedTuple, TypeVar

A = TypeVar("A")
R = TypeVar("R")


class _Waiting(NamedTuple, Generic[A, R]):
    item: A
    reply: asyncio.Future[R]


class Lane(Generic[A, R]):
    """One call at a time. `send` returns a reply for each item and is bounded in time; all hear what it raises.

    `keys` says what an item is about: what goes together has no key in common, and at most `most` of them.
    """

    def __init__(
        self, keys: Callable[[A], Collection[str]], most: int, send: Callable[[Sequence[A]], Awaitable[Sequence[R]]]
    ) -> None:
        self._keys = keys
        self._most = most
        self._send = send
        self._waiting: deque[_Waiting[A, R]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, item: A) -> R:
        """The reply to `item`. It is not sent once the caller has given up, unless that was too late."""
        reply: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, reply))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="lane")
        return await reply

    async def close(self) -> None:
        """Waits for what is on its way."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            while group := self._next():
                await self._exchange(group)
        finally:
            self._task = None

    def _next(self) -> list[_Waiting[A, R]]:
        group: list[_Waiting[A, R]] = []
        taken: set[str] = set()
        while self._waiting:
            keys = self._keys(self._waiting[0].item)
            if group and (len(taken) + len(keys) > self._most or not taken.isdisjoint(keys)):
                break
            waiting = self._waiting.popleft()
            if not waiting.reply.done():
                taken.update(keys)
                group.append(waiting)
        return group

    async def _exchange(self, group: Sequence[_Waiting[A, R]]) -> None:
        try:
            replies = await self._send([waiting.item for waiting in group])
        except Exception as error:  # noqa: BLE001 - raised again where it was asked
            for waiting in group:
                if not waiting.reply.done():
                    waiting.reply.set_exception(error)
            return
        for waiting, reply in zip(group, replies, strict=True):
            if not waiting.reply.done():
                waiting.reply.set_result(reply)
