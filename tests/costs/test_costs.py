"""Work costs no more operations than its budget allows: seconds are noisy, these counts are the same on every machine.

A test that fails names the figure, what it was and what it is now. `PYTHONPATH=tests python -m costs` prints all
figures, `--calls` which functions a fold calls most, and `--write` sets the budgets to what is counted now.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from wf_testservers.redis import RedisServer

from costs import budgets, folding
from costs.counting import count
from costs.workloads import WORKLOADS, Workload


@pytest_asyncio.fixture
async def looks(redis_server: RedisServer, redis: Redis) -> AsyncIterator[Redis]:
    """A client with one connection, by which MONITOR tells its own commands; `redis` deletes the keys afterwards."""
    async with Redis(host="127.0.0.1", port=redis_server.port, protocol=2, single_connection_client=True) as client:
        yield client


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
async def test_a_task_costs_no_more_operations_than_its_budget(
    workload: Workload, looks: Redis, redis_server: RedisServer, namespace: str
):
    """Records, bytes, commands and scripts: API, orchestrator and worker over a real Redis, in the largest batches."""
    found = await count(looks, namespace, redis_server.port, workload)
    over = budgets.exceeded(workload.name, workload.tasks, found, budgets.load()[workload.name])
    assert not over, "\n".join([*over, budgets.REMEDY])


@pytest.mark.parametrize("workload", folding.FOLDS, ids=lambda workload: workload.name)
def test_a_fold_calls_no_more_functions_than_its_budget(workload: Workload):
    """The processor's share of an event: what `decide`, `to_ops` and `flat` call."""
    over = budgets.exceeded(workload.name, workload.tasks, folding.figures(workload), budgets.load()[workload.name])
    assert not over, "\n".join([*over, budgets.REMEDY])


def test_a_figure_that_grew_is_named_with_what_it_was():
    """An eighth more passes, and so do three more of anything; a sentence says what rose from what to what."""
    budget = {"log records": 2.0}
    assert budgets.exceeded("chain", 100, {"log records": 2.26}, budget) == []
    (sentence,) = budgets.exceeded("chain", 100, {"log records": 2.4}, budget)
    assert sentence.startswith("chain: log records rose from 2 to 2.4")


def test_every_figure_has_a_budget():
    """A figure without one, or a budget without a figure, fails: nothing is compared with nothing."""
    assert budgets.exceeded("chain", 1, {"new": 1.0}, {"old": 1.0})
    assert budgets.load().keys() == {workload.name for workload in (*WORKLOADS, *folding.FOLDS)}
