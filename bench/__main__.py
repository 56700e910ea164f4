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
from typing import Any

from wf_testservers.engine import variables
from wf_testservers.kafka import start_kafka
from wf_testservers.redis import executable, start_redis

from bench import document, report
from bench.ours import Installation
from bench.peers import PEERS, NotInstalledError, interpreter, version
from bench.plots import draw
from bench.rows import ROWS, Row, Samples, failure
from bench.studies import STUDIES, lines
from bench.systems import Ours, Peer, System

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"
KEYS = tuple(dict.fromkeys(row.key for row in ROWS))


@contextlib.contextmanager
def ours(logs: Sequence[str]) -> Iterator[list[Ours]]:
    """This engine on each of these logs, with servers that run for the whole time."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found: list[Ours] = []
        for log in logs:
            redis = stack.enter_context(start_redis(folder / f"redis-of-{log}"))
            kafka = stack.enter_context(start_kafka(_made(folder / "kafka"))) if log == "kafka" else None
            environment = variables(redis.port, kafka.bootstrap if kafka else None)
            jvm = kafka.node.process.pid if kafka and kafka.kind == "apache" else None
            found.append(Ours(log, Installation(environment, folder / f"engine-{log}", redis.process.pid, jvm)))
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
                found = {row.key: failure(row, error) for row in rows if not row.ours_only or isinstance(system, Ours)}
            for key, samples in found.items():
                results[system.name].setdefault(key, []).append(samples)
            print(f"round {n + 1}: {system.name} took {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
    return results


def peers(names: Sequence[str], cache: Path) -> tuple[list[Peer], dict[str, str]]:
    """The peers that can be installed, and why the others cannot."""
    found: list[Peer] = []
    missing: dict[str, str] = {}
    for name in names:
        peer = PEERS[name]
        try:
            python = interpreter(peer, cache)
            environment = {**peer.environment, "WF_REDIS_SERVER": executable()}  # the same for all
            found.append(Peer(name, python, peer.path, environment, version(peer, python), peer.without))
        except NotInstalledError as error:
            missing[name] = f"it cannot be installed: {error}"
    return found, missing


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; without `--log` and `--peer` it names both logs and all peers that are measured by default."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=(*KEYS, *STUDIES), help="a workload or study; repeatable")
    parser.add_argument("--log", action="append", choices=report.OURS, help="this engine on that log; repeatable")
    parser.add_argument("--peer", action="append", choices=tuple(PEERS), help="repeatable")
    parser.add_argument("--cache", type=Path, default=Path(".tox/bench-peers"), help="where peers are installed")
    parser.add_argument("--write", action="store_true", help="put tables and plots into docs/performance.md")
    asked = parser.parse_args(arguments)
    if asked.log is None and asked.peer is None:
        asked.log = list(report.OURS)
        asked.peer = [name for name, peer in PEERS.items() if peer.by_default]
    return asked


def main() -> None:
    """Measures what was asked for, prints it, and writes it down where that was asked for."""
    asked = options()
    rows = [row for row in ROWS if not asked.only or row.key in asked.only]
    studies = [name for name in STUDIES if not asked.only or name in asked.only]
    others, missing = peers(asked.peer or (), asked.cache.absolute()) if rows else ([], {})
    with ours(asked.log or ()) as engines:
        results = measure([*engines, *others], rows, asked.rounds) if rows else {}
        found = {study: made for study in studies if (made := _study(study, engines, missing))}
    print("\n".join([*report.text(rows, results), *lines(found)]))
    tables = "\n\n".join([_how(asked.rounds, others), report.markdown(rows, results, missing)])
    if not asked.write:
        print(f"\n{tables}")
        return
    if rows:
        document.write(DOCUMENT, tables)
    print("written:", DOCUMENT, *draw(found, DOCUMENT.with_suffix("")))


def _study(study: str, engines: Sequence[Ours], missing: dict[str, str]) -> dict[str, Any]:
    """What a study found on each log; why it found nothing on one is told with what else is missing."""
    found = {}
    for one in engines:
        try:
            found[one.name] = STUDIES[study](one)
        except Exception as error:  # noqa: BLE001 - the tables are still worth printing
            missing[f"{study} on {one.name}"] = f"{type(error).__name__}: {error}".splitlines()[0]
    return found


def _how(rounds: int, others: Sequence[Peer]) -> str:
    versions = {peer.python: f"{peer.name} {peer.version}" for peer in reversed(others) if peer.version}
    where = "; ".join([document.machine(), *([", ".join(reversed(versions.values()))] if versions else [])])
    return (
        f"Median (smallest–largest) of {rounds} round{'s' if rounds > 1 else ''} on {where}. "
        "A figure with × says how many times better this engine is."
    )


if __name__ == "__main__":
    main()
