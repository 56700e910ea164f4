"""Lists of executions when very many have ended: milliseconds of a page, the first one and those deep down."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from bench.growth.writing import Template, template, write
from bench.lean import ask, request
from bench.scene import PARTITIONS, Size, scene
from wf_core import ids, wire

_NAMES, _TEAMS, _FAILED_OF = 50, 20, 100
_SPAN_MS = 30 * 86_400_000
"""They were created within the last 30 days."""
_PAGES, _SEARCHES = 100, 10
"""So many pages are asked for; of searches for a text less, as each takes a while."""
_DEPTHS = {"first": (0.0, 0.0), "anywhere": (0.0, 1.0), "last": (0.999, 1.0)}
"""How far down a page begins, as a share of all executions."""
_FILTERS: dict[str, list[tuple[str, str]]] = {
    "everything": [],
    "status, most of them": [("status", "COMPLETED")],
    "status, one in a hundred": [("status", "FAILED")],
    "name, one in fifty": [("name", "flow-07")],
    "label, one in twenty": [("label", "team=t03")],
    "since a day ago": [("since", "1d")],
    "name, status and label": [("name", "flow-07"), ("status", "FAILED"), ("label", "team=t03")],
    "a text in names": [("q", "flow-07")],
    "a text that nothing has": [("q", "nothing like this")],
}


@dataclass(frozen=True)
class Ended:
    """The executions that were written: their moments are `step` ms apart, the newest at `newest`."""

    number: int
    newest: int

    @property
    def step(self) -> float:
        """Milliseconds from one to the next."""
        return _SPAN_MS / self.number

    def moment(self, n: int) -> int:
        """When the n-th newest was created, Unix ms."""
        return self.newest - round(n * self.step)

    def cursor(self, share: float) -> str:
        """That of a page which begins so far down."""
        moment = self.moment(round(share * (self.number - 1)))
        return f"{moment}-{ids.new_execution_id(0, moment)}"

    def write(self, port: int, namespace: str) -> None:
        """Writes what lists read of an execution: its hash, and its places in the indexes."""
        kinds = [(_kind(namespace, p, fails=False), _kind(namespace, p, fails=True)) for p in range(PARTITIONS)]
        write(port, self._commands(kinds))

    def _commands(self, kinds: list[tuple[Template, Template]]) -> Iterator[bytes]:
        for n in range(self.number):
            place, moment = n % PARTITIONS, self.moment(n)
            kind = kinds[place][random.randrange(_FAILED_OF) == 0]
            one = kind.at(ids.new_execution_id(place, moment), moment)
            name, team = b"flow-%02d" % random.randrange(_NAMES), b"t%02d" % random.randrange(_TEAMS)
            yield one.replace(b"flow-xx", name).replace(b"txx", team)


def _kind(namespace: str, partition: int, *, fails: bool) -> Template:
    document = {"name": "flow-xx", "labels": {"team": "txx"}, "nodes": {"a": {"task": "core.noop"}}}
    error = wire.Failure(type="Fatal", message="nothing was ordered", fatal=True)
    answer: dict[str, Any] = {"status": "FAILED", "error": error} if fails else {"output": b"null"}
    kept = (f"{namespace}:{{{partition}}}:x:", f"{namespace}:{{{partition}}}:ix:")
    return template(
        namespace,
        partition,
        document,
        lambda _: answer,
        keep=lambda key: key.startswith(kept),
    )


async def table(quick: bool) -> list[tuple[str, ...]]:
    """Lines: the filter, then p50 and p99 ms of the first page, pages anywhere, and the last ones."""
    ended = Ended(20_000 if quick else 1_000_000, time.time_ns() // 1_000_000)

    async def prepare(port: int, namespace: str) -> None:
        await asyncio.to_thread(ended.write, port, namespace)

    lines: list[tuple[str, ...]] = [("list of", *(f"{depth}: p50 / p99 ms" for depth in _DEPTHS))]
    async with scene(Size(workers=0), prepare=prepare) as here:
        for name, filters in _FILTERS.items():
            cells = []
            number = _SEARCHES if quick or any(field == "q" for field, _ in filters) else _PAGES
            for low, high in _DEPTHS.values():
                shares = [random.uniform(low, high) for _ in range(number)]
                cells.append(await _pages(here.cluster.port, filters, [ended.cursor(s) if s else None for s in shares]))
            lines.append((name, *cells))
        used = (await here.redis.info("memory"))["used_memory"]
        lines.append((f"bytes of Redis for each of {ended.number:,}", f"{used / ended.number:,.0f}", "", ""))
    return lines


async def _pages(port: int, filters: list[tuple[str, str]], cursors: list[str | None]) -> str:
    """Asks for pages one after the other."""
    taken = []
    for cursor in cursors:
        query = urlencode([*filters, *([("cursor", cursor)] if cursor else [])])
        begun = time.perf_counter()
        (answer,) = await ask(port, [request("GET", f"/workflows?{query}")], 1)
        taken.append((time.perf_counter() - begun) * 1000)
        answer.json()
    p99 = sorted(taken)[min(len(taken) - 1, round(0.99 * len(taken)))]
    return f"{statistics.median(taken):.1f} / {p99:.1f}"
