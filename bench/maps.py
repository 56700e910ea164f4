"""A map of 100, 1,000 and 10,000 items with `max_parallel: 100`: time and memory for each item.

`python -m bench.maps` prints, for each log, seconds and milliseconds an item, the most items that were open at once,
and how much Redis and the orchestrator grew.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import httpx
from redis.asyncio import Redis
from wf_testservers.cluster import Cluster
from wf_testservers.engine import servers

MOST_OPEN = 100
SIZES = (100, 1_000, 10_000)


def document(size: int) -> dict[str, Any]:
    """A map over so many numbers, each given back by a task."""
    one = {"task": "core.echo", "params": {"value": "${{ item }}"}}
    each = {"kind": "map", "items": list(range(size)), "max_parallel": MOST_OPEN, "nodes": {"one": one}}
    return {"name": f"map-{size}", "nodes": {"each": each}, "output": "${{ size(nodes.each.output) }}"}


async def run(client: httpx.AsyncClient, size: int) -> tuple[float, int]:
    """Seconds from the submission to the end, and the most items that were seen open at once."""
    start = time.monotonic()
    answer = await client.post("/workflow?trigger=true", json=document(size))
    answer.raise_for_status()
    path = f"/workflows/{answer.json()['execution_id']}"
    most = 0
    while True:
        view = (await client.get(path, params={"nodes": "false"})).json()
        open_ = sum(view["counts"].get(status, 0) for status in ("QUEUED", "RUNNING", "RETRYING"))
        most = max(most, open_)
        if view["status"] not in ("PENDING", "RUNNING"):
            break
        await asyncio.sleep(0.02)
    if view["status"] != "COMPLETED" or view["output"] != size or most > MOST_OPEN:
        raise RuntimeError(f"{size} items: {view['status']}, output {view['output']}, {most} open at once")
    return time.monotonic() - start, most


def resident_mib(pid: int) -> float:
    """What a process holds in memory, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def redis_mib(environment: Mapping[str, str]) -> float:
    """What Redis uses, in MiB."""
    redis = Redis(host=environment["APP_REDIS_HOST"], port=int(environment["APP_REDIS_PORT"]))
    try:
        return int((await cast("Any", redis).info("memory"))["used_memory"]) / 2**20
    finally:
        await redis.aclose()


async def measure(sizes: tuple[int, ...]) -> None:
    """Prints a line for each log and size."""
    print(
        f"{'log':<6} {'items':>7} {'seconds':>8} {'ms/item':>8} {'open':>5} {'Redis MiB':>10} {'orchestrator MiB':>17}"
    )
    with tempfile.TemporaryDirectory() as folder, servers(Path(folder)) as environments:
        for log, environment in environments.items():
            directory = Path(folder) / f"engine-{log}"
            directory.mkdir()
            with Cluster(environment, directory) as cluster:
                cluster.start("api")
                orchestrator = cluster.start("orchestrator")
                cluster.start("worker", "--slots", "64")
                await cluster.ready(workers=1)
                async with httpx.AsyncClient(base_url=cluster.url, timeout=120) as client:
                    await run(client, sizes[0])  # warms up
                    for size in sizes:
                        before = await redis_mib(environment), resident_mib(orchestrator.process.pid)
                        seconds, most = await run(client, size)
                        after = await redis_mib(environment), resident_mib(orchestrator.process.pid)
                        grown = [f"{b - a:+.1f}" for a, b in zip(before, after, strict=True)]
                        print(
                            f"{log:<6} {size:>7,} {seconds:>8.2f} {seconds / size * 1000:>8.3f} {most:>5} "
                            f"{grown[0]:>10} {grown[1]:>17}",
                            flush=True,
                        )


def main() -> None:
    """Parses arguments and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    asyncio.run(measure(tuple(parser.parse_args().sizes)))


if __name__ == "__main__":
    main()
