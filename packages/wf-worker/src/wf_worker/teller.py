"""Tells the supervisor what attempts say while they run: heartbeats with progress, log lines, prints."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import structlog

from wf_core.failures import clean
from wf_worker.frames import News, Run
from wf_worker.tails import TAIL_BYTES

_PAUSE = 0.02
"""Seconds between two tellings: a task may call `ctx.heartbeat` in its innermost loop."""
_HIDDEN = frozenset(
    {"event", "execution", "node", "attempt", "worker", "service", "level", "logger", "timestamp", "exc_info"}
)
"""Fields of a log event that every line of an attempt would repeat, or that are shown apart."""

_Key = tuple[Any, Any, Any]
_NOBODY = (None, None, None)


@dataclass(slots=True)
class _Untold:
    alive: bool = False
    progress: bytes | None = None
    said: str = ""


class Teller:
    """Gathers what attempts say and sends it soon, from a thread of its own: no task waits for the supervisor.

    Who says something is known by the execution, node and attempt in the log event or in the context (structlog's
    context variables). `alone`: at most one attempt runs here, so that what comes from nobody's context is its own.
    `flush` sends what others left to be sent together, when somebody asked for it with `soon`.
    """

    def __init__(self, send: Callable[[News], None], *, alone: bool, flush: Callable[[], None] = lambda: None) -> None:
        self._send = send
        self._flush_others = flush
        self._alone = alone
        self._runs: dict[_Key, int] = {}
        self._untold: dict[int, _Untold] = {}
        self._some = threading.Event()
        self._lock = threading.RLock()  # a signal handler may print in the middle of a print
        self._sending = threading.Lock()  # keeps the order; nothing that a task's code may call takes it

    def begin(self, run: Run) -> None:
        """An attempt begins."""
        with self._lock:
            self._runs[run.execution, run.node, run.attempt] = run.id

    def end(self, run: Run, *, tell: bool) -> None:
        """An attempt ends; `tell` sends what it has said until now, otherwise that is forgotten."""
        if tell:
            self._flush(run.id)
        with self._lock:
            self._runs.pop((run.execution, run.node, run.attempt), None)
            self._untold.pop(run.id, None)

    def alive(self, run_id: int, progress: bytes | None) -> None:
        """The attempt called `ctx.heartbeat`; `progress` in JSON bytes, None leaves what it said before."""
        with self._lock:
            untold = self._untold.setdefault(run_id, _Untold())
            untold.alive = True
            if progress is not None:
                untold.progress = progress
        self.soon()

    def said(self, fields: Mapping[str, Any], text: str) -> None:
        """Someone logged or printed `text`; `fields` may say who. What no attempt said is not told."""
        with self._lock:
            run_id = self._who(fields)
            if run_id is None:
                return
            untold = self._untold.setdefault(run_id, _Untold())
            untold.said = (untold.said + text)[-TAIL_BYTES:]
        self.soon()

    def soon(self) -> None:
        """Asks the teller's thread to send what there is, within some 20 ms, whatever the loop does meanwhile."""
        if not self._some.is_set():
            self._some.set()

    def serve(self) -> None:
        """Tells for ever; for a thread of its own."""
        while True:
            self._some.wait()
            self._some.clear()
            self._flush_others()
            with self._lock:
                ready = list(self._untold)
            for run_id in ready:
                self._flush(run_id)
            time.sleep(_PAUSE)

    def _who(self, fields: Mapping[str, Any]) -> int | None:
        key = (fields.get("execution"), fields.get("node"), fields.get("attempt"))
        if key == _NOBODY and self._alone:
            return next(iter(self._runs.values()), None)
        return self._runs.get(key)

    def _flush(self, run_id: int) -> None:
        with self._sending:
            with self._lock:
                untold = self._untold.pop(run_id, None)
            if untold is not None:
                self._send(
                    News(id=run_id, alive=untold.alive, progress=untold.progress, said=clean(untold.said)),
                )


class TailHandler(logging.Handler):
    """Tells each record that is logged, by `ctx.log` or by `logging`."""

    def __init__(self, teller: Teller) -> None:
        super().__init__()
        self._teller = teller

    def emit(self, record: logging.LogRecord) -> None:
        """Tells a record. Never raises. Called by `logging`."""
        try:
            event = record.msg if isinstance(record.msg, dict) else None
            fields = structlog.contextvars.get_contextvars() if event is None else event
            self._teller.said(fields, self._line(record, event))
        except Exception:  # noqa: BLE001 - as every handler: what cannot be shown must not fail the task
            self.handleError(record)

    def _line(self, record: logging.LogRecord, event: dict[str, Any] | None) -> str:
        when = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        line = f"{when} {record.levelname} {record.getMessage() if event is None else _event(event)}\n"
        error = record.exc_info if event is None else event.get("exc_info")
        return f"{line}{_traceback(error)}\n" if error else line


def _event(event: Mapping[str, Any]) -> str:
    fields = [f"{name}={value!r}" for name, value in event.items() if name not in _HIDDEN and not name.startswith("_")]
    return " ".join([str(event.get("event", "")), *fields])


def _traceback(error: Any) -> str:
    if isinstance(error, BaseException):
        error = (type(error), error, error.__traceback__)
    elif not isinstance(error, tuple):
        error = sys.exc_info()
    return logging.Formatter().formatException(error)


class _Text(Protocol):
    def write(self, text: str) -> int: ...


class Tee:
    """A text stream, `sys.stdout` or `sys.stderr`, that also tells what is written to it."""

    def __init__(self, stream: _Text, teller: Teller) -> None:
        self._stream = stream
        self._teller = teller

    def write(self, text: str) -> int:
        """Writes, then tells."""
        count = self._stream.write(text)
        self._teller.said(structlog.contextvars.get_contextvars(), text)
        return count

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes and tells one after another."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def capture(teller: Teller) -> None:
    """Tells from now on what this process logs and prints. Log lines that go to stderr are told once, as log lines."""
    logging.getLogger().addHandler(TailHandler(teller))
    with contextlib.suppress(AttributeError):  # a process may have no stdout
        sys.stdout, sys.stderr = cast("Any", Tee(sys.stdout, teller)), cast("Any", Tee(sys.stderr, teller))
    threading.Thread(target=teller.serve, name="teller", daemon=True).start()
