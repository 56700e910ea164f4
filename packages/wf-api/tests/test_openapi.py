"""/openapi.json is true: requests made from it, right and wrong ones, get the answers that it promises."""

from __future__ import annotations

import asyncio
import sys

import httpx
import pytest
from redis.asyncio import Redis

from wf_core.settings import Settings
from wf_core.store.keys import PartitionKeys

EXAMPLES = 5
SECONDS = 540
"""Most of it goes into the bodies that hold a workflow: their schema has a branch for each kind of node."""


@pytest.mark.timeout(SECONDS + 60)
async def test_generated_requests(api: httpx.AsyncClient, settings: Settings, redis: Redis) -> None:
    """Each address, its examples, boundaries and chains of calls: no 5xx, no undeclared status, no wrong shape."""
    for partition in range(settings.partitions):  # as if all were folded, so that no command waits for an orchestrator
        await redis.hset(PartitionKeys.of(settings.namespace, partition).meta, "off", 10**12)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{api.base_url}/openapi.json"),
        *("--max-examples", str(EXAMPLES), "--seed", "1", "--checks", "all", "--no-color"),
        # A schema cannot say that a graph has no cycle or that an expression compiles.
        *("--exclude-checks", "positive_data_acceptance"),
        *("--request-timeout", "10", "--generation-database", "none"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(SECONDS):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_each_address_says_its_problems(api: httpx.AsyncClient) -> None:
    """Every operation declares its errors, each of them a problem, and names its ids after their resource."""
    document = (await api.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert {"401", "405", "500"} <= operation["responses"].keys()
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"], (path, status)
        named = ("execution_id}", "node_path}", "dead_letter_id}", "definition_name}", "signal_name}")
        assert all(name in named for name in [p.split("/")[0] for p in path.split("{")[1:]])
    assert "HTTPValidationError" not in str(document)
