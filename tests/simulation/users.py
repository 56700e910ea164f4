"""Users and the API process that serves them. A user repeats a request under the same key until it is answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from simulation.documents import SUBMISSIONS
from simulation.patches import STAGE
from wf_api.cached import Cached
from wf_api.context import ApiContext
from wf_api.control import cancel, trigger
from wf_api.creation import create
from wf_api.idempotency import Idempotency
from wf_api.positions import Positions
from wf_api.problems import ProblemError
from wf_core.broker.open import ensure_installation
from wf_core.errors import UnavailableError
from wf_core.store.client import redis_errors
from wf_core.store.scripts import Scripts

if TYPE_CHECKING:
    from simulation.world import World
    from wf_api.intake import Submission

_AWAY = (*redis_errors, UnavailableError, TimeoutError)


@dataclass
class Job:
    """One execution that somebody wants. `started`, `cancelled`: it was answered so."""

    key: str
    execution_id: str
    submission: Submission = field(repr=False)
    at: float
    cancel_after: float | None
    triggers: bool
    created: bool = False
    started: bool = False
    cancelled: bool = False
    tries: int = 0
    given_up: bool = False
    promised: bool = False
    """The answer was that it will be carried out, once the log is back."""

    @property
    def is_done(self) -> bool:
        """Whether the user got what they wanted."""
        return self.given_up or (self.started and (self.cancel_after is None or self.cancelled))


def jobs(world: World, count: int, seconds: float) -> list[Job]:
    """The executions of a run, spread over the first seconds of the storm."""
    draw = world.random.random
    return [
        Job(
            key=(key := f"{world.name}-{world.seed}-{n}"),
            execution_id=Idempotency(key).execution_id(world.settings.partitions, 0),
            submission=SUBMISSIONS[world.random.randrange(len(SUBMISSIONS))],
            at=draw() * seconds,
            cancel_after=draw() * 4 if draw() < 0.15 else None,
            triggers=draw() < 0.7,
        )
        for n in range(count)
    ]


class Api:
    """An API process as far as commands go: what its routes call."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def run(self) -> None:
        """Serves every user at once until all are done."""
        context = await self._context()
        try:
            await asyncio.gather(*(self._serve(context, job) for job in self._world.jobs if not job.is_done))
        finally:
            await context.positions.close()

    async def _context(self) -> ApiContext:
        world, redis, log = self._world, STAGE.connect(), STAGE.open_log()
        scripts, clock = Scripts(redis), STAGE.clock()  # type: ignore[arg-type]  # speaks as much of redis-py as is used
        await clock.sync(redis)  # type: ignore[arg-type]
        installation = await ensure_installation(log, scripts, world.settings)
        return ApiContext(
            settings=world.settings,
            redis=redis,  # type: ignore[arg-type]
            log=log,
            scripts=scripts,
            clock=clock,
            partitions=installation.partitions,
            policies=None,
            positions=Positions(redis, world.namespace),  # type: ignore[arg-type]
            catalogue=Cached(_nothing, 1.0),
            readiness=Cached(_nothing, 1.0),
        )

    async def _serve(self, context: ApiContext, job: Job) -> None:
        world = self._world
        if job.tries and world.faults.active and world.random.random() < 0.5:
            job.given_up = True  # the process died before it answered, and the user does not come back
            return
        job.tries += 1
        await asyncio.sleep(max(0.0, job.at - world.loop.now))
        key = Idempotency(job.key)
        submission = job.submission
        if not job.triggers:
            submission = replace(submission, trigger=False)
        if not job.created:
            await self._ask(job, lambda: create(context, submission, key, wait=True))
            job.created, job.started = True, job.triggers
        if not job.started:
            await self._ask(job, lambda: trigger(context, job.execution_id, None, key, wait=True))
            job.started = True
        if job.cancel_after is not None and not job.cancelled:
            await asyncio.sleep(job.cancel_after)
            await self._ask(job, lambda: cancel(context, job.execution_id, "simulated", key, wait=True))
            job.cancelled = True

    async def _ask(self, job: Job, request: Any) -> Any:
        while True:
            try:
                return await request()
            except ProblemError as problem:
                if problem.kind == "wrong-state":  # started before, or ended before it was cancelled
                    return None
                forgotten = problem.kind == "unknown-execution" and self._world.kind.loses_state
                if forgotten and self._world.kind.loses_log and not self._world.faults.active:
                    return None  # Redis and the log both lost it
                if not forgotten and problem.kind != "unavailable":
                    raise
                job.promised = job.promised or "execution_id" in problem.members
            except _AWAY:
                pass
            await asyncio.sleep(0.2 + self._world.random.random())


async def _nothing() -> Any:
    return {}
