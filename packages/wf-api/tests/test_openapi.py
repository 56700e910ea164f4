"""/openapi.json is true: requests made from it, right and wrong ones, get the answers that it promises."""

from __future__ import annotations

import asyncio
import copy
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from wf_core.settings import Settings
from wf_core.store.keys import PartitionKeys

EXAMPLES = 5
SECONDS = 150


def with_one_whole_workflow(document: Any) -> Any:
    """A copy in which only `validate_workflow`, as JSON, takes whole workflows; elsewhere nodes are any object.

    For the phase that tries each boundary of each field: a workflow has thousands of them, all kinds of nodes in their
    two forms, and twelve places take one (two formats, with and without an envelope, in a batch). One stands for all.
    """
    document = copy.deepcopy(document)
    schemas = document["components"]["schemas"]
    shallow = {**schemas["Workflow"], "properties": {**schemas["Workflow"]["properties"]}}
    shallow["properties"] |= {"nodes": {"type": "object"}, "finally": {"type": "object"}}
    schemas["Shallow"] = shallow
    whole = "#/components/schemas/Workflow"
    places = 0
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        body = json.dumps(operation.get("requestBody", {}))
        places += body.count(f'"{whole}"')
        if body != "{}":
            operation["requestBody"] = json.loads(body.replace(f'"{whole}"', '"#/components/schemas/Shallow"'))
    assert places == 12
    validation = document["paths"]["/workflow/validate"]["post"]["requestBody"]["content"]
    validation["application/json"]["schema"]["anyOf"][0] = {"$ref": whole}
    return document


async def schemathesis(document: str, *options: str) -> None:
    """Requests made from a document; every answer is what it promises."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", document, *options),
        *("--max-examples", str(EXAMPLES), "--seed", "1", "--checks", "all", "--no-color"),
        # A schema cannot say that a graph has no cycle or that an expression compiles.
        *("--exclude-checks", "positive_data_acceptance"),
        *("--request-timeout", "10", "--generation-database", "none"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()


@pytest.mark.timeout(SECONDS + 30)
async def test_generated_requests(api: httpx.AsyncClient, settings: Settings, redis: Redis, tmp_path: Path) -> None:
    """Each address, its examples, boundaries and chains of calls: no 5xx, no undeclared status, no wrong shape."""
    for partition in range(settings.partitions):  # as if all were folded, so that no command waits for an orchestrator
        await redis.hset(PartitionKeys.of(settings.namespace, partition).meta, "off", 10**12)
    smaller = tmp_path / "openapi.json"
    smaller.write_text(json.dumps(with_one_whole_workflow((await api.get("/openapi.json")).json())))
    async with asyncio.timeout(SECONDS):
        await schemathesis(f"{api.base_url}/openapi.json", "--phases", "examples,fuzzing,stateful")
        await schemathesis(str(smaller), "--url", str(api.base_url), "--phases", "coverage")


async def test_each_address_says_its_problems(api: httpx.AsyncClient) -> None:
    """Every operation declares its errors, each of them a problem, and names its ids after their resource."""
    document = (await api.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert {"401", "403", "405", "500"} <= operation["responses"].keys()
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"], (path, status)
        named = ("execution_id}", "node_path}", "dead_letter_id}", "definition_name}", "signal_name}")
        assert all(name in named for name in [p.split("/")[0] for p in path.split("{")[1:]])
    assert "HTTPValidationError" not in str(document)
