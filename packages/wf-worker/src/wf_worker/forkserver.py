"""The process that children are forked from, `python -m wf_worker.forkserver CONTROL LIFELINE`.

It has imported all that a child needs before any user code, so that a child is there within milliseconds and shares
those pages with it. It has one thread, no loop and no user code: a fork of it inherits no lock that somebody holds.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import selectors
import signal
import socket
import struct
import sys
from pathlib import Path

from wf_core.collector import collect_as_usual, set_apart
from wf_core.lean import import_structlog
from wf_worker import lifeline

REPLY = struct.Struct(">cii")
"""`FORKED`, the pid or minus the error number, 0; or `ENDED`, the pid, the exit code (negative: a signal)."""
FORKED, ENDED = b"f", b"e"
KINDS = {b"r": "runner", b"p": "process"}
"""What a request says, one byte that comes with the child's two sockets."""
_SOCKETS = 2


def main(control_fd: int, lifeline_fd: int) -> None:
    """Forks a child for each request until the supervisor goes. Does not return."""
    try:
        lifeline.tie(lifeline_fd)
        _serve(socket.socket(fileno=control_fd), lifeline_fd)
    finally:
        lifeline.end_group()


def import_child() -> None:
    """Imports what a child needs. A supervisor does it before it forks, so that the pages are everybody's."""
    import_structlog()
    importlib.import_module("wf_worker.child")


def settle(control_fd: int, lifeline_fd: int) -> None:
    """Makes a fork of a supervisor what a program of its own would be: session, files, streams, path."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for fd in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
        if fd > 2 and fd not in (control_fd, lifeline_fd):  # noqa: PLR2004 - the last of the three standard ones
            with contextlib.suppress(OSError):
                os.close(fd)
    for name, fd in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        # Unbuffered: what a task prints must be out when its process is killed.
        file = io.FileIO(fd, "w", closefd=False)
        stream = io.TextIOWrapper(file, encoding=old.encoding, errors=old.errors, write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stdin = open(0)  # noqa: SIM115 - for the life of the process
    if not sys.flags.safe_path and sys.path:
        del sys.path[0]  # where the command lies, or the current directory: no place to import tasks from
    collect_as_usual()


def _serve(control: socket.socket, lifeline_fd: int) -> None:
    import_child()
    sys.modules["__main__"] = sys.modules["wf_worker.child"]
    _name("wf forkserver")
    set_apart()  # a collection in a child would otherwise touch, and so copy, each page
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(reading, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if reading in ready:
                reading.recv(4096)
                _tell_ended(control)
            if control in ready:
                said, fds, _, _ = socket.recv_fds(control, 1, _SOCKETS)
                if not said:
                    return
                _fork(control, KINDS[said], fds, lifeline_fd, (selector, reading, writing))


def _fork(control: socket.socket, kind: str, fds: list[int], lifeline_fd: int, ours: tuple[object, ...]) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        control.sendall(REPLY.pack(FORKED, -(error.errno or 1), 0))
    else:
        if not pid:
            _become(kind, fds, lifeline_fd, (control, *ours))
        control.sendall(REPLY.pack(FORKED, pid, 0))
    for fd in fds:
        os.close(fd)


def _become(kind: str, fds: list[int], lifeline_fd: int, not_ours: tuple[object, ...]) -> None:
    """The child's life; `not_ours` is closed. Does not return."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for file in not_ours:
            file.close()  # type: ignore[attr-defined]
        _name(f"wf {kind}")
        child = sys.modules["wf_worker.child"]
        sys.argv[:] = ["wf_worker.child", kind]
        child.main(kind, fds, lifeline_fd)
    except BaseException:  # noqa: BLE001 - the end of the process: nobody is left to raise to
        sys.excepthook(*sys.exc_info())
    finally:
        lifeline.end_group()


def _tell_ended(control: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            control.sendall(REPLY.pack(ENDED, pid, os.waitstatus_to_exitcode(status)))


def _name(name: str) -> None:
    """What `ps` and `top` show in place of the program's name, where the kernel lets us say so."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:  # noqa: PTH123 - no need of pathlib here
        comm.write(name)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
