"""What a test lets go wrong: lost workers, crashed processes, late and repeated results, restarts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from wf_core.durations import parse_duration_ms

DEATH_MS = 2_500
"""How long a worker is silent until it counts as dead."""

Kind = Literal["lose", "late", "duplicate", "stall"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to attempts. `node` is a path, in which `*` stands for any text; attempts count from 1."""

    kind: Kind
    node: str
    attempts: tuple[int, ...]
    reason: str = ""
    after_ms: int = 0
    times: int = 1

    def strikes(self, node: str, attempt: int) -> bool:
        """Whether it happens to this attempt."""
        pattern = ".*".join(re.escape(part) for part in self.node.split("*"))
        return attempt in self.attempts and re.fullmatch(pattern, node) is not None


@dataclass(frozen=True, slots=True)
class Restart:
    """The orchestrator forgets its state and loads it again from what it stored."""

    every: int | None = None
    after: str | None = None

    def strikes(self, folded: int, node: str) -> bool:
        """Whether it happens behind the record number `folded`, which is about `node`."""
        return (self.every is not None and folded % self.every == 0) or (self.after is not None and node == self.after)


def lose(node: str, *, attempt: int | tuple[int, ...] = 1, after: str | float = 0, reason: str = "dead") -> Fault:
    """The worker of an attempt dies `after` so long, before the task's code had any effect.

    `reason`: `dead` (noticed when it has been silent for 2.5 s), `orphan` (the message reached no worker) or `drain`.
    """
    return Fault("lose", node, _attempts(attempt), reason, parse_duration_ms(after))


def crash(node: str, *, attempt: int | tuple[int, ...] = 1, after: str | float = 0) -> Fault:
    """The process that runs an attempt ends under it; its worker lives and says so at once."""
    return Fault("lose", node, _attempts(attempt), "crash", parse_duration_ms(after))


def late(node: str, *, attempt: int | tuple[int, ...] = 1, by: str | float = "10s") -> Fault:
    """A worker falls silent and is given up; `by` so long after that it wakes, and its result comes all the same."""
    return Fault("late", node, _attempts(attempt), "dead", parse_duration_ms(by))


def duplicate(node: str, *, attempt: int | tuple[int, ...] = 1, times: int = 1) -> Fault:
    """The result of an attempt arrives `times` times more."""
    return Fault("duplicate", node, _attempts(attempt), times=times)


def stall(node: str, *, attempt: int | tuple[int, ...] = 1) -> Fault:
    """The task hangs and says nothing: the node's `heartbeat` or `timeout` ends the attempt, else nothing does."""
    return Fault("stall", node, _attempts(attempt))


def restart(*, every: int | None = None, after: str | None = None) -> Restart:
    """The orchestrator restarts behind every `every`-th record, or behind each record about the node `after`."""
    if (every is None) == (after is None) or (every is not None and every < 1):
        raise ValueError("restart() takes either every=<a number of records> or after=<a node path>")
    return Restart(every, after)


def _attempts(attempt: int | tuple[int, ...]) -> tuple[int, ...]:
    return (attempt,) if isinstance(attempt, int) else attempt
