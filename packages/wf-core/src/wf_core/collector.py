"""The garbage collector, which finds little here: records, states and requests refer to each other in no circle."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_USUAL = gc.get_threshold()
_RARE = (20_000, 10, 10)
"""Objects made and not freed before the youngest are looked at, and after how many looks those that stayed are, too.

What became garbage in a circle after it was looked at twice stays for two million objects at most.
"""


def collect_rarely() -> None:
    """For a process of ours: the default looks at all objects so often that the longest pauses are its own."""
    gc.set_threshold(*_RARE)


def collect_as_usual() -> None:
    """For a process that runs others' code."""
    gc.set_threshold(*_USUAL)


def set_apart() -> None:
    """What a process has now it keeps: its modules, classes and connections are never looked at again."""
    gc.freeze()


@contextmanager
def collector_paused() -> Iterator[None]:
    """No collection inside: reading a document of 20,000 nodes otherwise spends half its time looking for garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
