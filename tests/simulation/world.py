"""One run: servers, processes and users, a storm of faults, then calm until everything has ended, and a last look."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import ResponseError

from simulation.executors import Executors
from simulation.faults import Faults
from simulation.jobs import jobs
from simulation.log import LogServer
from simulation.loop import OUTSIDE, PROCESS, Loop, Process
from simulation.mutants import NONE, Mutant
from simulation.oracle import Oracle, Violation
from simulation.patches import STAGE
from simulation.redis import RedisServer
from simulation.users import Api
from wf_core.broker import topics
from wf_core.broker.protocol import OffsetOutOfRangeError, TopicPartition
from wf_core.errors import UnavailableError
from wf_core.settings import Settings
from wf_core.states import ExecutionStatus
from wf_core.store.client import redis_errors
from wf_core.wire import Lost, Result, decode_event
from wf_orchestrator.service import OrchestratorService
from wf_worker.service import WorkerService

PARTITIONS, TASK_PARTITIONS = 2, 3
STORM_SECONDS = 15.0
CALM_SECONDS = 300.0
EXECUTIONS = 4
EPOCH = 1_700_000_000.0
TRACE = 80
_ORCHESTRATORS, _WORKERS = 2, 3
_PAUSES = (0.1, 1.0, 4.0, 9.0)
_RESTART_SECONDS = 1.5


_STEPS = ("APPLY", "CLAIM", "TRIM", "TASK_COMMIT", "CONDEMN", "ACCEPT", "ACCEPT_ALL")
_AFTER_A_STEP = 0.02


@dataclass(frozen=True)
class Kind:
    """What may happen in a world. `rates` are faults of servers per second of the storm."""

    rates: dict[str, float]
    loses_state: bool = False
    """Redis may forget; attempts may then run twice."""
    loses_log: bool = False
    """Redis is then no fold of the log any more."""
    skew: float = 0.0
    """Seconds by which the clocks of hosts are wrong at most."""
    jump: float = 0.0
    """Seconds by which Redis' own clock jumps at most when it restarts."""


_ALWAYS = {
    "a process is killed": 0.10,
    "a process is paused": 0.10,
    "a process is restarted": 0.10,
    "redis away": 0.04,
    "log away": 0.04,
    "scripts flushed": 0.04,
    "records twice": 0.03,
}
_ROLLS_BACK = {**_ALWAYS, "redis rolls back": 0.15}
WORLDS = {
    "no data lost": Kind(_ALWAYS),
    "clocks wrong": Kind({**_ALWAYS, "redis away": 0.1}, skew=300.0, jump=20.0),
    "redis rolls back": Kind(_ROLLS_BACK, loses_state=True),
    "one slot rolls back": Kind({**_ALWAYS, "one slot rolls back": 0.15}, loses_state=True),
    "log lost": Kind({**_ROLLS_BACK, "log lost": 0.06}, loses_state=True, loses_log=True),
    "tail lost": Kind({**_ALWAYS, "tail lost": 0.15}, loses_state=True, loses_log=True),
}


@dataclass
class Slot:
    """A place where a process runs; when it dies another one takes its place."""

    name: str
    live: Callable[[asyncio.Event], Awaitable[None]]
    process: Process
    stop: asyncio.Event = field(default_factory=asyncio.Event)


class World:
    """Everything of one run."""

    namespace = "sim"

    def __init__(
        self,
        seed: int,
        name: str,
        mutant: Mutant = NONE,
        *,
        without: Collection[str] = (),
        allowed: Collection[int] | None = None,
    ) -> None:
        self.seed = seed
        self.name = name
        self.kind = WORLDS[name]
        self.mutant = mutant
        self.random = random.Random(f"{name}/{seed}")
        self.loop = Loop()
        self.faults = Faults(random.Random(f"{name}/{seed}/faults"), without, allowed)
        self.answers = (OffsetOutOfRangeError, ResponseError)
        self.redis = RedisServer(self)
        self.log = LogServer(self)
        self.oracle = Oracle(self, PARTITIONS)
        self.settings = Settings(
            namespace=self.namespace,
            partitions=PARTITIONS,
            task_partitions=TASK_PARTITIONS,
            worker_slots=2,
            orphan_seconds=5.0,
            worker_grace=2.0,
        )
        self.jobs = jobs(self, EXECUTIONS, STORM_SECONDS / 2)
        self.executors: list[Executors] = []
        self.starts: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.trace: deque[tuple[float, str, str, Any]] = deque(maxlen=TRACE)
        self.fingerprint = 0
        self.failures: list[str] = []
        self._serial = itertools.count(1)
        self._slots: dict[str, Slot] = {}

    # --- what the parts ask

    @property
    def wall(self) -> float:
        """True Unix time."""
        return EPOCH + self.loop.now

    def serial(self) -> int:
        """A number that is used once."""
        return next(self._serial)

    def events(self, partition: int) -> TopicPartition:
        """The events of a partition."""
        return TopicPartition(topics.events(self.namespace), partition)

    def note(self, process: Process, what: str, answer: Any) -> None:
        """A step, for the trace."""
        self.fingerprint = hash((self.fingerprint, self.loop.now, process.name, what))
        self.trace.append((self.loop.now, process.name, what, answer))

    def failed(self, event: str, error: BaseException | None) -> None:
        """The code met an error that it does not expect."""
        self.failures.append(f"{PROCESS.get().name}: {event}: {type(error).__name__}: {error}")
        if isinstance(error, Violation):
            raise error

    def attempt_begins(self, token: str, where: Executors) -> None:
        """The user's code of an attempt runs."""
        if any(other.works_on(token) for other in self.executors if other is not where):
            self.counts["run at once"] += 1
        self.starts[token] += 1
        if self.starts[token] > 1 and not (self.kind.loses_state or self.kind.loses_log):
            raise Violation(f"{token} runs twice although no data was lost")

    def after_script(self, name: str, keys: list[bytes], reply: Any) -> None:
        """A script was carried out."""
        self.counts[f"{name} {reply.decode()}" if isinstance(reply, bytes) else name] += 1
        if name in _STEPS:
            self._soon("redis rolls back", "one slot rolls back")
        if name == "APPLY" and reply == b"OK" and not self.kind.loses_log:
            self.oracle.check(int(keys[0].partition(b"{")[2].partition(b"}")[0]))

    def after_append(self) -> None:
        """Records were appended."""
        self._soon("tail lost")

    def _soon(self, *kinds: str) -> None:
        """A loss of data is worst just after a step: soon enough to take it back."""
        for kind in kinds:
            if kind in self.kind.rates and self.faults.random.random() < _AFTER_A_STEP and self.faults.strike(kind):
                self.loop.later(self.random.random() ** 2 * 0.2, self._befall, kind)

    # --- processes

    def kill(self, process: Process) -> None:
        """SIGKILL; another process takes its place after a while."""
        if process.killed or process is OUTSIDE:
            return
        process.killed = True
        process.held = []
        slot = self._slots[process.name]
        self.loop.later(self.random.random() * _RESTART_SECONDS, self._start, slot.name, slot.live)

    def pause(self, process: Process) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        if process.killed or process.stopped or process is OUTSIDE:
            return
        process.stopped = True
        self.loop.later(self.random.choice(_PAUSES) * self.random.random(), self._resume, process)

    def _resume(self, process: Process) -> None:
        if not process.killed and process.stopped:
            self.note(process, "goes on", "")
            self.loop.resume(process)

    def _start(self, name: str, live: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        process = Process(name)
        process.skew = self.random.uniform(-self.kind.skew, self.kind.skew)
        slot = self._slots[name] = Slot(name, live, process)
        self.note(process, "starts", "")
        self.loop.start(process, self._live(slot)).add_done_callback(self._ended, context=self.loop.outside)

    async def _live(self, slot: Slot) -> None:
        while True:
            try:
                await slot.live(slot.stop)
            except (*redis_errors, UnavailableError):  # its first connection failed: whoever started it tries again
                await asyncio.sleep(0.5)
            else:
                return

    def _ended(self, task: asyncio.Task[Any]) -> None:
        slot = self._slots[task.get_name()]
        if task.cancelled():
            raise Violation(f"process {slot.name} was cancelled")
        if (error := task.exception()) is not None:
            if isinstance(error, Violation):
                raise error
            raise Violation(f"process {slot.name} died: {type(error).__name__}: {error}") from error
        if slot.name != "api":
            self.loop.later(0.1, self._start, slot.name, slot.live)

    async def _orchestrator(self, stop: asyncio.Event) -> None:
        service = OrchestratorService(self.settings)
        await service.start()
        await service.run(stop)

    async def _worker(self, stop: asyncio.Event) -> None:
        service = WorkerService(self.settings)
        await service.start()
        await service.run(stop)

    async def _api(self, _stop: asyncio.Event) -> None:
        await Api(self).run()

    # --- the run

    def run(self) -> None:
        """Runs it all. Raises Violation when a promise was broken."""
        STAGE.world = self
        random.seed(self.seed)
        collecting = gc.isenabled()
        gc.disable()
        try:
            self.loop.run_until(self.loop.start(OUTSIDE, self._run()))
        finally:
            self.loop.abandon()
            if collecting:
                gc.enable()

    async def _run(self) -> None:
        for n in range(_ORCHESTRATORS):
            self._start(f"o{n}", self._orchestrator)
        for n in range(_WORKERS):
            self._start(f"w{n}", self._worker)
        self._start("api", self._api)
        self.faults.active = True
        await self._storm()
        self.faults.active = False
        await self._calm()
        self._judge()

    async def _storm(self) -> None:
        rates = self.kind.rates
        total = sum(rates.values())
        while True:
            pause = self.faults.random.expovariate(total)
            if self.loop.now + pause >= STORM_SECONDS:
                await asyncio.sleep(STORM_SECONDS - self.loop.now)
                return
            await asyncio.sleep(pause)
            kind = self.faults.random.choices(list(rates), list(rates.values()))[0]
            if self.faults.strike(kind):
                self._befall(kind)

    def _befall(self, kind: str) -> None:
        self.note(OUTSIDE, kind, "")
        draw = self.random.random
        victim = self._slots[self.random.choice(list(self._slots))]
        match kind:
            case "a process is killed":
                self.kill(victim.process)
            case "a process is paused":
                self.pause(victim.process)
            case "a process is restarted":
                victim.stop.set()
            case "redis away":
                self.redis.restart()
                self.redis.clock_jump = self.random.uniform(-self.kind.jump, self.kind.jump)
                self.redis.go_away(draw() ** 2 * 6.0)
            case "redis rolls back":
                self.redis.store.roll_back(1 + int(draw() ** 2 * self.redis.store.steps))
                self.redis.restart()
                self.redis.go_away(self.random.choice((0.0, 0.0, 0.5, 2.0)) * draw())
            case "one slot rolls back":
                slot = b"{%d}" % self.random.randrange(PARTITIONS)
                if draw() < 0.3:
                    slot = b"{t:default:%d}" % self.random.randrange(TASK_PARTITIONS)
                steps = 1 + int(draw() ** 2 * self.redis.store.steps)
                self.redis.store.roll_back(steps, lambda key: slot in key)
                self.redis.promote()
            case "scripts flushed":
                self.redis.flush_scripts()
            case "log away":
                self.log.go_away(draw() ** 2 * 6.0)
            case "log lost":
                self.log.lose_all()
                self.log.go_away(draw())
            case "tail lost":
                self.log.lose_tail(self.random.choice(sorted(self.log.partitions)), self.random.randint(1, 6))
                self.log.go_away(draw() * 0.5)
            case "records twice":
                self.log.twice = not self.log.twice

    async def _calm(self) -> None:
        self.note(OUTSIDE, "calm", "")
        self.log.twice = False
        for slot in self._slots.values():
            self._resume(slot.process)
        end = self.loop.now + CALM_SECONDS
        while self.loop.now < end:
            await asyncio.sleep(0.5)
            if all(job.is_done for job in self.jobs) and not self._open() and not self.oracle.residue():
                return
        undone = [job for job in self.jobs if not job.is_done]
        raise Violation(f"stuck: {self._open()}, left: {self.oracle.residue()}, unanswered: {undone}")

    def _open(self) -> dict[str, str]:
        """Executions that have not ended, of those that must."""
        statuses = self.oracle.statuses()
        found = {i: str(s) for i, s in statuses.items() if not s.is_terminal}
        for job in self.jobs:
            promised = job.created or (job.promised and not self.kind.loses_state)
            if promised and not self.kind.loses_log and job.execution_id not in statuses:
                found[job.execution_id] = "it was promised, and is not there"
            if job.given_up and found.get(job.execution_id) == ExecutionStatus.PENDING:
                del found[job.execution_id]
        if self.kind.loses_log:
            return {i: s for i, s in found.items() if s != ExecutionStatus.PENDING}
        return found

    def _judge(self) -> None:
        if not self.kind.loses_log:
            for partition in range(PARTITIONS):
                self.oracle.check(partition)
        self.oracle.check_histories()
        if self.failures:
            raise Violation(f"{len(self.failures)} errors that nobody expects, the first: {self.failures[0]}")
        if self.loop.errors:
            message, error = self.loop.errors[0]
            raise Violation(f"nobody caught: {message} {error!r}")
        for partition in range(PARTITIONS):
            for record in self.log.records(self.events(partition)):
                event = decode_event(record)
                if isinstance(event, Lost):
                    self.counts[f"lost: {event.reason}"] += 1
                elif isinstance(event, Result) and event.begin is not None:
                    self.counts["begun"] += 1
        self.counts["attempts"] = sum(self.starts.values())
        self.counts["run twice"] = sum(n - 1 for n in self.starts.values())
