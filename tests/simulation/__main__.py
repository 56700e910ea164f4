"""`python -m simulation`: many seeds of the simulation, on several processors; prints what was found."""

# ruff: noqa: T201 - what it prints is its purpose

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time

from simulation.mutants import MUTANTS
from simulation.run import Summary, show, shrink, work
from simulation.world import WORLDS

_CHUNK = 50


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many, of each world")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--world", choices=WORLDS, action="append", help="a world; all of them by default")
    parser.add_argument("--mutant", choices=MUTANTS, default="", help="a rule to break; stops at the first violation")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--show", action="store_true", help="shrink the first seed and print its last steps")
    return parser.parse_args()


def main() -> int:
    """0 when every promise was kept."""
    options = _arguments()
    worlds = options.world or list(WORLDS)
    if options.show:
        return _show(options.first, worlds[0], options.mutant)
    chunk = _CHUNK if options.jobs > 1 else max(1, options.seeds)
    end = options.first + options.seeds
    tasks = [
        (world, first, min(chunk, end - first), options.mutant)
        for first in range(options.first, end, chunk)
        for world in worlds
    ]
    summaries = {world: Summary(world, options.mutant) for world in worlds}
    began = time.monotonic()
    if options.jobs > 1:
        with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=4) as pool:
            for found in pool.imap_unordered(work, tasks):
                summaries[found.world].add(found)
    else:
        for task in tasks:
            summaries[task[0]].add(work(task))
    if options.json:
        print(json.dumps([vars(summary) for summary in summaries.values()]))
    else:
        _print(list(summaries.values()), time.monotonic() - began)
    return int(any(summary.violations for summary in summaries.values()))


def _print(summaries: list[Summary], seconds: float) -> None:
    print(f"{'world':22}{'seeds':>8}{'violations':>12}{'faults':>10}{'attempts':>10}{'run twice':>11}{'virtual h':>11}")
    for s in summaries:
        print(
            f"{s.world:22}{s.seeds:8}{len(s.violations):12}{s.faults.total():10}"
            f"{s.counts['attempts']:10}{s.counts['run twice']:11}{s.seconds / 3600:11.1f}"
        )
    faults = sum((s.faults for s in summaries), start=type(summaries[0].faults)())
    print(", ".join(f"{kind}: {count}" for kind, count in sorted(faults.items())))
    print(f"{sum(s.seeds for s in summaries)} seeds in {seconds:.0f} s")
    for s in summaries:
        for seed, violated in sorted(s.violations.items())[:20]:
            print(f"\n{s.world}, seed {seed}: {violated[:600]}")
            mutant = f" --mutant {s.mutant!r}" if s.mutant else ""
            print(f"  PYTHONPATH=tests python -m simulation --world {s.world!r} --first {seed} --show{mutant}")


def _show(seed: int, world: str, mutant: str) -> int:
    best, violated, left = shrink(seed, world, mutant)
    print(show(best))
    print(f"\n{world}, seed {seed}, {left}\n{violated}")
    return 1


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of text must have the same order in every process
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "simulation", *sys.argv[1:]])  # noqa: S606 - itself
    sys.exit(main())
