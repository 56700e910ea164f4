"""A discrete-event simulation of tasks that go round: folded, sent, claimed, run, reported, and folded again.

Each process serves one thing at a time; on a machine they share the cores. Work travels in batches: whoever comes while
a process is busy is served together with all who came meanwhile, so batches grow with the load, and what a batch costs
besides its tasks is shared by more of them. That is why the costs are of two kinds, `batch` and `task`.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_EVENTS = 500
"""Results that an orchestrator folds at once in a partition."""
BEATS = 2
"""Of a worker a second, in each partition in which it holds something."""
_WARM, _ROUNDS = 2, 6
"""How often all tasks go round, on average, before anything counts, and until the end."""
MOST_REPORTS = 100
"""Results that a worker appends at once in a partition."""

_SHARES = {"apply": 2 / 6, "send": 1 / 6, "claim": 2 / 6, "report": 1 / 6}
"""How what a task costs Redis falls to the stages."""

Done = Callable[[], None]


@dataclass(frozen=True)
class Service:
    """Seconds of processor time: for a batch, and for each task in it."""

    batch: float
    task: float

    def of(self, tasks: int, calls: float = 1.0, share: float = 1.0) -> float:
        """Of so many times what a batch costs, and of a share of what its tasks cost."""
        return self.batch * calls + self.task * tasks * share


@dataclass(frozen=True)
class Costs:
    """What was measured of one process of each kind, with one task partition.

    On the redis log `broker` is nothing: Redis does its work.
    """

    orchestrator: Service
    worker: Service
    tasks: Service
    """Of the processes in which a worker's tasks run."""
    redis: Service
    broker: Service
    hop: float
    """Seconds from one process to the next, in which nobody works."""
    beat: float = 0.0
    """Seconds of Redis for one heartbeat of a worker in a partition."""


@dataclass(frozen=True)
class Shape:
    """An installation, and the number of tasks that are under way in it. `cores` None: each process has its own."""

    orchestrators: int = 1
    workers: int = 1
    partitions: int = 8
    lanes: int = 8
    """Partitions of the task topic: a batch is appended to each of them, and its place in each is committed."""
    shards: int = 1
    """Masters of Redis."""
    brokers: int = 1
    cores: int | None = None
    in_flight: int = 1_000


@dataclass(frozen=True)
class Prediction:
    """Tasks a second, processor seconds for each of them in all processes together, tasks in a fold.

    `busy`: how busy the busiest process of each kind is; 1 is all the time.
    """

    tasks: float
    cpu: float
    batch: float
    busy: dict[str, float]


@dataclass(eq=False)
class Server:
    """One process: jobs in their order, each for a time.

    `load` is the share of it that other things take. Jobs that wait together need the seconds of `once` once.
    """

    world: World
    kind: str
    load: float = 0.0
    once: float = 0.0
    jobs: deque[tuple[float, Done]] = field(default_factory=deque)
    used: float = 0.0
    is_busy: bool = False

    def do(self, seconds: float, done: Done) -> None:
        """Does a job after those that wait."""
        self.jobs.append((seconds / (1 - self.load), done))
        if not self.is_busy:
            self.is_busy = True
            self.world.want(self)

    def run(self) -> None:
        """Has a core: does the next job, or all that wait."""
        taken = [self.jobs.popleft() for _ in range(len(self.jobs) if self.once else 1)]
        seconds = sum(seconds for seconds, _ in taken) - (len(taken) - 1) * self.once
        self.world.later(seconds, lambda: self._end(seconds, [done for _, done in taken]))

    def _end(self, seconds: float, ended: list[Done]) -> None:
        self.used += seconds if self.world.counts else 0.0
        self.is_busy = bool(self.jobs)
        if self.is_busy:
            self.world.want(self)  # behind those that waited longer
        self.world.give_back()
        for done in ended:
            done()


class World:
    """Time, cores, and the processes of one installation."""

    def __init__(self, costs: Costs, shape: Shape) -> None:
        self.costs = costs
        self.shape = shape
        self.now = 0.0
        self.counts = False
        self.folded = self.folds = self._before = 0
        self._events: list[tuple[float, int, Done]] = []
        self._serial = itertools.count()
        self._idle = shape.cores if shape.cores is not None else 10**9
        self._wanting: deque[Server] = deque()
        beats = shape.workers * min(shape.partitions, shape.in_flight // shape.workers) * BEATS / shape.shards
        self.shards = [Server(self, "Redis", min(0.9, beats * costs.beat)) for _ in range(shape.shards)]
        self.brokers = [Server(self, "broker", once=costs.broker.batch / 2) for _ in range(shape.brokers)]
        self.orchestrators = [_Orchestrator(self) for _ in range(shape.orchestrators)]
        self.workers = [_Worker(self) for _ in range(shape.workers)]
        self._next_worker = itertools.cycle(self.workers)

    def later(self, seconds: float, done: Done) -> None:
        """Calls `done` after a time."""
        heapq.heappush(self._events, (self.now + seconds, next(self._serial), done))

    def want(self, server: Server) -> None:
        """The server has something to do: at once if a core is idle."""
        if self._idle:
            self._idle -= 1
            server.run()
        else:
            self._wanting.append(server)

    def give_back(self) -> None:
        """A core is idle again."""
        if self._wanting:
            self._wanting.popleft().run()
        else:
            self._idle += 1

    def lanes(self, tasks: int) -> int:
        """Task partitions over which a batch is spread."""
        return min(tasks, self.shape.lanes)

    def ask(self, partition: int, tasks: int, part: str, done: Done) -> None:
        """A stage of a batch at Redis, and at the broker where it is about the log; there and back."""
        shard, broker = self.shards[partition % len(self.shards)], self.brokers[partition % len(self.brokers)]
        redis = self.costs.redis.of(tasks, self._calls(part, tasks), _SHARES[part])
        at_broker = self.costs.broker.of(tasks, 0.5, 0.5) if part in {"send", "report"} else 0.0

        def answered() -> None:
            self.later(self.costs.hop, done)

        def at_redis() -> None:
            shard.do(redis, (lambda: broker.do(at_broker, answered)) if at_broker else answered)

        self.later(self.costs.hop, at_redis)

    def _calls(self, part: str, tasks: int) -> float:
        """Scripts of a stage, as a share of those of a batch that is spread over one task partition."""
        lanes = self.lanes(tasks)
        if self.costs.broker.task:  # appends are none of Redis'
            return {"apply": 1, "send": 1, "claim": 1 + lanes, "report": 0}[part] / 4
        return {"apply": 1, "send": 1 + lanes, "claim": 1 + lanes, "report": 1}[part] / 6

    def dispatch(self, partition: int, tasks: int) -> None:
        """Spreads what was sent over the workers. Each wakes at its first lane, and finds the others a little later."""
        workers = min(tasks, len(self.workers))
        lanes = max(1, self.lanes(tasks) // workers)
        for n in range(workers):
            worker, share = next(self._next_worker), tasks // workers + (n < tasks % workers)
            first = -(-share // lanes)
            worker.take(partition, first)
            if share > first:
                self.later(self.costs.hop, functools.partial(worker.take, partition, share - first))

    def report(self, partition: int, tasks: int) -> None:
        """Results are in the log."""
        self.orchestrators[partition % len(self.orchestrators)].take(partition, tasks)

    def run(self) -> Prediction:
        """Begins with all tasks at once, and lets them go round."""
        for partition in range(self.shape.partitions):
            share, more = divmod(self.shape.in_flight, self.shape.partitions)
            if share + (partition < more):
                self.report(partition, share + (partition < more))
        began = self.now
        while self.folded < _ROUNDS * self.shape.in_flight:
            self.now, _, done = heapq.heappop(self._events)
            done()
            if not self.counts and self.folded > _WARM * self.shape.in_flight:
                self.counts, self.folds, self._before, began = True, 0, self.folded, self.now
        return self._judge(self.now - began)

    def _judge(self, counted: float) -> Prediction:
        processes = [s for taker in (*self.orchestrators, *self.workers) for s in taker.servers]
        busy: dict[str, float] = {}
        for server in (*self.shards, *self.brokers, *processes):
            busy[server.kind] = max(busy.get(server.kind, 0.0), min(1.0, server.used / counted + server.load))
        used = sum(server.used for server in (*self.shards, *self.brokers, *processes))
        folded = self.folded - self._before
        return Prediction(folded / counted, used / folded, folded / self.folds, busy)


class _Taker:
    """Takes batches by partition while it is busy, then goes on with all of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.servers: list[Server] = []
        self._waiting: Counter[int] = Counter()
        self._under_way = 0

    def take(self, partition: int, tasks: int) -> None:
        """These have come."""
        self._waiting[partition] += tasks
        self.world.later(0.0, self._step)

    def _step(self) -> None:
        if self._under_way:
            return
        for partition, waiting in list(self._waiting.items()):
            tasks = min(waiting, MOST_EVENTS)
            self._waiting[partition] -= tasks
            if tasks:
                self._under_way += 1
                self._begin(partition, tasks)
        self._waiting = +self._waiting

    def _next(self) -> None:
        self._under_way -= 1
        self._step()

    def _begin(self, partition: int, tasks: int) -> None:
        raise NotImplementedError


class _Orchestrator(_Taker):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._loop = Server(world, "orchestrator")
        self.servers = [self._loop]

    def _begin(self, partition: int, tasks: int) -> None:
        """Folds and writes; then reads on, while what is ready is sent."""
        world, cost = self.world, self.world.costs.orchestrator

        def written() -> None:
            world.folded += tasks
            world.folds += 1
            self._loop.do(cost.of(tasks, (1 + world.lanes(tasks)) / 3, 1 / 3), send)
            self._next()

        def send() -> None:
            world.ask(partition, tasks, "send", lambda: world.dispatch(partition, tasks))

        self._loop.do(cost.of(tasks, 1 / 3, 2 / 3), lambda: world.ask(partition, tasks, "apply", written))


class _Worker(_Taker):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._loop = Server(world, "worker")
        self._tasks = Server(world, "tasks")
        self.servers = [self._loop, self._tasks]
        self._results: Counter[int] = Counter()
        self._reporting: set[int] = set()

    def _begin(self, partition: int, tasks: int) -> None:
        """Claims and lets them run; then claims what has come meanwhile."""
        world, costs = self.world, self.world.costs

        def claimed() -> None:
            self._tasks.do(costs.tasks.of(tasks), ran)
            self._next()

        def ran() -> None:
            self._results[partition] += tasks
            self._report(partition)

        calls = (1 + world.lanes(tasks)) / 3
        self._loop.do(costs.worker.of(tasks, calls, 0.5), lambda: world.ask(partition, tasks, "claim", claimed))

    def _report(self, partition: int) -> None:
        """Appends results of a partition, and then those that have come meanwhile."""
        tasks = min(self._results[partition], MOST_REPORTS)
        if partition in self._reporting or not tasks:
            return
        self._reporting.add(partition)
        self._results[partition] -= tasks
        world = self.world

        def reported() -> None:
            world.report(partition, tasks)
            self._reporting.discard(partition)
            self._report(partition)

        cost = world.costs.worker.of(tasks, 1 / 3, 0.5)
        self._loop.do(cost, lambda: world.ask(partition, tasks, "report", reported))


def predict(costs: Costs, shape: Shape) -> Prediction:
    """What the model says of an installation."""
    return World(costs, shape).run()
