"""Stands in for a worker's children: attempts take a random time, and each start of a token is counted."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from simulation.loop import PROCESS
from wf_core.catalogue import Catalogue, TaskInfo
from wf_core.states import AttemptStatus
from wf_core.wire import Failure, TaskMessage
from wf_worker.attempts import Attempt, Ended

if TYPE_CHECKING:
    from simulation.world import World

_CATALOGUE = Catalogue(tasks={"t": TaskInfo(name="t")})
_FOR_EVER = 10**9
_PROGRESS = b'{"done":1}'


class _Runners:
    async def keep(self) -> None:
        """Nothing comes and goes."""
        await asyncio.get_running_loop().create_future()


class Executors:
    """What `wf_worker.executors.Executors` is to the supervisor, without children."""

    def __init__(
        self,
        world: World,
        configure: Any,
        now_ms: Callable[[], int],
        on_end: Callable[[Attempt, Ended], None],
        on_free: Callable[[], None],
        grace: float = 0.0,  # noqa: ARG002 - attempts end at once
        forks: object = None,  # noqa: ARG002 - there are no children
    ) -> None:
        self.configure = configure
        self.runners = _Runners()
        self.catalogue = _CATALOGUE
        self.slots = configure.slots
        self._world = world
        self._now_ms = now_ms
        self._on_end = on_end
        self._on_free = on_free
        self._attempts: dict[int, tuple[Attempt, asyncio.TimerHandle]] = {}
        self._ids = itertools.count()
        self._settled = asyncio.Event()
        self._settled.set()
        self._process = PROCESS.get()
        world.executors.append(self)

    def works_on(self, token: str) -> bool:
        """Whether a process that lives, and is not stopped, runs this attempt."""
        return not (self._process.killed or self._process.stopped) and token in self.running()

    @property
    def free(self) -> int:
        """Slots that nothing holds."""
        return self.slots - len(self._attempts)

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Ends everything."""
        for _, timer in self._attempts.values():
            timer.cancel()

    def running(self) -> list[str]:
        """Tokens whose end was not reported yet."""
        return [attempt.token for attempt, _ in self._attempts.values()]

    def runs(self, token: str) -> bool:
        """Whether the end of this token was not reported yet."""
        return token in self.running()

    def progress(self) -> dict[str, bytes]:
        """All attempts say the same."""
        return dict.fromkeys(self.running(), _PROGRESS)

    def run(self, token: str, message: TaskMessage) -> None:
        """The user's code begins."""
        self._world.attempt_begins(token, self)
        attempt = Attempt(
            id=next(self._ids),
            token=token,
            message=message,
            executor="async",
            package="",
            timeout_ms=message.timeout_ms,
            started_at=self._now_ms(),
        )
        seconds = self._world.random.choice((0.01, 0.05, 0.3, 1.5, 4.0)) * self._world.random.random()
        limit = min(message.timeout_ms or _FOR_EVER, message.heartbeat_ms or _FOR_EVER) / 1000
        finish = self._finish if seconds <= limit else self._time_is_over
        timer = asyncio.get_running_loop().call_later(min(seconds, limit), finish, attempt.id)
        self._attempts[attempt.id] = (attempt, timer)
        self._settled.clear()

    def cancel(self, token: str) -> bool:
        """It is not wanted any more."""
        found = [number for number, (attempt, _) in self._attempts.items() if attempt.token == token]
        for number in found:
            self._end(number, Ended(AttemptStatus.CANCELLED))
        return bool(found)

    async def idle(self) -> None:
        """Returns when every attempt was reported."""
        await self._settled.wait()

    def hand_back(self) -> None:
        """Ends what still runs."""
        for number in list(self._attempts):
            self._end(number, Ended(AttemptStatus.LOST, reason="drain"))

    def _finish(self, number: int) -> None:
        if self._world.faults.active and self._world.random.random() < 0.2:
            status = AttemptStatus.TIMED_OUT if self._world.random.random() < 0.3 else AttemptStatus.FAILED
            self._end(number, Ended(status, error=Failure(type="Oops", message="went wrong")))
        else:
            self._end(number, Ended(AttemptStatus.COMPLETED, output=b"1"))

    def _time_is_over(self, number: int) -> None:
        self._end(number, Ended(AttemptStatus.TIMED_OUT, error=Failure(type="TimeoutError", message="too slow")))

    def _end(self, number: int, ended: Ended) -> None:
        attempt, timer = self._attempts.pop(number)
        timer.cancel()
        self._on_end(attempt, ended)
        self._on_free()
        if not self._attempts:
            self._settled.set()
