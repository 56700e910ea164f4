"""Names of the topics. `wf.events` has a fixed number of partitions, each queue a topic of its own."""

from __future__ import annotations

import re

QUEUE = re.compile(r"[a-z0-9._-]{1,60}")


def events(namespace: str) -> str:
    """Commands, results, timers, losses: everything that happens. API, orchestrators and workers append."""
    return f"{namespace}.events"


def tasks(namespace: str, queue: str) -> str:
    """Task messages of one queue. Orchestrators append."""
    return f"{namespace}.tasks.{queue}"


def meta(namespace: str) -> str:
    """One partition whose record 0 is the log's incarnation. Whoever creates the topic appends."""
    return f"{namespace}.meta"


def dead_letters(namespace: str) -> str:
    """Undecodable or poisonous records with the reason. Orchestrators and workers append."""
    return f"{namespace}.dlq"
