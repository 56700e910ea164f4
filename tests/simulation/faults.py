"""What goes wrong, how often, and how much of it a run may have: a failing seed is retried with fewer faults."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

NETWORK = {
    "request lost": 0.010,
    "reply lost": 0.010,
    "sent twice": 0.008,
    "slow": 0.010,
    "late copy": 0.020,
    "killed before a call": 0.004,
    "killed after a call": 0.006,
    "paused before a call": 0.004,
    "paused after a call": 0.004,
}
"""Chance of each fault for a call that matters; a call that only reads has a tenth of it."""


@dataclass
class Faults:
    """Decides by the seed. `allowed` are the ordinals of the faults that happen, None for all; `without` are kinds."""

    random: random.Random
    without: Collection[str] = ()
    allowed: Collection[int] | None = None
    active: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    struck: int = 0

    def strike(self, kind: str) -> bool:
        """Whether this fault, whose turn has come, happens."""
        if not self.active or kind in self.without:
            return False
        self.struck += 1
        if self.allowed is not None and self.struck not in self.allowed:
            return False
        self.counts[kind] += 1
        return True

    def of_call(self, weight: float, chances: dict[str, float]) -> str:
        """The fault that hits a call, or ""."""
        if not self.active:
            return ""
        drawn = self.random.random() / weight
        for kind, chance in chances.items():
            if drawn < chance:
                return kind if self.strike(kind) else ""
            drawn -= chance
        return ""
