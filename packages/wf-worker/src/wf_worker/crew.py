"""Threads for plain tasks, and for what must not wait for the loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import structlog

from wf_worker import lifeline
from wf_worker.frames import ToChild
from wf_worker.link import Link

log = structlog.get_logger(__name__)

Work = Callable[[], None]


class Crew:
    """Threads of which one reads the link and the others wait for their turn to read, or run tasks.

    The one that reads an attempt lets the next one read and runs it itself, so that no attempt waits until a thread
    wakes up, and there always is one that reads. `take` gets each frame; what it returns is run.
    """

    def __init__(self, link: Link, take: Callable[[ToChild], Work | None]) -> None:
        self._link = link
        self._take = take
        self._reading = threading.Lock()
        self._came: deque[ToChild] = deque()
        self._counting = threading.Lock()
        self._threads = 0
        self._free = 0

    def start(self) -> None:
        """Starts the first thread; others follow when all are busy."""
        with self._counting:
            self._enlist()

    def run(self, work: Work) -> None:
        """Runs work that came on another way in a thread of its own."""
        threading.Thread(target=work, name="task", daemon=True).start()

    def _enlist(self) -> None:
        threading.Thread(target=self._serve, name=f"task_{self._threads}", daemon=True).start()
        self._threads += 1
        self._free += 1

    def _serve(self) -> None:
        try:
            while True:
                work = self._next()
                work()
                with self._counting:
                    self._free += 1
        except EOFError:
            pass
        except Exception:
            log.exception("the child cannot read its supervisor")
        lifeline.end_group()

    def _next(self) -> Work:
        """Reads until there is something to run. Raises EOFError when the supervisor is gone."""
        with self._reading:
            while True:
                while not self._came:
                    self._came.extend(self._link.receive())
                work = self._take(self._came.popleft())
                if work is not None:
                    with self._counting:
                        self._free -= 1
                        if not self._free:
                            self._enlist()
                    return work
