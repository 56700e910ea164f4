"""One seed: random steps of all actors with faults, then calm until everything has ended, then the last look."""

from __future__ import annotations

from simulation.actors import ORCHESTRATOR, WORKER, Steps, api
from simulation.world import PARTITIONS, Violation, World

from wf_core import ids

STEPS = 2_500
CALM_STEPS = 60_000
EXECUTIONS = 4
_ACTORS = {"o0": ORCHESTRATOR, "o1": ORCHESTRATOR, "o2": ORCHESTRATOR, "w0": WORKER, "w1": WORKER, "w2": WORKER}


def run(seed: int, mutant: str = "", *, rollbacks: bool = True, log_loss: bool = False) -> World:
    """Runs a seed and returns the world. Raises Violation when the protocol broke its promise."""
    world = World(seed, mutant, rollbacks=rollbacks, log_loss=log_loss)
    wanted = [
        (ids.derived_execution_id(f"{seed}/{n}", 1)[:-1] + str(n % PARTITIONS), seed + n) for n in range(EXECUTIONS)
    ]
    cancels = [world.random.choice(wanted)[0]] if world.random.random() < 0.3 else []
    actors: dict[str, Steps] = {name: make(world, name) for name, make in _ACTORS.items()}
    actors["api"] = api(world, wanted, cancels)
    _storm(world, actors)
    _calm(world, actors)
    doubled = [token for token, times in world.runs.items() if times > 1]
    if doubled and not (rollbacks or log_loss):
        raise Violation(f"ran twice although no data was lost: {doubled[:3]}")
    world.stats["ran twice"] += sum(times - 1 for times in world.runs.values())
    world.stats["ran"] += len(world.runs)
    return world


def _storm(world: World, actors: dict[str, Steps]) -> None:
    random = world.random
    asleep: dict[str, int] = {}
    loss = random.randrange(300, STEPS - 500) if world.log_loss else -1
    for step in range(STEPS):
        world.now += random.choice((1, 1, 2, 5, 10, 40))
        world.deliver_late()
        if step == loss:
            world.lose_log()
        if world.rollbacks and random.random() < 0.004:
            world.roll_back()
        name = random.choice(list(actors))
        if asleep.get(name, 0) > world.now:
            continue
        if name != "api" and random.random() < 0.006:  # SIGKILL, and another process in its place
            actors[name] = _ACTORS[name](world, name)
            world.stats["kills"] += 1
        elif name != "api" and random.random() < 0.006:  # SIGSTOP
            asleep[name] = world.now + random.choice((500, 6_000, 15_000))
            world.stats["pauses"] += 1
        else:
            _step(actors, name)


def _calm(world: World, actors: dict[str, Steps]) -> None:
    world.faults = False
    world.deliver_late()
    for step in range(CALM_STEPS):
        world.now += 10
        _step(actors, list(actors)[step % len(actors)])
        if step % 50 == 0 and "api" not in actors and not world.open_executions() and not world.residue():
            return
    raise Violation(f"stuck: {world.open_executions()}, left: {world.residue()}")


def _step(actors: dict[str, Steps], name: str) -> None:
    try:
        next(actors[name])
    except StopIteration:
        actors.pop(name)
