"""Tasks that the workloads use besides the built-in ones."""

from __future__ import annotations

import time

from wf_core import task


def fibonacci(n: int) -> int:
    """The n-th Fibonacci number, slowly."""
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)  # noqa: PLR2004 - how it is defined


@task("bench.fib", executor="process")
def fib(n: int) -> int:
    """Computes in a process, as work that needs a core should."""
    return fibonacci(n)


@task("bench.now")
async def now() -> float:
    """Seconds since the epoch when the task's code began."""
    return time.time()
