"""Faults of our own processes: killed, paused, stopped in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from functools import partial

from wf_testservers.cluster import EngineProcess
from wf_testservers.process import stat

from chaos.scene import NotNowError, Scene
from chaos.supervisor import LONGEST_STOP, pause_child, wake_child
from chaos.waiting import until

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds, from well below the time of death to well above."""


async def kill(scene: Scene, chance: random.Random, kind: str) -> str:
    """SIGKILL."""
    process = _any(scene, chance, kind)
    scene.supervisor.kill(process)
    return process.name


async def pause(scene: Scene, chance: random.Random, kind: str) -> str:
    """SIGSTOP, later SIGCONT: a zombie that believes what it knew."""
    process = _any(scene, chance, kind)
    seconds = chance.uniform(SHORTEST_PAUSE, LONGEST_PAUSE)
    with suppress(ProcessLookupError, ChildProcessError):
        scene.supervisor.pause(process, seconds)
    return f"{process.name} for {seconds:.1f} s"


async def terminate(scene: Scene, chance: random.Random, kind: str) -> str:
    """SIGTERM."""
    process = _any(scene, chance, kind)
    scene.supervisor.terminate(process)
    return process.name


async def roll(scene: Scene, chance: random.Random, kind: str) -> str:
    """SIGTERM to all of a kind, one after the other, each when the one before is back."""
    names = []
    async with scene.alone(f"rolling {kind}"):
        for process in scene.supervisor.running(kind):
            if not process.alive or process.process.paused:
                continue
            names.append(process.name)
            scene.supervisor.terminate(process)
            await until(partial(_is_back, scene, process), LONGEST_STOP + 10)
            await asyncio.sleep(chance.uniform(0.5, 1.5))
    return ", ".join(names)


async def kill_child(scene: Scene, chance: random.Random) -> str:
    """SIGKILL to a process that runs tasks."""
    process, pid = _child(scene, chance)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return f"{pid} of {process.name}"


async def child_pause(scene: Scene, chance: random.Random) -> str:
    """SIGSTOP to a process that runs tasks, later SIGCONT."""
    process, pid = _child(scene, chance)
    seconds = chance.uniform(SHORTEST_PAUSE, LONGEST_PAUSE)
    parent = stat(pid)[1]
    pause_child(pid)
    asyncio.get_running_loop().call_later(seconds, wake_child, pid, parent)
    return f"{pid} of {process.name} for {seconds:.1f} s"


def _is_back(scene: Scene, process: EngineProcess) -> bool:
    return process in scene.supervisor.running(process.kind)


def _any(scene: Scene, chance: random.Random, kind: str) -> EngineProcess:
    found = scene.supervisor.running(kind)
    if not found:
        raise NotNowError
    return chance.choice(found)


def _child(scene: Scene, chance: random.Random) -> tuple[EngineProcess, int]:
    process = _any(scene, chance, "worker")
    found = process.process.children()
    if not found:
        raise NotNowError
    return process, chance.choice(found)
