"""What an owner has seen of a partition's workers and messages, on its own monotonic clock (in seconds).

Judgement rests on what this owner watched itself: after a lease, a pause or time without Redis it starts afresh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

CONDEMNED = "condemned"


class Waiting(NamedTuple):
    """What is known of a command that was accepted and is not folded."""

    since: float
    """When it was first seen, or last appended."""
    passed: int | None = None
    """The offset that the partition reaches by folding the newest copy of it; None: not known yet."""
    tries: int = 0
    """How often it was appended again."""


@dataclass(slots=True)
class Watch:
    """Heartbeat counters, unclaimed messages, waiting commands: each with the moment since when it stands so."""

    contact: float | None = None
    """When Redis last answered a sweep."""
    beats: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Worker → its counter, and since when it shows this."""
    appended: dict[str, float] = field(default_factory=dict)
    """Token → when its `lost` record was appended."""
    unclaimed: dict[str, float] = field(default_factory=dict)
    """Token whose message was passed → since when it was seen unclaimed."""
    accepted: dict[str, Waiting] = field(default_factory=dict)
    """Field of a waiting command → what is known of it."""

    def observe(
        self, beats: Mapping[str, str], holders: Iterable[str], asked: float, answered: float, gap: float
    ) -> None:
        """Takes in counters that were asked for at `asked`. After more than `gap` without contact all begin afresh."""
        if self.contact is None or asked - self.contact > gap:
            self.beats.clear()
        self.contact = answered
        seen = {**dict.fromkeys(holders, ""), **beats}
        for worker, counter in seen.items():
            known = self.beats.get(worker)
            if known is None or known[0] != counter:
                self.beats[worker] = (counter, answered)
        for worker in self.beats.keys() - seen.keys():
            del self.beats[worker]

    def silent_for(self, worker: str, asked: float) -> float:
        """Seconds for which the worker's counter stood still, as of `asked`."""
        known = self.beats.get(worker)
        return asked - known[1] if known else 0.0

    def may_append(self, token: str, now: float, pause: float) -> bool:
        """Whether the token's `lost` record was not appended within `pause`."""
        return now - self.appended.get(token, float("-inf")) >= pause

    def forget(self, tokens_in_question: set[str], now: float, pause: float) -> None:
        """Drops notes about tokens that are settled."""
        for token, when in list(self.appended.items()):
            if token not in tokens_in_question and now - when > pause:
                del self.appended[token]
