"""The orchestrator as a process: what an operator sees."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

RUN = (
    "import sys; from wf_core.run_service import run_service; from wf_orchestrator.service import OrchestratorService;"
    "sys.exit(run_service(OrchestratorService, 'orchestrator'))"
)


async def process(engine, **variables):
    settings = engine.settings
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        RUN,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "APP_REDIS_HOST": settings.redis_host,
            "APP_REDIS_PORT": str(settings.redis_port),
            "APP_BROKER": settings.broker,
            "APP_NAMESPACE": settings.namespace,
            "APP_PARTITIONS": str(settings.partitions),
            "APP_TASK_PARTITIONS": str(settings.task_partitions),
            "APP_LOG_FORMAT": "json",
            **variables,
        },
    )


async def test_sigterm_releases_the_partitions_and_exits_with_0(engine):
    """A drained orchestrator holds nothing and says so with its exit code."""
    running = await process(engine)
    await engine.all_owned(20)
    running.send_signal(signal.SIGTERM)
    _, stderr = await asyncio.wait_for(running.communicate(), 10)
    assert running.returncode == 0, stderr.decode()
    assert await engine.owners() == {}


async def test_sigkill_is_survived_by_another_process(engine):
    """Killed for real: a second process completes what the first one began."""
    victim = await process(engine, APP_LEASE_SECONDS="1")
    await engine.all_owned(20)
    worker = engine.worker(lambda message: ValueError("again") if message.attempt == 1 else 1)
    document = {"nodes": {"a": {"task": "t"}, "b": {"task": "t", "depends_on": ["a"]}}}
    executions = [await engine.submit(document, delay_ms=200) for _ in range(8)]

    async def begun():
        return len(worker.ran) >= 4

    await engine.until("work has begun", begun)
    victim.kill()
    await victim.communicate()
    await engine.orchestrator()
    assert await engine.ended(*executions) == ["COMPLETED"] * 8
    await engine.verified()


async def test_redis_away_at_start_is_a_clear_line_and_exit_code_4(engine):
    """The service waits `connect_seconds`, names the server and the remedy, and leaves with a code of its own."""
    begun = time.monotonic()
    failing = await process(engine, APP_REDIS_PORT="1", APP_CONNECT_SECONDS="0.3")
    _, stderr = await asyncio.wait_for(failing.communicate(), 20)
    assert failing.returncode == 4
    assert "did not answer within 0.3 s" in stderr.decode().splitlines()[-1]
    assert "Traceback" not in stderr.decode()
    assert time.monotonic() - begun < 15


async def test_a_wrong_setting_is_named_and_exits_with_2(engine):
    """A variable that does not parse is named without its value."""
    failing = await process(engine, APP_PARTITIONS="many")
    _, stderr = await asyncio.wait_for(failing.communicate(), 20)
    assert failing.returncode == 2
    assert "APP_PARTITIONS" in stderr.decode()
    assert "many" not in stderr.decode()
