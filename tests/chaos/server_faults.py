"""Faults of Redis and Kafka: killed, hung, out of memory, robbed of data."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import time
from pathlib import Path

from redis.exceptions import RedisError
from wf_testservers.kafka import ApacheNode

from chaos.process_faults import LONGEST_PAUSE, SHORTEST_PAUSE
from chaos.scene import NotNowError, Scene, appended_file

_AWAY_SECONDS = (0.0, 1.0, 5.0)
_APART_SECONDS = 20.0
"""State and log are not robbed at the same time: together they are everything there is."""
_CUTS = (1, 100, 4_000, 20_000)
"""Bytes: at most about the second that Redis may lose with `everysec`."""
_SETTLED_SECONDS = 5.0


async def redis_kill(scene: Scene, chance: random.Random) -> str:
    """SIGKILL; back later with its append-only file."""
    away = chance.choice(_AWAY_SECONDS)
    async with scene.alone("redis"):
        await _nothing_buffered(scene)
        scene.redis.kill()
        await asyncio.sleep(away)
        await asyncio.to_thread(scene.redis.start)
    return f"away for {away:g} s"


async def redis_pause(scene: Scene, chance: random.Random) -> str:
    """SIGSTOP, later SIGCONT: nothing answers, connections stay."""
    seconds = chance.uniform(SHORTEST_PAUSE, LONGEST_PAUSE)
    async with scene.alone("redis"):
        scene.redis.process.pause()
        await asyncio.sleep(seconds)
        scene.redis.process.resume()
    return f"for {seconds:.1f} s"


async def redis_truncate(scene: Scene, chance: random.Random) -> str:
    """SIGKILL; the end of the append-only file is lost. What the redis log forgot is submitted again."""
    async with scene.alone("redis"):
        if scene.losses and time.time() - scene.losses[-1] < _APART_SECONDS:
            raise NotNowError
        scene.load.forgetful = scene.kafka is None
        scene.redis.kill()
        now = time.time()
        scene.truncations.append(now)
        file = appended_file(scene.redis.directory)
        size = file.stat().st_size
        cut = min(size, int(chance.choice(_CUTS) * chance.uniform(0.5, 2)))
        with file.open("r+b") as opened:
            opened.truncate(size - cut)
        await asyncio.to_thread(scene.redis.start)
    if scene.kafka is None:
        await scene.load.repeat_recent(now)
    return f"{cut} of {size} bytes"


async def redis_flush_scripts(scene: Scene, _chance: random.Random) -> str:
    """SCRIPT FLUSH."""
    async with scene.alone("redis"), scene.client() as client:
        await client.script_flush()
    return "SCRIPT FLUSH"


async def redis_kill_clients(scene: Scene, _chance: random.Random) -> str:
    """CLIENT KILL of every connection."""
    async with scene.alone("redis"), scene.client() as client:
        killed = [await client.client_kill_filter(_type=kind, skipme=True) for kind in ("normal", "pubsub")]
    return f"{sum(killed)} connections"


async def redis_pause_clients(scene: Scene, chance: random.Random) -> str:
    """CLIENT PAUSE: commands wait."""
    seconds = chance.uniform(SHORTEST_PAUSE, LONGEST_PAUSE)
    async with scene.alone("redis"), scene.client() as client:
        await client.client_pause(int(seconds * 1000), all=chance.random() < 0.5)
        await asyncio.sleep(seconds)
    return f"for {seconds:.1f} s"


async def redis_full(scene: Scene, chance: random.Random) -> str:
    """No memory is left for a while: reads are answered, writes are not."""
    seconds = chance.uniform(1, 5)
    async with scene.alone("redis"), scene.client() as client:
        used = int((await client.info("memory"))["used_memory"])
        await client.config_set("maxmemory", int(used * 0.9))
        await asyncio.sleep(seconds)
        await client.config_set("maxmemory", 0)
    return f"for {seconds:.1f} s"


async def kafka_kill(scene: Scene, chance: random.Random) -> str:
    """SIGKILL; back later with its data."""
    node = _kafka(scene)
    away = chance.choice(_AWAY_SECONDS)
    async with scene.alone("kafka"):
        node.process.kill()
        await asyncio.sleep(away)
        await asyncio.to_thread(node.start)
    return f"away for {away:g} s"


async def kafka_pause(scene: Scene, chance: random.Random) -> str:
    """SIGSTOP, later SIGCONT."""
    node = _kafka(scene)
    seconds = chance.uniform(SHORTEST_PAUSE, LONGEST_PAUSE)
    async with scene.alone("kafka"):
        node.process.pause()
        await asyncio.sleep(seconds)
        node.process.resume()
    return f"for {seconds:.1f} s"


async def kafka_lose(scene: Scene, _chance: random.Random) -> str:
    """SIGKILL; back without its data, as a broker without a disk."""
    node = _kafka(scene)
    async with scene.alone("kafka"):
        if scene.truncations and time.time() - scene.truncations[-1] < _APART_SECONDS:
            raise NotNowError
        node.process.kill()
        scene.losses.append(time.time())
        await asyncio.to_thread(_forget, node, scene.cluster.directory / "kafka" / "data")
        await asyncio.to_thread(node.start)
    return "every record"


def _forget(node: ApacheNode, data: Path) -> None:
    found = re.search(r"cluster\.id=(\S+)", (data / "meta.properties").read_text())
    assert found, "Kafka writes the id of its cluster there"
    shutil.rmtree(data)
    node.configure(found[1], [node.voter])


def _kafka(scene: Scene) -> ApacheNode:
    if scene.kafka is None:
        raise NotNowError
    node = scene.kafka.node
    assert isinstance(node, ApacheNode), "the driver starts nothing else"
    return node


async def _nothing_buffered(scene: Scene) -> None:
    """Waits until Redis has handed all that it acknowledged to the kernel.

    With `everysec` a write to the file waits up to 2 s for an earlier fsync that is slow; killed then, Redis loses what
    it acknowledged. That is the fault `redis-truncate`, which is counted as a loss of data; this one must lose nothing.
    """
    async with scene.client() as client:
        deadline = time.monotonic() + _SETTLED_SECONDS
        while time.monotonic() < deadline:
            try:
                found = await client.info("persistence")
            except RedisError as error:
                raise NotNowError from error
            if not found["aof_pending_bio_fsync"] and not found["aof_buffer_length"]:
                return
            await asyncio.sleep(0.01)
    raise NotNowError
