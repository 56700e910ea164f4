"""Processes that `wf dev` and `wf run` start beside their own."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from wf_core.collector import set_apart
from wf_core.dev.redis_server import die_with_parent

STOP_SECONDS = 20.0


def start(target: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """Starts `target(says, *arguments)` as a process that ends with this one; it, and what hears what `says` is sent.

    Ctrl-C is for this process alone: who starts others tells them when to end.
    """
    # What is forked has imported already what both need, a third of its start; with threads about, that is not safe.
    alone = sys.platform == "linux" and threading.active_count() == 1
    context = multiprocessing.get_context("fork") if alone else multiprocessing.get_context("spawn")
    hears, says = context.Pipe(duplex=False)
    set_apart()
    process = context.Process(target=_run, args=(target, says, os.getpid(), *arguments))
    process.start()
    says.close()
    return process, hears


def _run(target: Callable[..., None], says: Connection, parent: int, *arguments: Any) -> None:
    os.setsid()
    die_with_parent(parent)()
    target(says, *arguments)


def stop(process: BaseProcess) -> None:
    """Asks it to end, waits, and ends it when it does not."""
    process.terminate()
    process.join(STOP_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
