"""What happened, with the time: faults, deaths, restarts, violations."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TextIO


class Journal:
    """Lines with the seconds since the start, in a file and, with `echo`, on the terminal."""

    def __init__(self, path: Path, *, echo: TextIO | None = None) -> None:
        self.faults: Counter[str] = Counter()
        self.deaths: Counter[str] = Counter()
        self.violations: list[str] = []
        self.notes: Counter[str] = Counter()
        """What is worth telling and no violation."""
        self.began = time.time()
        self.disturbed = 0.0
        """When a server or a link was last hurt or healed, in seconds of the monotonic clock."""
        self.path = path
        self._file = path.open("a", buffering=1)
        self._echo = echo

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.time() - self.began

    def say(self, text: str) -> None:
        """Writes a line."""
        line = f"{self.seconds:8.2f}  {text}"
        self._file.write(line + "\n")
        if self._echo is not None:
            self._echo.write(line + "\n")
            self._echo.flush()

    def fault(self, kind: str, text: str) -> None:
        """A fault was injected."""
        self.faults[kind] += 1
        self.say(f"fault {kind}: {text}")

    def violation(self, text: str) -> None:
        """The engine broke a promise."""
        self.violations.append(text)
        self.say(f"VIOLATION {text}")

    def note(self, what: str) -> None:
        """Counts what is worth telling and no violation."""
        self.notes[what] += 1

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
