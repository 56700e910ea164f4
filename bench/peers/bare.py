"""Bare Python without any engine: what the machine itself needs for the same computation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from common import fibonacci, main, measure_all


def fib(n: int, count: int) -> float:
    """Seconds for `count` times the n-th Fibonacci number."""
    start = time.perf_counter()
    for _ in range(count):
        fibonacci(n)
    return time.perf_counter() - start


def measure(_folder: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """The two computations."""
    return measure_all({"fib10": lambda n: fib(10, n), "fib33": lambda n: fib(33, n)}, sizes)


def cold(_folder: Path) -> None:
    """An interpreter that says something."""
    print("done")


if __name__ == "__main__":
    main(measure, cold)
