"""Users and the API process that serves them. A user repeats a request under the same key until it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simulation.jobs import Deed, Job
from simulation.patches import STAGE
from wf_api import orders, verbs
from wf_api.accepting import accepting
from wf_api.cached import Cached
from wf_api.context import ApiContext
from wf_api.control import Answer, nothing, order
from wf_api.creation import create
from wf_api.heads import Head, read_head
from wf_api.idempotency import Idempotency
from wf_api.positions import Positions
from wf_api.problems import ProblemError
from wf_core.broker.open import ensure_installation
from wf_core.catalogue import Catalogue
from wf_core.errors import UnavailableError
from wf_core.store.client import redis_errors
from wf_core.store.scripts import Scripts

if TYPE_CHECKING:
    from simulation.world import World

_AWAY = (*redis_errors, UnavailableError, TimeoutError)
_REFUSED = ("wrong-state", "unknown-node")
"""It was started before, or has ended before it was cancelled; the approval does not ask (yet)."""
_ANSWER, _PAYLOAD = 5, 7
_REASON = "simulated"


class Api:
    """An API process as far as commands go: what its routes call."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def run(self) -> None:
        """Serves every user at once until all are done."""
        context = await self._context()
        try:
            users = (User(self._world, context, job) for job in self._world.jobs if not job.is_done)
            await asyncio.gather(*(user.live() for user in users))
        finally:
            await context.positions.close()
            await context.accepting.close()

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
            accepting=accepting(scripts),
            catalogue=Cached(_no_tasks, 1.0),
            readiness=Cached(_nothing, 1.0),
        )


class User:
    """One who wants one execution. What was answered is kept in the job, for the next API process."""

    def __init__(self, world: World, context: ApiContext, job: Job) -> None:
        self._world = world
        self._context = context
        self._job = job

    async def live(self) -> None:
        """Creates the execution, starts it, does what is to be done with it, and sees to it that it ends."""
        job, world = self._job, self._world
        if job.may_give_up and job.tries and world.faults.active and world.random.random() < 0.5:
            job.given_up = True  # the process died before it answered, and the user does not come back
            return
        job.tries += 1
        await asyncio.sleep(max(0.0, job.at - world.loop.now))
        await self._start()
        while not job.ended:
            for deed in job.deeds:
                await self._do(deed)
            job.ended = await self._has_ended()
            await asyncio.sleep(0.5 + world.random.random())

    async def _start(self) -> None:
        job, key = self._job, Idempotency(self._job.key)
        submission = job.story.submission
        if not job.triggers:
            submission = replace(submission, trigger=False)
        if not job.created:
            await self._ask(lambda: create(self._context, submission, key, wait=True))
            job.created, job.started = True, job.triggers
        for deed in job.deeds:
            if deed.early:
                await self._do(deed)
        if not job.started:
            await self._order(verbs.TRIGGER, job.key, None, self._input)
            job.started = True

    async def _input(self, head: Head) -> dict[str, Any]:
        return await orders.trigger(self._context, self._job.execution_id, head, None)

    async def _do(self, deed: Deed) -> None:
        if deed.done:
            return
        await asyncio.sleep(deed.after)
        for _ in range(deed.times):
            deed.refused = await self._command(deed, deed.key) is None
        deed.done = True

    async def _command(self, deed: Deed, key: str) -> Answer | None:
        match deed.verb:
            case "cancel":
                return await self._order(verbs.CANCEL, key, _REASON, _reason)
            case "pause":
                return await self._order(verbs.PAUSE, key, _REASON, _reason)
            case "resume":
                return await self._order(verbs.RESUME, key, None, nothing)
        return await self._order(
            verbs.SIGNAL, key, [deed.name, _PAYLOAD], lambda _: orders.signal(self._context, deed.name, _PAYLOAD)
        )

    # --- until it has ended

    async def _has_ended(self) -> bool:
        """Looks at the execution, and does what it waits for. Whether it has ended for good."""
        job, kind = self._job, self._world.kind
        head = await self._ask(lambda: read_head(self._context.redis, self._world.namespace, job.execution_id))
        calm = not self._world.faults.active
        if head is None:  # lost for good
            return True
        has_ended = head.status in (verbs.COMPLETED, verbs.FAILED, verbs.CANCELLED)
        if job.retrying or (has_ended and job.retried < job.retries):
            await self._retry()
            return False
        if has_ended:
            return calm or not kind.loses_log
        for node in job.story.approvals:
            await self._answer(node, again=calm and kind.loses_log)
        if calm:
            await self._say_again(head)
        return False

    async def _retry(self) -> None:
        """Once more, from what failed; after that it may wait for the same signals again."""
        job, number = self._job, self._job.retried
        job.retrying = True  # whichever process gets the answer goes on from there
        nodes = [job.story.first] if job.from_first else []
        verb = verbs.RETRY_FROM if nodes else verbs.RETRY

        async def fields(head: Head) -> dict[str, Any]:
            return await orders.retry(self._context, job.execution_id, head, nodes, None)

        if await self._order(verb, f"{job.key}-retry{number}", [nodes, None], fields) is not None:
            self._world.counts["retried"] += 1
            job.deeds += [Deed("signal", f"{job.key}-{name}-after{number}", 0.0, name) for name in job.story.signals]
        job.retried += 1
        job.retrying = False

    async def _answer(self, node: str, *, again: bool) -> None:
        """Answers an approval, once for each time that it asks."""
        job = self._job
        asking = job.asks[node]

        async def fields(head: Head) -> dict[str, Any]:
            found = await orders.answer(self._context, job.execution_id, head, node, _ANSWER)
            if found["attempt"] == asking.attempt and asking.answers and not again:
                raise ProblemError("wrong-state", "it was answered")
            asking.attempt = found["attempt"]
            return found

        key = f"{job.key}-{node}-{asking.answers}"
        if await self._order(verbs.ANSWER, key, [node, _ANSWER], fields) is not None:
            self._world.counts["answered"] += 1
            asking.answers += 1

    async def _say_again(self, head: Head) -> None:
        """What Redis refused that had gone back; and all that the log has lost, if it has.

        And `resume`, while the execution is paused: it may have ended before its `pause` was folded, and a `retry` then
        finds that record still under way.
        """
        job, lost = self._job, self._world.kind.loses_log
        job.repeated += 1
        if lost and head.status == verbs.PENDING:
            await self._order(verbs.TRIGGER, f"{job.key}-again{job.repeated}", None, self._input)
        for deed in job.deeds:
            is_paused = deed.verb == "resume" and head.status == verbs.PAUSED
            refused = deed.refused and self._world.kind.loses_state
            if deed.verb in ("resume", "signal") and (lost or is_paused or refused):
                key = f"{deed.key}-again{job.repeated}" if lost or is_paused else deed.key
                deed.refused = await self._command(deed, key) is None

    # --- requests

    async def _order(
        self, verb: verbs.Verb, key: str, body: object, fields: Callable[[Head], Awaitable[dict[str, Any]]]
    ) -> Answer | None:
        """Sends a command until it is answered; None when it was refused."""
        execution_id, idempotency = self._job.execution_id, Idempotency(key)
        answer: Answer | None = await self._ask(
            lambda: order(self._context, verb, execution_id, body, idempotency, fields, wait=True)
        )
        return answer

    async def _ask(self, request: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            try:
                return await request()
            except ProblemError as problem:
                if problem.kind in _REFUSED:
                    return None
                forgotten = problem.kind == "unknown-execution" and self._world.kind.loses_state
                if forgotten and self._world.kind.loses_log and not self._world.faults.active:
                    return None  # Redis and the log both lost it
                if not forgotten and problem.kind != "unavailable":
                    raise
                self._job.promised = self._job.promised or "execution_id" in problem.members
            except _AWAY:
                pass
            await asyncio.sleep(0.2 + self._world.random.random())


async def _reason(_head: Head) -> dict[str, Any]:
    return {"reason": _REASON}


async def _nothing() -> Any:
    return {}


async def _no_tasks() -> Catalogue:
    return Catalogue()
