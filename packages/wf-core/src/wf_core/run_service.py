"""Runs one service as a process: settings, logs, signals, exit code. API, orchestrator and worker share it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator

import structlog
from pydantic import ValidationError
from redis.exceptions import RedisError

from wf_core import failpoints
from wf_core import logging as wf_logging
from wf_core.collector import set_apart
from wf_core.errors import SetupError, UnavailableError
from wf_core.loops import new_event_loop
from wf_core.services import Service
from wf_core.settings import Settings
from wf_core.store.client import redis_errors

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_SETUP = 2
EXIT_UNAVAILABLE = 4
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger(__name__)


def run_service(factory: Callable[[Settings], Service], name: str, settings: Settings | None = None) -> int:
    """Runs `factory(settings)` until SIGTERM or SIGINT and returns the process' exit code.

    0 after a clean stop, 1 when the service failed, 2 for a setting or server that does not fit, 4 when Redis or the
    log could not be reached. The first signal drains, the second one gives up draining.
    """
    try:
        chosen = settings or Settings()
    except ValidationError as error:
        print(settings_sentence(error), file=sys.stderr)  # noqa: T201 - logging is not configured without settings
        return EXIT_SETUP
    wf_logging.configure(chosen, name)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_serve(factory, chosen, name))
    except KeyboardInterrupt:
        return EXIT_FAILED


def settings_sentence(error: ValidationError) -> str:
    """What is wrong with the `APP_*` variables, one line each, without their values (one may be a password)."""
    lines = [f"APP_{'_'.join(str(part) for part in e['loc']).upper()}: {e['msg']}" for e in error.errors()]
    return "\n".join(("wrong settings:", *lines))


async def _serve(factory: Callable[[Settings], Service], settings: Settings, name: str) -> int:
    stop = asyncio.Event()
    current = asyncio.current_task()
    assert current is not None  # noqa: S101 - a coroutine of a runner always is a task
    with _signals(stop, current):
        try:
            failpoints.activate(os.environ)
            service = factory(settings)
            if await _started(service, stop):
                set_apart()
                log.info("started", service=name)
                await service.run(stop)
            log.info("stopped", service=name)
        except SetupError as error:
            log.error("cannot run", service=name, error=str(error))
            return EXIT_SETUP
        except UnavailableError as error:
            log.error("cannot reach its servers", service=name, error=str(error))
            return EXIT_UNAVAILABLE
        except asyncio.CancelledError:
            log.error("stopped by a second signal before it was drained", service=name)
            return EXIT_FAILED
        except Exception:
            log.exception("failed", service=name)
            return EXIT_FAILED
        return EXIT_OK


async def _started(service: Service, stop: asyncio.Event) -> bool:
    """Starts the service; False when a signal came first."""
    starting = asyncio.ensure_future(service.start())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
        return starting.done()
    except redis_errors as error:
        if not isinstance(error, RedisError):  # an OSError that is not Redis': a port that is taken
            raise
        raise UnavailableError(f"Redis went away during the start: {error}") from error
    finally:
        for task in (starting, stopping):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(starting, stopping, return_exceptions=True)


@contextlib.contextmanager
def _signals(stop: asyncio.Event, task: asyncio.Task[int]) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def received() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, received)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
