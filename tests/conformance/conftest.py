"""One engine per log for all cases: they run together, once, and each test looks at its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cache

import pytest
from wf_testservers.cluster import Cluster
from wf_testservers.engine import environment

from conformance import in_process, on_servers
from conformance.cases import TASKS, Case, all_cases
from conformance.seen import Seen


@cache
def in_harness(case_id: str) -> Seen:
    """What the harness makes of a case; it is run once."""
    return in_process.run_case(next(case for case in all_cases() if case.id == case_id))


@pytest.fixture(scope="session", params=["redis", "kafka"])
def observed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Seen]:
    """What real servers make of the chosen cases on this log, by the case's id."""
    wanted = {
        item.callspec.params["case"].id
        for item in request.session.items
        if isinstance(item, pytest.Function) and "observed" in item.fixturenames and hasattr(item, "callspec")
    }
    chosen: list[Case] = [case for case in all_cases() if case.id in wanted]
    folder = tmp_path_factory.mktemp(f"conformance-{request.param}")
    with Cluster(environment(request, request.param), folder) as cluster:
        cluster.start("api")
        cluster.start("orchestrator")
        cluster.start("worker", "--slots", "32", APP_WORKER_TASK_PATHS=str(TASKS))
        asyncio.run(cluster.ready(workers=1, seconds=90))
        return asyncio.run(on_servers.run_cases(cluster.url, chosen))
