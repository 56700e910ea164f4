"""Ties a child's whole process group to the life of its supervisor."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tie(lifeline: int) -> None:
    """Asks the kernel to kill our process group when the other end of the pipe `lifeline` closes.

    The supervisor alone holds that end, so its death, however it comes, also ends what a task started, and needs none
    of our code to run (a task may hold the interpreter's lock). Where the kernel has no signal-driven pipes, our own
    process is killed with its parent; and in any case who reads frames ends the group when its socket closes.
    """
    lifeline = _own(lifeline)
    os.set_inheritable(lifeline, False)
    try:
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    except (AttributeError, OSError):
        _die_with_parent()


def _own(lifeline: int) -> int:
    """The same pipe, opened anew: of an inherited descriptor only the last process that asked would be told."""
    with contextlib.suppress(OSError):
        return os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK)
    return lifeline


def end_group() -> None:
    """Kills our process group, ourselves included. Does not return."""
    with contextlib.suppress(OSError):
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
