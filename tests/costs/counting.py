"""Runs a workload and counts; a figure is a number of operations or bytes, per task or per execution."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from importlib import resources

from redis.asyncio import Redis

from costs.engine import Engine, running, settings
from costs.monitor import Command, Monitor
from costs.workloads import Workload, diamond

Figures = dict[str, float]

_BY_THE_CLOCK = ("beat", "renew", "lease", "release", "task_lease", "task_release", "install")
"""Scripts that are called so often per second, whatever there is to do."""
_TITLE = re.compile(rb"-- ([A-Z_]+)")
"""How a script begins, which is sent whole when Redis does not know it yet."""
_NOT_OF_TASKS = (b":wk", b":cat", b":orch", b":log:b")
"""How keys go on, or end, that processes read and write by the clock: about each other, and while the log is empty."""


async def count(redis: Redis, namespace: str, port: int, workload: Workload) -> Figures:
    """The figures of a workload on a Redis that listens on a port. All its keys begin with the namespace."""
    async with running(redis, settings(namespace, port)) as engine:
        await engine.submit(diamond(), 2)  # all scripts are known to Redis afterwards
        await engine.submit(workload.document)
        await engine.settle()
        before = [await redis.xlen(engine.log(queue)) for queue in ("", "default")]
        async with Monitor(redis) as monitor:
            executions = await engine.submit(workload.document, workload.executions)
            await engine.settle()
            commands = await monitor.commands()
        figures = _of_redis(commands, namespace.encode(), _address(await redis.client_info()))
        figures |= await _of_log(redis, engine, before)
        per_task = {name: number / workload.tasks for name, number in figures.items()}
        return per_task | await _kept(redis, engine, executions, workload)


def _address(info: dict[str, str | int]) -> bytes:
    return str(info["addr"]).encode()


def _of_redis(commands: Iterable[Command], namespace: bytes, looks: bytes) -> Figures:
    """What the services asked of Redis because there was something to do; `looks` is the client of the measurement."""
    hashes = _by_the_clock()
    sums = dict.fromkeys(("Redis commands", "of these scripts", "commands inside scripts", "bytes to Redis"), 0.0)
    counts = False
    for command in commands:
        if command.in_script:
            sums["commands inside scripts"] += counts
            continue
        counts = command.client != looks and _is_of_tasks(command, namespace, hashes)
        if counts:
            sums["Redis commands"] += 1
            sums["of these scripts"] += command.is_script
            sums["bytes to Redis"] += command.size
    return sums


def _is_of_tasks(command: Command, namespace: bytes, by_the_clock: set[bytes]) -> bool:
    if command.is_script:
        title = _TITLE.match(command.words[1])
        if command.words[1] in by_the_clock or (title and title[1].decode().lower() in _BY_THE_CLOCK):
            return False
    key = command.keys[0] if command.keys else b""
    return key.startswith(namespace + b":") and not any(
        key.endswith(part) or key.startswith(namespace + part) for part in _NOT_OF_TASKS
    )


def _by_the_clock() -> set[bytes]:
    """The hashes by which Redis knows these scripts."""
    folder = resources.files("wf_core.store").joinpath("lua")
    texts = [folder.joinpath(f"{name}.lua") for name in _BY_THE_CLOCK]
    return {
        hashlib.sha1(text.read_bytes(), usedforsecurity=False).hexdigest().encode() for text in texts if text.is_file()
    }


async def _of_log(redis: Redis, engine: Engine, before: list[int]) -> Figures:
    """What was appended to the topics, both together."""
    records = size = 0
    for queue, known in zip(("", "default"), before, strict=True):
        entries = await redis.xrange(engine.log(queue), f"{known}-0")
        records += len(entries)
        size += sum(len(value) for _, fields in entries for value in fields.values())
    return {"log records": records, "log bytes": size}


async def _kept(redis: Redis, engine: Engine, executions: list[str], workload: Workload) -> Figures:
    """What stays in Redis: its content, as the size of keys depends on the version of the server."""
    keys, number, size, history = engine.keys, 0, 0, 0
    for execution in executions:
        for key in (keys.execution(execution), keys.results(execution), keys.scopes(execution)):
            fields = await redis.hgetall(key)
            number += bool(fields)
            size += sum(len(name) + len(value) for name, value in fields.items())
        cells = await redis.strlen(keys.nodes(execution))
        entries = await redis.xrange(keys.history(execution))
        number += bool(cells) + bool(entries)
        size += cells + sum(len(name) + len(value) for _, fields in entries for name, value in fields.items())
        history += len(entries)
    return {
        "history entries": history / workload.tasks,
        "bytes kept": size / workload.tasks,
        "keys kept per execution": number / len(executions),
    }
