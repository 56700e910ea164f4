"""Waiting for what happens in other processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], bool], seconds: float) -> None:
    """Returns when `holds()`. Raises TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - nobody in this process could set an event
            await asyncio.sleep(0.05)
