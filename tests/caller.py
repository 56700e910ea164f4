"""A careful caller: it submits under a key, and comes again with the same one when it is told to."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import httpx

_PAUSE_SECONDS = 0.2


async def submit(client: httpx.AsyncClient, document: dict[str, Any], *, seconds: float = 60) -> str:
    """Creates and triggers an execution, again while the answer is 503; returns its id."""
    key = {"idempotency-key": uuid.uuid4().hex}
    deadline = time.monotonic() + seconds
    while True:
        answer = await client.post("/workflow?trigger=true", json=document, headers=key)
        if answer.status_code != 503:
            found: str = answer.raise_for_status().json()["execution_id"]
            return found
        assert time.monotonic() < deadline, answer.text
        await asyncio.sleep(_PAUSE_SECONDS)
