"""What an event costs as things grow, how long a take-over lasts, and how quick lists are when very much is there.

Prints tables in Markdown; `--write` puts them and the plots into docs/performance.md. About eight minutes, with
`--quick` (smaller sizes) two; `--part` measures some parts only.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench import document
from bench.growth import listing, recovery
from bench.growth.curves import PARTS
from bench.growth.report import draw, markdown, table_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"
TABLES: dict[str, Callable[[bool], Awaitable[list[tuple[str, ...]]]]] = {
    "recovery": recovery.table,
    "listing": listing.table,
}


async def measure(name: str, *, quick: bool, write: bool) -> str:
    """The Markdown of one part. Draws its plot when it is to be written."""
    if name in TABLES:
        return markdown(await TABLES[name](quick))
    part = PARTS[name]
    curve = await part.measure(quick)
    plot = DOCUMENT.with_suffix("") / f"growth-{name}.svg"
    if write:
        draw(part, curve, plot)
    return f"{table_of(part, curve)}\n\n![]({plot.parent.name}/{plot.name})"


def main() -> None:
    """Parses arguments, measures, prints, writes."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--part", action="append", choices=(*PARTS, *TABLES), help="only this one; repeatable")
    parser.add_argument("--quick", action="store_true", help="smaller sizes")
    parser.add_argument("--write", action="store_true", help="put tables and plots into docs/performance.md")
    asked = parser.parse_args()
    for name in asked.part or (*PARTS, *TABLES):
        begun = time.monotonic()
        found = asyncio.run(measure(name, quick=asked.quick, write=asked.write))
        print(f"## {name}\n\n{found}\n", flush=True)
        print(f"{name} took {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        if asked.write:
            document.write(DOCUMENT, found, f"growth {name}")


if __name__ == "__main__":
    main()
