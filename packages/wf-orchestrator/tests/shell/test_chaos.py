"""Orchestrators die and are replaced at arbitrary moments, again and again, while work goes on."""

from __future__ import annotations

import asyncio
import random

import pytest


@pytest.mark.parametrize("seed", range(3))
async def test_work_completes_exactly_once_however_often_orchestrators_die(engine, seed):
    """Crashed between any two steps: every execution completes, and Redis is what the fold of the log says."""
    rng = random.Random(seed)
    worker = engine.worker(lambda message: ValueError("again") if message.attempt == 1 and rng.random() < 0.3 else 1)
    graph = {
        "nodes": {
            "a": {"task": "t"},
            "b": {"task": "t", "depends_on": ["a"]},
            "c": {"task": "t", "depends_on": ["a"]},
            "d": {"task": "t", "params": {"x": "${{ nodes.b.output }}"}, "depends_on": ["c"]},
        }
    }
    executions = []
    tasks = [(await engine.orchestrator())[1] for _ in range(2)]
    for _ in range(6):
        executions += [await engine.submit(graph, delay_ms=50) for _ in range(4)]
        await asyncio.sleep(rng.uniform(0.02, 0.4))  # the moment of the crash, not a wait for anything
        await engine.crash(tasks.pop(rng.randrange(len(tasks))))
        tasks.append((await engine.orchestrator())[1])
    assert await engine.ended(*executions, seconds=30) == ["COMPLETED"] * len(executions)
    assert len(worker.ran) == len(set(worker.ran))
    for execution in executions:
        assert [(status, lost) for status, _, lost in await engine.nodes(execution, 4)] == [("COMPLETED", 0)] * 4
    await engine.verified()
