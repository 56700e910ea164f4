"""Measures this engine on both logs and its peers on the same workloads, in turn, several rounds.

Without `--log` and `--peer` everything is measured; with them only what they name. Prints each median with the smallest
and the largest value and how many times better this engine is on its redis log, then the tables in Markdown; `--write`
puts these and the plots into docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from wf_testservers.engine import variables
from wf_testservers.kafka import start_kafka
from wf_testservers.redis import start_redis

from bench import report
from bench.rows import ROWS, Row, Samples
from bench.systems import Ours, System

KEYS = tuple(dict.fromkeys(row.key for row in ROWS))


@contextlib.contextmanager
def ours(logs: Sequence[str]) -> Iterator[list[System]]:
    """This engine on each of these logs, with servers that run for the whole time."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found: list[System] = []
        for log in logs:
            redis = stack.enter_context(start_redis(folder / f"redis-of-{log}"))
            kafka = stack.enter_context(start_kafka(_made(folder / "kafka"))) if log == "kafka" else None
            environment = variables(redis.port, kafka and kafka.bootstrap)
            found.append(Ours(log, environment, folder / f"engine-{log}", redis.process.pid))
        yield found


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def measure(systems: Sequence[System], rows: Sequence[Row], rounds: int) -> dict[str, dict[str, list[Samples]]]:
    """Samples by system and key; each round begins with another system, so that all meet the same moods."""
    results: dict[str, dict[str, list[Samples]]] = {system.name: {} for system in systems}
    for n in range(rounds):
        turn = n % len(systems)
        for system in (*systems[turn:], *systems[:turn]):
            start = time.monotonic()
            try:
                found = system.round(rows)
            except Exception as error:  # noqa: BLE001 - the table says what failed, the other systems go on
                found = {row.key: Samples(row.size, failed=f"{type(error).__name__}: {error}"[:300]) for row in rows}
            for key, samples in found.items():
                results[system.name].setdefault(key, []).append(samples)
            print(f"round {n + 1}: {system.name} took {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
    return results


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=KEYS, help="a workload; repeatable")
    parser.add_argument("--log", action="append", choices=report.OURS, help="this engine on that log; repeatable")
    return parser.parse_args()


def main() -> None:
    """Measures what was asked for and prints it."""
    asked = options()
    rows = [row for row in ROWS if not asked.only or row.key in asked.only]
    with ours(asked.log or report.OURS) as systems:
        results = measure(systems, rows, asked.rounds)
    print("\n".join(report.text(rows, results)))
    print()
    print(report.markdown(rows, results, {}))


if __name__ == "__main__":
    main()
