"""Runs seeds, adds up what happened, and makes a failing seed small."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from simulation.mutants import MUTANTS, NONE
from simulation.patches import installed
from simulation.world import World
from wf_core.store.reads import documents

RERUNS = 120
"""Runs that are spent on making a failing seed smaller."""


@dataclass
class Summary:
    """What came of some seeds of a world."""

    world: str
    mutant: str = ""
    seeds: int = 0
    seconds: float = 0.0
    """Virtual."""
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: dict[int, str] = field(default_factory=dict)
    fingerprints: dict[int, int] = field(default_factory=dict)
    """A number for all the steps of a seed."""

    def add(self, other: Summary) -> None:
        """Takes in another one of the same world."""
        self.seeds += other.seeds
        self.seconds += other.seconds
        self.counts += other.counts
        self.faults += other.faults
        self.violations |= other.violations
        self.fingerprints |= other.fingerprints


def run(seed: int, world: str, mutant: str = "", **limits: Any) -> tuple[World, str]:
    """Runs one seed; the world and what was violated, "" for nothing. To be called inside `patches.installed`."""
    rule = MUTANTS[mutant] if mutant else NONE
    one = World(seed, world, rule, **limits)
    violated = ""
    fresh = mock.patch.object(documents, "tables", documents.NodeTables())  # or a seed would depend on those before it
    with rule.patch(), fresh:
        try:
            one.run()
        except Exception as error:  # noqa: BLE001 - whatever a run raises is its violation
            violated = f"{type(error).__name__}: {error}"
    return one, violated


def simulate(world: str, seeds: Iterable[int], mutant: str = "", most: int | None = None) -> Summary:
    """Runs seeds, until `most` of them failed."""
    summary = Summary(world, mutant)
    with installed():
        for seed in seeds:
            one, violated = run(seed, world, mutant)
            summary.seeds += 1
            summary.seconds += one.loop.now
            summary.counts += one.counts
            summary.faults += one.faults.counts
            summary.fingerprints[seed] = one.fingerprint
            if violated:
                summary.violations[seed] = violated
                if most is not None and len(summary.violations) >= most:
                    break
            if summary.seeds % 20 == 0:
                del one
                gc.collect()
    return summary


def work(task: tuple[str, int, int, str]) -> Summary:
    """A share of the seeds, `(world, first seed, how many, mutant)`, for a process of its own."""
    world, first, count, mutant = task
    return simulate(world, range(first, first + count), mutant, 1 if mutant else None)


def shrink(seed: int, world: str, mutant: str = "") -> tuple[World, str, str]:
    """A run of the seed that fails with as few faults as can be found; what it violated, and which faults it had.

    Kinds of faults are left out, then the last faults, then one after another. Each rerun is a run of its own: what
    fails may be another promise than at first.
    """
    with installed():
        best, violated = run(seed, world, mutant)
        if not violated:
            raise ValueError(f"seed {seed} does not fail")
        without: tuple[str, ...] = ()
        spent = 0
        for kind in list(best.faults.counts):
            spent += 1
            one, found = run(seed, world, mutant, without=(*without, kind))
            if found:
                without, best, violated = (*without, kind), one, found
        allowed: Collection[int] = range(1, best.faults.struck + 1)
        while spent < RERUNS:
            for kept in _smaller(allowed):
                spent += 1
                one, found = run(seed, world, mutant, without=without, allowed=kept)
                if found:
                    allowed, best, violated = kept, one, found
                    break
                if spent >= RERUNS:
                    break
            else:
                break
    left = f"{sum(best.faults.counts.values())} faults: " + ", ".join(
        f"{k} ×{n}" for k, n in best.faults.counts.items()
    )
    return best, violated, left


def _smaller(allowed: Collection[int]) -> Iterable[list[int]]:
    whole = list(allowed)
    size = len(whole)
    while size > 1:
        size = (size + 1) // 2
        for start in range(0, len(whole), size):
            yield whole[:start] + whole[start + size :]
        if size == 1:
            return
    if whole:
        yield []


def show(world: World) -> str:
    """The last steps of a run."""
    lines = [f"{at:9.4f}  {who:5}  {what}  {_short(answer)}" for at, who, what, answer in world.trace]
    return "\n".join(lines)


def _short(answer: Any) -> str:
    text = answer if isinstance(answer, str) else repr(answer)
    return text if len(text) < 160 else f"{text[:160]}…"
