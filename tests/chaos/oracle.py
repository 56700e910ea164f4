"""The oracle: when faults have stopped, everything must have ended as it should, once, and nothing may be left over."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from oracle import ends, history
from redis.asyncio import Redis

from chaos.load import RECENT_SECONDS, Execution
from chaos.logs import examine
from chaos.runs import Runs, read_runs
from chaos.scene import Scene
from wf_core.broker import topics
from wf_core.broker.protocol import TopicPartition
from wf_core.store.keys import PartitionKeys
from wf_orchestrator.verify import UnverifiableError, verify

END_SECONDS = 120.0
EMPTY_SECONDS = 40.0
MOST_DOUBLED = 0.005
"""Share of the attempts that may run twice where data was lost."""
DOUBLED_AT_LEAST = 12
"""So many for each loss are allowed in a run that is too short for shares: what the machine does in its last second."""
_AT_ONCE = 8
_ENDED = {"COMPLETED", "FAILED", "CANCELLED"}


@dataclass
class Findings:
    """Figures for the report; violations are in the journal."""

    statuses: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    runs: Runs = field(default_factory=Runs)
    dead_letters: int = 0
    records: int = 0
    verified: str = ""
    spans: list[tuple[float, float]] = field(default_factory=list)
    """Unix seconds from creation to end of each execution."""


async def judge(scene: Scene, runs: Path) -> Findings:
    """Checks everything that was promised. Raises nothing: what is wrong is a violation in the journal."""
    findings = Findings()
    checks = (_executions, _nothing_left, _folds, _dead_letters)
    for check in checks:
        try:
            await check(scene, findings)
        except Exception as error:  # noqa: BLE001 - the other checks still have something to say
            scene.journal.violation(f"{check.__name__} went wrong: {type(error).__name__}: {error}")
    findings.spans.sort()
    findings.runs = read_runs(runs)
    _doubled(scene, findings)
    examine(scene.cluster.processes, scene.journal)
    return findings


async def _executions(scene: Scene, findings: Findings) -> None:
    """Every acknowledged execution has ended as its shape demands."""
    acknowledged = [x for x in scene.load.executions if x.created is not None and (not x.apart or x.triggered)]
    views = await _ended(scene, acknowledged)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def check(x: Execution) -> None:
        async with gate:
            if x.id in views:
                _end_is_right(scene, x, views[x.id])
                findings.statuses[views[x.id]["status"]] += 1
                view = views[x.id]
                findings.spans.append((_seconds(view["created_at"]), _seconds(view["ended_at"])))
                await _history_is_right(scene, findings, x)

    await asyncio.gather(*(check(x) for x in acknowledged))
    _forgotten(scene)


async def _ended(scene: Scene, executions: list[Execution]) -> dict[str, dict[str, Any]]:
    """Waits for their ends; the views of those that ended, by id. The others are violations."""
    views: dict[str, dict[str, Any]] = {}
    missing: set[str] = set()
    deadline = asyncio.get_running_loop().time() + END_SECONDS
    left = executions
    gate = asyncio.Semaphore(_AT_ONCE)

    async def look(x: Execution) -> None:
        async with gate:
            try:
                view = await scene.load.get(f"/workflows/{x.id}")
            except LookupError:
                missing.add(x.id)
                return
        missing.discard(x.id)
        if view["status"] in _ENDED:
            views[x.id] = view

    while left and asyncio.get_running_loop().time() < deadline:
        await asyncio.gather(*(look(x) for x in left))
        left = [x for x in left if x.id not in views]
        await asyncio.sleep(0.3)
    for x in left:
        state = "is gone" if x.id in missing else await scene.load.get(f"/workflows/{x.id}")
        scene.journal.violation(f"execution {x.number} ({x.shape.name}, {x.id}) has not ended: {state}")
    return views


def _end_is_right(scene: Scene, x: Execution, view: dict[str, Any]) -> None:
    status = view["status"]
    forgot = scene.kafka is None and scene.truncations
    if x.cancelled is not None and status == "CANCELLED":
        return
    if x.surely_cancelled and not forgot:
        scene.journal.violation(f"{_name(x)} was answered CANCELLED, and is {status}")
    expected = {"status": x.shape.status, "output": x.shape.output}
    found = {"status": status, "output": view["output"]}
    if x.shape.counts is not None:
        expected["counts"], found["counts"] = x.shape.counts, view["counts"]
    if x.shape.error is not None:
        expected["error"], found["error"] = x.shape.error, (view["error"] or {}).get("type")
    if expected != found:
        scene.journal.violation(f"{_name(x)} should be {expected} and is {found}; error {view['error']}")


async def _history_is_right(scene: Scene, findings: Findings, x: Execution) -> None:
    """Each node has one terminal transition, and each attempt was queued once."""
    events = await history(scene.load.get, x.id)
    terminal = ends(events)
    queued = Counter((event["node"], event["attempt"]) for event in events if event["kind"] == "node.queued")
    findings.lost.update(event["data"].get("reason", "?") for event in events if event["kind"] == "node.lost")
    findings.attempts += len(queued)
    # A node that had not started when its execution ended is not listed.
    wrong = {node: count for node, count in terminal.items() if count > 1}
    if wrong:
        scene.journal.violation(f"{_name(x)} has nodes that ended more than once: {wrong}")
    if twice := {key: count for key, count in queued.items() if count > 1}:
        scene.journal.violation(f"{_name(x)} has attempts that were queued more than once: {twice}")
    if x.shape.status == "COMPLETED" and x.cancelled is None and len(terminal) < len(x.shape.document["nodes"]):
        scene.journal.violation(f"{_name(x)} has nodes that never ended: only {sorted(terminal)} did")


def _forgotten(scene: Scene) -> None:
    for execution_id, age in scene.load.forgotten.items():
        if age > RECENT_SECONDS:
            scene.journal.violation(f"{execution_id} was forgotten, acknowledged {age:.1f} s before a truncation")


async def _nothing_left(scene: Scene, _findings: Findings) -> None:
    """In-flight set, outbox, timers, claims, concurrency keys and accepted commands are empty in every partition."""
    left: dict[str, Any] = {}
    async with scene.client() as redis:
        deadline = asyncio.get_running_loop().time() + EMPTY_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            left = {}
            for n in range(scene.settings.partitions):
                left |= await _leftovers(redis, PartitionKeys.of(scene.settings.namespace, n))
            if not left:
                return
            await asyncio.sleep(0.3)
    for key, value in left.items():
        scene.journal.violation(f"{key} is not empty: {value}")


async def _leftovers(redis: Redis, keys: PartitionKeys) -> dict[str, Any]:
    client = cast("Any", redis)
    left: dict[str, Any] = {}
    for key in (keys.in_flight, keys.sent, keys.messages, keys.claims, keys.accepted, keys.concurrency):
        if found := await client.hgetall(key):
            left[key] = dict(list(found.items())[:5])
    queues = [keys.outbox(queue.decode()) for queue in await client.smembers(keys.queues)]
    for key in (keys.timers, *queues):
        if found := await client.zrange(key, 0, 4, withscores=True):
            left[key] = found
    return left


async def _folds(scene: Scene, findings: Findings) -> None:
    """The whole log, folded again, is what Redis holds, byte for byte."""
    equal = 0
    async with scene.log() as (redis, log):
        for n in range(scene.settings.partitions):
            source = TopicPartition(topics.events(scene.settings.namespace), n)
            findings.records += await log.end(source)
            try:
                differences = await verify(redis, log, scene.settings.namespace, n)
            except UnverifiableError as error:
                if not scene.losses:
                    scene.journal.violation(f"partition {n} cannot be verified: {error}")
                continue
            equal += not differences
            for difference in differences[:10]:
                scene.journal.violation(f"partition {n} differs from its log: {difference}")
    findings.verified = f"{equal} of {scene.settings.partitions} partitions equal the fold of their log"
    if scene.losses:
        findings.verified += "; the log was lost whole, so the others cannot be folded again"


async def _dead_letters(scene: Scene, findings: Findings) -> None:
    """Dead letters hold what was injected, and nothing else."""
    source = TopicPartition(topics.dead_letters(scene.settings.namespace), 0)
    async with scene.log() as (_, log):
        begin, end = await log.begin(source), await log.end(source)
        findings.dead_letters = end - begin
        reader = log.reader()
        reader.assign({source: begin})
        read = 0
        while read < end - begin:
            for batch in await reader.read(5):
                read += len(batch.records)
                for record in batch.records:
                    if b"no record" not in record:
                        scene.journal.violation(f"a dead letter that nobody injected: {record[:600]!r}")
        await reader.close()


def _doubled(scene: Scene, findings: Findings) -> None:
    """Attempts that ran twice: none without a loss of data, few with one."""
    runs = findings.runs
    losses = [*scene.truncations, *scene.losses]
    most = max(MOST_DOUBLED * len(runs.starts), DOUBLED_AT_LEAST * len(losses)) if losses else 0
    if runs.extra > most:
        named = {token: len(times) for token, times in list(runs.doubled.items())[:20]}
        scene.journal.violation(f"{runs.extra} runs too many of {len(runs.starts)} attempts: {named}")
    for token, times in runs.doubled.items():
        if not any(loss - RECENT_SECONDS < times[0] and times[-1] > loss for loss in losses):
            scene.journal.violation(f"{token} ran {len(times)} times, and no data was lost in between: {times}")


def _name(x: Execution) -> str:
    return f"execution {x.number} ({x.shape.name}, {x.id})"


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
