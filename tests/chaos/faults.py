"""The faults by name, and who chooses among them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Literal

from chaos import link_faults, process_faults, record_faults, server_faults
from chaos.scene import NotNowError, Scene

Act = Callable[[Scene, random.Random], Awaitable[str]]
LONGEST_FAULT = 90.0
_TRIES = 20


@dataclass(frozen=True)
class Fault:
    """One kind of fault. `loses`: it takes data away from a server, on which attempts may run twice."""

    act: Act
    weight: float
    needs: Literal["", "kafka", "asked"] = ""
    loses: bool = False


def _of_kinds(name: str, act: Callable[..., Awaitable[str]], weights: tuple[float, float, float]) -> dict[str, Fault]:
    kinds = zip(("api", "orchestrator", "worker"), weights, strict=True)
    return {f"{name}-{kind}": Fault(partial(act, kind=kind), weight) for kind, weight in kinds}


FAULTS: dict[str, Fault] = {
    **_of_kinds("kill", process_faults.kill, (3, 6, 6)),
    **_of_kinds("pause", process_faults.pause, (1, 6, 6)),
    **_of_kinds("term", process_faults.terminate, (1, 2, 2)),
    **_of_kinds("roll", process_faults.roll, (0.5, 1, 1)),
    "kill-child": Fault(process_faults.kill_child, 4),
    "pause-child": Fault(process_faults.child_pause, 2),
    "redis-kill": Fault(server_faults.redis_kill, 3),
    "redis-pause": Fault(server_faults.redis_pause, 1.5),
    "redis-truncate": Fault(server_faults.redis_truncate, 1.5, loses=True),
    "redis-flush-scripts": Fault(server_faults.redis_flush_scripts, 2),
    "redis-kill-clients": Fault(server_faults.redis_kill_clients, 2),
    "redis-pause-clients": Fault(server_faults.redis_pause_clients, 1.5),
    "redis-full": Fault(server_faults.redis_full, 2),
    "kafka-kill": Fault(server_faults.kafka_kill, 3, needs="kafka"),
    "kafka-pause": Fault(server_faults.kafka_pause, 1.5, needs="kafka"),
    "kafka-lose": Fault(server_faults.kafka_lose, 1.5, needs="asked", loses=True),
    "link-delay": Fault(link_faults.delay, 4),
    "link-loss": Fault(link_faults.loss, 4),
    "link-half-open": Fault(link_faults.half_open, 5),
    "link-refuse": Fault(link_faults.refuse, 2),
    "link-drop": Fault(link_faults.drop, 3),
    "copies": Fault(record_faults.copies, 4),
    "late-copies": Fault(record_faults.late_copies, 4),
    "garbage": Fault(record_faults.garbage, 1),
}


def select(
    *, log: str, only: Collection[str] = (), without: Collection[str] = (), lose_log: bool = False
) -> dict[str, Fault]:
    """The kinds that a run uses. A name may end with `*`. Raises ValueError for one that names nothing."""
    chosen = set(_named(only)) if only else set(FAULTS)
    chosen -= set(_named(without))
    if log != "kafka":
        chosen -= {name for name, fault in FAULTS.items() if fault.needs}
    elif not lose_log:
        chosen -= {name for name, fault in FAULTS.items() if fault.needs == "asked"}
    return {name: fault for name, fault in FAULTS.items() if name in chosen}


def _named(names: Collection[str]) -> list[str]:
    found = []
    for name in names:
        matches = [n for n in FAULTS if n == name or (name.endswith("*") and n.startswith(name[:-1]))]
        if not matches:
            raise ValueError(f"no fault is called {name}; there are {', '.join(FAULTS)}")
        found += matches
    return found


class Injector:
    """Injects a fault every `every` seconds on average. Which ones, and how, follows from the seed."""

    def __init__(self, scene: Scene, faults: dict[str, Fault], every: float, seed: int) -> None:
        self._scene = scene
        self._faults = faults
        self._every = every
        self._seed = seed
        self._chance = random.Random(f"{seed} faults")

    async def run(self, seconds: float) -> None:
        """For so long; returns when the last fault is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        number = 0
        async with asyncio.TaskGroup() as group:
            while self._faults:
                wait = min(self._chance.expovariate(1 / self._every), 4 * self._every)
                if loop.time() + wait > end:
                    return
                await asyncio.sleep(wait)
                number += 1
                group.create_task(self._inject(number))

    async def _inject(self, number: int) -> None:
        """One fault, of the first kind in its own order that can be injected now."""
        journal = self._scene.journal
        chance = random.Random(f"{self._seed} fault {number}")
        for _ in range(_TRIES):
            name = chance.choices(list(self._faults), [fault.weight for fault in self._faults.values()])[0]
            journal.say(f"begins {name}")
            try:
                async with asyncio.timeout(LONGEST_FAULT):
                    journal.fault(name, await self._faults[name].act(self._scene, chance))
            except NotNowError:
                journal.say(f"not now: {name}")
            except Exception as error:  # noqa: BLE001 - a fault that goes wrong must not hide what the run found
                journal.violation(f"the fault {name} went wrong: {type(error).__name__}: {error}")
                return
            else:
                return
