"""Fail points: named places in the protocol where a test lets a process die, hang or fail. Off unless asked for.

`WF_FAIL_POINTS` holds entries `point=action` with an optional `@chance` (0 to 1) or `@#n` (the n-th time), separated by
`;`: `orchestrator.applied=kill@0.01; worker.claimed=pause@#3`. Actions: `kill` (SIGKILL), `pause` (SIGSTOP, until
somebody sends SIGCONT), `raise` (FailPointError). `WF_FAIL_POINTS_SEED` makes chances repeatable.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Mapping
from typing import Literal, cast, get_args

from wf_core.errors import SetupError

Point = Literal[
    "orchestrator.leased",
    "orchestrator.folded",
    "orchestrator.applied",
    "orchestrator.produced",
    "orchestrator.trimmed",
    "orchestrator.timer_appended",
    "orchestrator.condemned",
    "worker.read",
    "worker.claimed",
    "worker.committed",
    "worker.ended",
    "worker.reported",
    "api.accepted",
    "api.appended",
]
"""Each is named after what has just happened: `folded` is before APPLY, `ended` before the append of the result."""

Action = Literal["kill", "pause", "raise"]


class FailPointError(Exception):
    """A fail point was told to raise."""


class FailPoints:
    """What a `WF_FAIL_POINTS` says. Raises SetupError for one that names what does not exist."""

    def __init__(self, text: str, seed: str | None = None) -> None:
        self._random = random.Random(seed)
        self._reached: dict[str, int] = {}
        self._entries: dict[str, tuple[Action, float, int]] = {}
        for entry in filter(None, (part.strip() for part in text.split(";"))):
            point, _, rest = entry.partition("=")
            action, _, when = rest.partition("@")
            if point not in get_args(Point) or action not in get_args(Action) or point in self._entries:
                raise SetupError(
                    f"WF_FAIL_POINTS: {entry!r} is no `point=action`, or names its point again; points are "
                    f"{', '.join(get_args(Point))}; actions are {', '.join(get_args(Action))}"
                )
            self._entries[point] = (cast("Action", action), *_turn(when))

    def reach(self, point: Point) -> None:
        """Does what is asked for at `point`, if its turn has come."""
        entry = self._entries.get(point)
        if entry is None:
            return
        action, chance, number = entry
        self._reached[point] = self._reached.get(point, 0) + 1
        if number and self._reached[point] != number:
            return
        if self._random.random() >= chance:
            return
        if action == "raise":
            raise FailPointError(point)
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)


def _turn(when: str) -> tuple[float, int]:
    """The chance, and which time counts alone (0: each does), that `0.01`, `#3` or nothing says."""
    number, chance = when.removeprefix("#"), when or "1"
    with contextlib.suppress(ValueError):
        if number != when and int(number) > 0:
            return 1.0, int(number)
        if number == when and 0 <= float(chance) <= 1:
            return float(chance), 0
    raise SetupError(f"WF_FAIL_POINTS: {when!r} is neither a chance like 0.01 nor a time like #3")


_active: FailPoints | None = None


def activate(environment: Mapping[str, str]) -> None:
    """Reads `WF_FAIL_POINTS`; called once, when a service's process starts. Raises SetupError."""
    global _active  # noqa: PLW0603 - as global as the process that it kills
    text = environment.get("WF_FAIL_POINTS", "")
    _active = FailPoints(text, environment.get("WF_FAIL_POINTS_SEED")) if text.strip() else None


def fail_point(point: Point) -> None:
    """Marks a step of the protocol. Costs a comparison when no fail point is asked for."""
    if _active is not None:
        _active.reach(point)
