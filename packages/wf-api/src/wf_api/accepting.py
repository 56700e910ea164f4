"""The lane in which small requests are accepted together: in one call of Redis, what came during the one before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from wf_api.bounded import ANSWER_SECONDS
from wf_api.lane import Lane
from wf_core.store.scripts import Created, Creation, Scripts

MOST_TOGETHER = 100
"""Executions of small requests that are accepted in one call; more go alone."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Creations that are kept together or not at all, if the `documents` (keys) that they rely on are there."""

    creations: Sequence[Creation]
    documents: tuple[str, ...]


def accepting(scripts: Scripts) -> Lane[Asked, dict[int, Created] | None]:
    """The lane in which small requests are accepted together, each all or none."""

    async def send(group: Sequence[Asked]) -> list[dict[int, Created] | None]:
        creations = [creation for asked in group for creation in asked.creations]
        documents = dict.fromkeys(key for asked in group for key in asked.documents)
        async with asyncio.timeout(ANSWER_SECONDS):
            reply = await scripts.accept_all(creations, documents)
            if reply == {} or len(group) == 1:
                return [reply for _ in group]
            # One of them found something: which one shows when each is asked for alone.
            return [await scripts.accept_all(asked.creations, asked.documents) for asked in group]

    # An execution that came twice would be written twice by the script.
    return Lane(lambda asked: [creation.execution_id for creation in asked.creations], MOST_TOGETHER, send)
