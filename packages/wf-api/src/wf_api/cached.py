"""A value that is fetched at most once in a while, by one request for all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from wf_api.bounded import ANSWER_SECONDS

T = TypeVar("T")


class Cached(Generic[T]):
    """`get` gives what `fetch` returned less than `seconds` ago; those who come while it runs share its answer."""

    def __init__(self, fetch: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._fetching: asyncio.Task[T] | None = None
        self._until = 0.0

    async def get(self) -> T:
        """The value. Raises what `fetch` raises, or TimeoutError; the next call after that asks again."""
        now = asyncio.get_running_loop().time()
        task = self._fetching
        if task is None or (task.done() and (now >= self._until or task.cancelled() or task.exception() is not None)):
            task = self._fetching = asyncio.create_task(self._fetch(), name="fetch")
            self._until = now + self._seconds
        async with asyncio.timeout(ANSWER_SECONDS):
            return await asyncio.shield(task)

    async def close(self) -> None:
        """Ends a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})
