"""What an operator sees of work that waits, on a real server."""

from __future__ import annotations

import asyncio
import re
import socket
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

import wf_orchestrator
from wf_core import ids, wire
from wf_core.errors import SetupError
from wf_core.store.commands import pack_command
from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_orchestrator import batches, gauges, work
from wf_orchestrator.gauges import MEANINGS
from wf_orchestrator.service import OrchestratorService

ONE = {"nodes": {"a": {"task": "t"}}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Measured ten times a second; what stands still for half a second is stuck."""
    monkeypatch.setattr(work, "GAUGES", 0.1)
    monkeypatch.setattr(work, "STUCK", 0.1)
    monkeypatch.setattr(gauges, "STUCK_SECONDS", 0.5)


async def shows(engine, service, name: str, expected: Any, **labels: str) -> None:
    """Waits until a number is what is expected, or satisfies it."""

    async def holds() -> bool:
        value = service.counters.get(name, **labels)
        return bool(expected(value)) if callable(expected) else value == expected

    await engine.until(f"{name} {labels} is {expected}", holds)


def test_every_number_has_a_meaning():
    """What is counted anywhere in this package is described, and nothing else is."""
    used: set[str] = set()
    for path in Path(wf_orchestrator.__path__[0]).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        used.update(re.findall(r'counters\.(?:inc|set|replace)\(\s*"(\w+)"', text))
    computed = {
        "accepted_waiting", "attempts_in_flight", "executions_ended", "executions_live", "outbox_waiting",
        "free_slots",
    }  # fmt: skip
    assert used | computed == set(MEANINGS)
    assert all(text.endswith(".") for text in MEANINGS.values())


async def test_an_orchestrator_serves_its_numbers(engine):
    """With a port set, /metrics of the process shows its gauges and counters; the port in use is told at the start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service, _ = await engine.orchestrator(metrics_port=port)
    await shows(engine, service, "partitions_owned", engine.settings.partitions)

    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    assert "wf_partitions_owned 4.0" in await asyncio.to_thread(get)
    with pytest.raises(SetupError, match=f"APP_METRICS_PORT: cannot listen on 127.0.0.1:{port}"):
        await OrchestratorService(service.context.settings).start()


async def test_messages_that_nobody_takes(engine):
    """An attempt that no worker claims is in flight, and grows old under the name of its queue, until one takes it."""
    service, _ = await engine.orchestrator()
    execution = await engine.submit({"nodes": {"a": {"task": "t"}, "b": {"task": "t", "queue": "gpu"}}})
    await shows(engine, service, "oldest_unclaimed_seconds", lambda age: age > 0.3, queue="gpu")
    await shows(engine, service, "oldest_unclaimed_seconds", lambda age: age > 0.3, queue="default")
    await shows(engine, service, "attempts_in_flight", 2)
    await shows(engine, service, "executions_live", 1, status="RUNNING")
    await shows(engine, service, "outbox_waiting", 0, queue="gpu")
    await shows(engine, service, "unclaimed", 1, queue="gpu")
    engine.worker(lambda _: 1)
    await shows(engine, service, "attempts_in_flight", 1)
    await shows(engine, service, "oldest_unclaimed_seconds", 0, queue="default")
    await shows(engine, service, "unclaimed", 0, queue="default")
    cancel = wire.Cancelled(execution=execution, ts=engine.clock.now_ms(), source="test", id="cancel")
    await engine.append(ids.partition_of(execution), [cancel])
    await shows(engine, service, "attempts_in_flight", 0)
    await shows(engine, service, "executions_live", 0, status="RUNNING")
    await shows(engine, service, "executions_ended", 1)
    assert service.counters.get("server_up", server="redis") == service.counters.get("server_up", server="log") == 1


async def test_free_slots_of_workers(engine):
    """What workers publish is told by queue."""
    service, _ = await engine.orchestrator()
    keys = InstallationKeys(engine.settings.namespace)
    await engine.redis.set(keys.worker("w"), msgspec.json.encode({"queues": ["default", "gpu"], "free": 7}))
    await engine.redis.zadd(keys.workers, {"w": engine.clock.now_ms() + 60_000})
    await shows(engine, service, "free_slots", 7, queue="gpu")


async def test_work_that_a_worker_has_is_not_unclaimed(engine):
    """A long task is in flight, and nobody waits for it to be claimed."""
    service, _ = await engine.orchestrator()
    worker = engine.worker(lambda _: None)
    await engine.submit(ONE)

    async def claimed() -> bool:
        return bool(worker.ran)

    await engine.until("it is claimed", claimed)
    service.counters.set("oldest_unclaimed_seconds", 99, queue="default")
    await shows(engine, service, "oldest_unclaimed_seconds", 0, queue="default")
    await shows(engine, service, "attempts_in_flight", 1)


async def test_commands_that_wait(engine):
    """A command that was accepted and is not in the log is counted, and its age is told."""
    service, _ = await engine.orchestrator()
    execution, records = engine.records(ONE, 1)
    command = pack_command(engine.clock.now_ms(), [wire.encode(record) for record in records], "")
    await engine.scripts.accept(engine.keys(1), execution, "create", command, [""])
    await shows(engine, service, "accepted_waiting", 1)
    await shows(engine, service, "accepted_oldest_seconds", lambda age: age > 1)
    await shows(engine, service, "accepted_waiting", 0)
    await shows(engine, service, "accepted_oldest_seconds", 0)


async def test_records_that_are_not_folded(engine, monkeypatch):
    """The lag is what the log holds beyond the offset: the sum, and that of the worst partition."""
    gate, process = asyncio.Event(), batches.process

    async def gated(*batch: Any) -> None:
        await gate.wait()
        await process(*batch)

    monkeypatch.setattr(batches, "process", gated)
    service, _ = await engine.orchestrator()
    await engine.all_owned()
    for partition in (0, 0, 1):
        await engine.append(partition, engine.records(ONE, partition)[1])
    await shows(engine, service, "partition_lag_events", 9)
    await shows(engine, service, "partition_lag_events_max", 6)
    gate.set()
    await shows(engine, service, "partition_lag_events", 0)


async def test_timers_that_lead_to_nothing(engine):
    """A timer that is long due and still there is told of; one that waits for a worker to be done is not."""
    service, _ = await engine.orchestrator()
    await engine.all_owned()
    timers, now = engine.keys(2).timers, engine.clock.now_ms()
    token = ids.token(ids.new_execution_id(2, now), "a", 1)
    await engine.redis.zadd(timers, {f"withdraw|{token}": now - 90_000})
    await engine.redis.zadd(timers, {f"retry|{token}": now - 30_000})
    await shows(engine, service, "timers_overdue_seconds", lambda seconds: 29 < seconds < 60)
    await engine.redis.zrem(timers, f"retry|{token}")
    await shows(engine, service, "timers_overdue_seconds", 0)


async def forget_attempt(engine, execution: str) -> None:
    """What a mistake of ours would do: a running execution loses its attempt in flight."""
    keys: PartitionKeys = engine.keys(ids.partition_of(execution))
    token = ids.token(execution, "a", 1)
    for key in (keys.in_flight, keys.sent, keys.messages, keys.claims):
        await engine.redis.hdel(key, token)


async def test_a_stuck_execution_is_named(engine):
    """What nothing will ever move is counted, and named in the log, once; what only takes long is not."""
    engine.worker(lambda message: None if message.task == "long" else 1)
    service, _ = await engine.orchestrator()
    long = await engine.submit({"nodes": {"a": {"task": "long"}}})
    pending, records = engine.records(ONE, 0)
    await engine.append(0, records[:2])
    with capture_logs() as logs:
        stuck = await engine.submit({"nodes": {"a": {"task": "long"}}})

        async def running() -> bool:
            return await engine.status(stuck) == "RUNNING"

        await engine.until("it runs", running)
        await forget_attempt(engine, stuck)
        await shows(engine, service, "stuck_executions", 1)
        measured = service.counters.get("events_total")
        cancel = wire.Cancelled(execution=stuck, ts=engine.clock.now_ms(), source="test", id="cancel")
        await engine.append(ids.partition_of(stuck), [cancel])
        await shows(engine, service, "stuck_executions", 0)
        assert service.counters.get("events_total") > measured
    told = [(entry["number"], entry["executions"]) for entry in logs if "stuck" in entry["event"]]
    assert told == [(1, [stuck]), (0, [])]
    assert [await engine.status(e) for e in (long, pending, stuck)] == ["RUNNING", "PENDING", "CANCELLED"]
