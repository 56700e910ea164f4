"""One run: servers, processes, load, faults, and the oracle at the end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import uuid
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from wf_testservers.cluster import Cluster
from wf_testservers.engine import variables
from wf_testservers.kafka import KafkaServer, start_kafka
from wf_testservers.process import ServerError, free_port
from wf_testservers.proxy import Proxy
from wf_testservers.redis import RedisServer, start_redis

from chaos import report
from chaos.faults import Injector, select
from chaos.journal import Journal
from chaos.load import Load
from chaos.logs import excerpts
from chaos.oracle import judge
from chaos.record_faults import everything_twice
from chaos.scene import Scene
from chaos.supervisor import Supervisor
from wf_core.settings import Settings

KINDS = ("api", "orchestrator", "worker")
FAIL_POINTS = {
    "orchestrator": "orchestrator.leased=kill@0.01; orchestrator.folded=kill@0.002; orchestrator.applied=kill@0.002; "
    "orchestrator.produced=kill@0.003; orchestrator.trimmed=pause@0.001",
    "worker": "worker.read=kill@0.001; worker.claimed=kill@0.001; worker.committed=pause@0.0005; "
    "worker.ended=kill@0.001; worker.reported=kill@0.001",
    "api": "api.accepted=kill@0.005; api.appended=kill@0.003",
}
"""Where some of the processes die or hang by themselves, and how often."""
_READY_SECONDS = 90.0
_HEAL_SECONDS = 120.0


@dataclass(frozen=True)
class Options:
    """What is asked of a run."""

    log: Literal["kafka", "redis"]
    minutes: float = 10.0
    executions: int = 2000
    every: float = 3.0
    seed: int = 0
    only: Collection[str] = ()
    without: Collection[str] = ()
    lose_log: bool = False
    twice: bool = False
    fail_points: bool = True
    partitions: int = 8
    counts: tuple[int, int, int] = (2, 3, 3)
    """How many APIs, orchestrators and workers."""


@dataclass
class Outcome:
    """How a run ended."""

    text: str
    violations: list[str]
    figures: dict[str, Any] = field(default_factory=dict)


async def run(options: Options, directory: Path, echo: TextIO | None = sys.stdout) -> Outcome:
    """Runs the chaos in `directory`, which keeps journal, logs, data and report."""
    faults = select(log=options.log, only=options.only, without=options.without, lose_log=options.lose_log)
    journal = Journal(directory / "journal.txt", echo=echo)
    seconds = options.minutes * 60
    try:
        with _servers(options, directory) as (redis, kafka, bootstrap, kafka_link):
            links = {} if kafka_link is None else {"kafka": kafka_link}
            async with _stage(options, directory, journal, redis, kafka, bootstrap, links) as scene:
                async with _background(scene, options):
                    await scene.cluster.ready(workers=options.counts[2], seconds=_READY_SECONDS, supervised=True)
                    journal.say("the engine is ready")
                    async with asyncio.TaskGroup() as group:
                        group.create_task(scene.load.run(options.executions, seconds))
                        group.create_task(Injector(scene, faults, options.every, options.seed).run(seconds))
                    journal.say("load and faults have ended")
                    await _heal(scene)
                    findings = await judge(scene, directory / "runs.txt")
                found = report.figures(scene, findings, seconds)
        head = {"log": options.log, "seed": options.seed, "minutes": options.minutes, "kept in": str(directory)}
        said = excerpts(scene.cluster.processes, journal.violations)
        text = report.write(directory / "report.json", head, found, journal.violations, said)
        return Outcome(text, journal.violations, found)
    finally:
        journal.close()


@contextlib.contextmanager
def _servers(
    options: Options, directory: Path
) -> Iterator[tuple[RedisServer, KafkaServer | None, str | None, Proxy | None]]:
    """Redis and, on its log, Kafka behind a proxy."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(start_redis(directory / "redis"))
        if options.log == "redis":
            yield redis, None, None, None
            return
        port = free_port()
        kafka = stack.enter_context(start_kafka(directory / "kafka", advertised=port))
        if kafka.kind != "apache":
            raise ServerError("chaos on Kafka needs an Apache Kafka of its own")
        link = stack.enter_context(Proxy(("127.0.0.1", kafka.node.port), port))
        yield redis, kafka, kafka.bootstrap, link


@contextlib.asynccontextmanager
async def _stage(
    options: Options,
    directory: Path,
    journal: Journal,
    redis: RedisServer,
    kafka: KafkaServer | None,
    bootstrap: str | None,
    links: dict[str, Proxy],
) -> AsyncIterator[Scene]:
    """Starts the processes, each with a link of its own to Redis."""
    environment = {
        **variables(redis.port, bootstrap),
        "APP_PARTITIONS": str(options.partitions),
        "APP_TASK_PARTITIONS": str(options.partitions),
        "APP_EVENTS_KEPT": "1000000",  # the oracle folds the whole log
        "APP_WORKER_TASK_PATHS": str(Path(__file__).parent / "tasks"),
        "WF_CHAOS_RUNS": str(directory / "runs.txt"),
    }
    given: dict[str, Any] = {name[4:].lower(): value for name, value in environment.items() if name.startswith("APP_")}
    settings = Settings(**given)
    chance = random.Random(f"{options.seed} supervisor")
    with contextlib.ExitStack() as stack, Cluster(environment, directory) as cluster:
        for kind, count in zip(KINDS, options.counts, strict=True):
            for n in range(count):
                name = f"redis/{kind}-{n}"
                links[name] = stack.enter_context(Proxy((redis.host, redis.port)))
                extra = {"APP_REDIS_PORT": str(links[name].port)}
                if options.fail_points and n > 0:
                    extra["WF_FAIL_POINTS"] = FAIL_POINTS[kind]
                cluster.start(kind, **extra)
        supervisor = Supervisor(cluster, journal, chance)
        if options.fail_points:
            firsts = {next(p.name for p in cluster.processes if p.kind == kind) for kind in KINDS}
            supervisor.expect_deaths({p.name for p in cluster.processes} - firsts)
        urls = [f"http://127.0.0.1:{p.port}" for p in cluster.processes if p.kind == "api"]
        load = Load(urls, journal, random.Random(f"{options.seed} load"), uuid.uuid4().hex[:8])
        try:
            yield Scene(settings, redis, kafka, cluster, supervisor, links, load, journal)
        finally:
            await load.close()


@contextlib.asynccontextmanager
async def _background(scene: Scene, options: Options) -> AsyncIterator[None]:
    """The supervisor, and the one who sends everything twice."""
    tasks = [asyncio.create_task(scene.supervisor.run())]
    if options.twice:
        tasks.append(asyncio.create_task(everything_twice(scene, scene.journal)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                scene.journal.violation(f"the driver itself failed: {type(result).__name__}: {result}")


async def _heal(scene: Scene) -> None:
    """No fault is left, every process runs."""
    await scene.at_rest(_HEAL_SECONDS)
    for link in scene.links.values():
        link.heal()
    scene.supervisor.wake()
    await scene.supervisor.settled(_HEAL_SECONDS)
