"""The entry points of our groups, read once for all of them: that takes milliseconds, and a process asks often."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

_OURS = "wf."


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry point and who ships it; `distribution` and `version` are "" when nobody says so."""

    point: importlib.metadata.EntryPoint
    distribution: str
    version: str


def entries(group: str) -> Sequence[Entry]:
    """The entry points of `group`, which begins with `wf.`, in the order in which they are found. Imports none."""
    return _read(_state()).get(group, ())


def _state() -> tuple[tuple[str, int], ...]:
    """What changes when a package is installed or removed: the places of packages, and when each was changed."""
    return tuple((place, _changed(place)) for place in sys.path)


def _changed(place: str) -> int:
    try:
        return os.stat(place or ".").st_mtime_ns  # noqa: PTH116 - a dozen for each question: no need of Path here
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _read(state: tuple[tuple[str, int], ...]) -> Mapping[str, Sequence[Entry]]:  # noqa: ARG001 - the key of the cache
    found: defaultdict[str, list[Entry]] = defaultdict(list)
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        if f"[{_OURS}" not in (distribution.read_text("entry_points.txt") or ""):
            continue
        said = distribution.metadata  # one look: each parses the whole file
        name, version = said["Name"] or "", said["Version"] or ""
        if name not in seen:  # the first place that has it is the one that is imported
            seen.add(name)
            for point in distribution.entry_points:
                found[point.group].append(Entry(point, name, version))
    return found
