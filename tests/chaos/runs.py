"""What the tasks wrote down: how often each attempt's code really ran, and when nothing ran at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path


@dataclass
class Runs:
    """Times of starts by attempt (`execution/node/attempt`), and the times of all starts and ends, in Unix seconds."""

    starts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    times: list[float] = field(default_factory=list)

    @property
    def doubled(self) -> dict[str, list[float]]:
        """Attempts whose code ran more than once, and when."""
        return {token: times for token, times in self.starts.items() if len(times) > 1}

    @property
    def extra(self) -> int:
        """Runs beyond the first of each attempt."""
        return sum(map(len, self.starts.values())) - len(self.starts)

    def longest_silence(self, spans: Sequence[tuple[float, float]]) -> tuple[float, float]:
        """Longest time without a start or an end while work was open, and when it began. `spans` are sorted."""
        longest, at = 0.0, 0.0
        marks = sorted(self.times)
        for begin, end in _merged(spans):
            inner = [begin, *(t for t in marks if begin < t < end), end]
            for before, following in pairwise(inner):
                if following - before > longest:
                    longest, at = following - before, before
        return longest, at


def read_runs(file: Path) -> Runs:
    """Reads the file that the tasks append to; a file that is not there is no runs."""
    runs = Runs()
    if file.exists():
        for line in file.read_text().splitlines():
            what, moment, _pid, token = line.split(" ", 3)
            runs.times.append(float(moment))
            if what == "start":
                runs.starts[token].append(float(moment))
    return runs


def _merged(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for begin, end in spans:
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
