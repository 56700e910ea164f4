"""Faults of the network between a process and Redis, or between all processes and Kafka."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from wf_testservers.proxy import Proxy

from chaos.scene import Scene

_SHORTEST, _LONGEST = 1.0, 8.0


async def delay(scene: Scene, chance: random.Random) -> str:
    """Everything takes longer."""
    seconds = chance.uniform(0.02, 1.0)
    return await _spoil(scene, chance, lambda link: link.delay(seconds), f"{seconds:.2f} s later")


async def loss(scene: Scene, chance: random.Random) -> str:
    """Connections are reset in the middle of what they carry."""
    probability = chance.uniform(0.01, 0.2)
    seed = chance.randrange(2**32)
    return await _spoil(scene, chance, lambda link: link.loss(probability, seed), f"loss {probability:.2f}")


async def half_open(scene: Scene, chance: random.Random) -> str:
    """What is sent is swallowed, in one direction or both; nobody is told."""
    up, down = chance.choice(((True, True), (True, False), (False, True)))
    what = " and ".join(["up"] * up + ["down"] * down)
    return await _spoil(scene, chance, lambda link: link.half_open(up=up, down=down), f"swallows {what}")


async def refuse(scene: Scene, chance: random.Random) -> str:
    """Connections are reset and new ones refused."""

    def cut(link: Proxy) -> None:
        link.refuse()
        link.drop()

    return await _spoil(scene, chance, cut, "refuses")


async def drop(scene: Scene, chance: random.Random) -> str:
    """Every connection is reset, some after a few more bytes."""
    after = chance.choice((0, 1, chance.randrange(20_000)))
    name = chance.choice(sorted(scene.links))
    async with scene.alone(f"link {name}"):
        scene.links[name].drop(after)
    return f"{name}: resets after {after} bytes"


async def _spoil(scene: Scene, chance: random.Random, act: Callable[[Proxy], None], what: str) -> str:
    name = chance.choice(sorted(scene.links))
    seconds = chance.uniform(_SHORTEST, _LONGEST)
    link = scene.links[name]
    async with scene.alone(f"link {name}"):
        act(link)
        try:
            await asyncio.sleep(seconds)
        finally:
            link.heal()
    return f"{name}: {what}, for {seconds:.1f} s"
