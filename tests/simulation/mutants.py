"""Rules that are broken on purpose: the simulation must notice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import wf_api.creation
from simulation.patches import STAGE
from wf_api import together
from wf_core.broker import topics
from wf_core.broker.protocol import TopicPartition
from wf_core.store.scripts import Scripts
from wf_orchestrator import batches, checkpoint, refold, sending, sweeps
from wf_orchestrator.machine import continuing, decide, signals
from wf_orchestrator.machine.effects import Accepted, Dispatch, SetTimer
from wf_orchestrator.machine.snapshot import to_ops
from wf_orchestrator.machine.transitions import EXECUTION
from wf_orchestrator.watch import Watch
from wf_worker.heartbeat import Heartbeat
from wf_worker.intake import Intake
from wf_worker.reports import Reports


@dataclass(frozen=True)
class Mutant:
    """A broken rule: replaced text in Lua sources (which must be found), or a patch of the real code."""

    replaced: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """Name of a script → pairs of text and what stands there instead."""
    patch: Callable[[], AbstractContextManager[object]] = nullcontext

    def lua(self, source: str) -> str:
        """A script as it runs in this world."""
        if not self.replaced:
            return source
        name = source.partition("-- ")[2].partition(" ")[0]
        for old, new in self.replaced.get(name, ()):
            if old not in source:
                raise LookupError(f"{name} does not hold {old!r} any more")
            source = source.replace(old, new)
        return source


NONE = Mutant()


def _patched(target: Any, name: str, value: Any) -> Callable[[], AbstractContextManager[object]]:
    return lambda: mock.patch.object(target, name, value)


async def _nothing(*_: Any, **_options: Any) -> None:
    """A step that is left out."""


# --- APPLY and its guards

_FENCE = ("if m[1] ~= ARGV[1] then return 'FENCED' end", "")
_OFFSET = ("if (m[2] or '0') ~= ARGV[2] then", "if false then")


async def _apply_then_offset(self: Any, keys: Any, nonce: str, previous: int, following: int, *rest: Any, **named: Any):
    answer = await _apply(self, keys, nonce, previous, following, *rest, **named)
    if answer == "OK":
        await self._redis.hset(keys.meta, "off", following)
    return answer


_apply = Scripts.apply


# --- the outbox

_written = checkpoint.apply


async def _without_outbox(context: Any, partition: Any, offset: int, ops: Any, *rest: Any) -> None:
    kept = [op for op in ops if not str(op[1]).startswith(partition.keys.outbox(""))]
    await _written(context, partition, offset, kept, *rest)


async def _produce_first(context: Any, partition: Any, offset: int, ops: Any, *rest: Any) -> None:
    for op in ops:
        if op[0] == "HSET" and op[1] == partition.keys.messages:
            for message in op[3::2]:
                await context.log.append(TopicPartition(topics.tasks(context.namespace, "default"), 0), [message])
    await _without_outbox(context, partition, offset, ops, *rest)


_delivered = batches.deliver


async def _deliver_nothing(context: Any, partition: Any, outcomes: Any) -> None:
    await _delivered(context, partition, outcomes)
    for effect in (effect for outcome in outcomes for effect in outcome.effects):
        if isinstance(effect, Dispatch):
            partition.outbox.discard(effect.token)


@contextlib.contextmanager
def _produced_first() -> Iterator[None]:
    with (
        mock.patch.object(checkpoint, "apply", _produce_first),
        mock.patch.object(batches, "deliver", _deliver_nothing),
    ):
        yield


_flushed = sending.flush


async def _trim_first(context: Any, sender: Any, partition: Any) -> bool:
    if partition.live and not partition.closed:
        nowhere = f"{topics.tasks(context.namespace, 'default')}-0:0:none"
        waiting = [(entry.token, entry.queue, nowhere) for entry in list(partition.outbox._pending.values())]
        if waiting:
            await context.scripts.trim(partition.keys, partition.nonce, waiting)
    return await _flushed(context, sender, partition)


# --- owners and sweeps


def _wall_silence(self: Any, worker: str, asked: float) -> float:
    known = self.beats.get(worker)
    return STAGE.wall() - int(known[0] or 0) / 1000 if known else 0.0


_COUNTER = "redis.call('HINCRBY', KEYS[4], ARGV[1], 1)"
_WALL = "redis.call('HSET', KEYS[4], ARGV[1], now)"
_WALL_IN_CLAIM = f"local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) {_WALL}"


# --- workers and users


async def _commit_first(self: Any, picked: Any) -> None:
    for lane in {id(lane): lane for lane, _ in picked}.values():
        known = lane.committed
        await self._scripts.task_commit(lane.key, self._worker_id, lane.next_read, self._lease_ms, known=known)
    await _claimed(self, picked)


_claimed = Intake._claim


def _claims_always(self: Any, _heard: float = 0.0) -> bool:
    return self._heard > float("-inf")


# --- commands and timers


def _obeys_copies(step: Any, event: Any, verb: str, what: Any) -> bool:
    step.effect(Accepted(f"{event.execution}/{verb}"))
    if what not in EXECUTION[step.x.status]:
        return False
    step.obey(event)
    return True


@contextlib.contextmanager
def _without_command_ids() -> Iterator[None]:
    with (
        mock.patch.object(decide, "_obeys", _obeys_copies),
        mock.patch.object(signals, "_was_heard", return_value=False),
    ):
        yield


def _forgotten(kind: str) -> Callable[[], AbstractContextManager[object]]:
    """Timers of a kind that the owner has in memory only."""

    def written(keys: Any, outcomes: Any, *rest: Any) -> Any:
        def is_kept(effect: Any) -> bool:
            return not (isinstance(effect, SetTimer) and effect.kind == kind)

        return to_ops(keys, [replace(o, effects=[*filter(is_kept, o.effects)]) for o in outcomes], *rest)

    @contextlib.contextmanager
    def patched() -> Iterator[None]:
        with mock.patch.object(batches, "to_ops", written), mock.patch.object(refold, "to_ops", written):
            yield

    return patched


async def _accept_nothing(_context: Any, commands: Any, _documents: Any, _now_ms: int) -> list[together.Accepted]:
    return [together.Accepted(command.execution_id, command.records) for command in commands]


# --- continuations

_UNDECIDED = ("(not before[token] or gone(before[token]))", "true")


async def _without_claims(context: Any, partition: Any, offset: int, ops: Any, *rest: Any) -> None:
    kept = [op for op in ops if op[:2] != ("HSET", partition.keys.claims)]
    await _written(context, partition, offset, kept, *rest)


def _begins_always(self: Any, _heard: float) -> bool:
    return self._heard > float("-inf")


@contextlib.contextmanager
def _begun_by_two() -> Iterator[None]:
    with (
        mock.patch.object(Heartbeat, "may_begin", _begins_always),
        mock.patch.object(continuing, "_was_taken_away", return_value=False),
    ):
        yield


async def _nobody(*_: Any) -> set[str]:
    return set()


async def _condemns_nothing(*_: Any, **_options: Any) -> bool:
    return True


@contextlib.contextmanager
def _burned_nothing() -> Iterator[None]:
    with (
        mock.patch.object(continuing, "burn", return_value=None),
        mock.patch.object(continuing, "used_up", return_value=None),
    ):
        yield


@contextlib.contextmanager
def _never_found() -> Iterator[None]:
    with mock.patch.object(checkpoint, "apply", _without_claims), mock.patch.object(sweeps, "_begun", _nobody):
        yield


MUTANTS: dict[str, Mutant] = {
    "no offset check": Mutant({"APPLY": (_OFFSET,)}),
    "no nonce": Mutant({"APPLY": (_FENCE,)}),
    "no offset check, no nonce": Mutant({"APPLY": (_FENCE, _OFFSET)}),
    "offset in a second step": Mutant(
        {"APPLY": (("'off', ARGV[3], 'bid'", "'bid'"),)}, _patched(Scripts, "apply", _apply_then_offset)
    ),
    "no outbox": Mutant(patch=_patched(checkpoint, "apply", _without_outbox)),
    "produce before APPLY": Mutant(patch=_produced_first),
    "trim before produce": Mutant(patch=_patched(sending, "flush", _trim_first)),
    "no rewind on renew": Mutant(
        {
            "RENEW": (
                ("if ARGV[3] ~= '' and ARGV[3] ~= off then", "if false then"),
                ("return off", "return ARGV[3] ~= '' and ARGV[3] or off"),
            )
        }
    ),
    "no orphan sweep": Mutant(patch=_patched(sweeps, "orphans", _nothing)),
    "no dead sweep": Mutant(patch=_patched(sweeps, "dead", _nothing)),
    "no accepted sweep": Mutant(patch=_patched(sweeps, "accepted", _nothing)),
    "heartbeat as wall time": Mutant(
        {"BEAT": ((_COUNTER, _WALL),), "CLAIM": ((_COUNTER, _WALL_IN_CLAIM),)},
        _patched(Watch, "silent_for", _wall_silence),
    ),
    "claim without check": Mutant({"CLAIM": (("elseif not claim then", "elseif true then"),)}),
    "commit before claim": Mutant(patch=_patched(Intake, "_claim", _commit_first)),
    "no resend of results": Mutant(patch=_patched(Reports, "again", lambda *_: None)),
    "no quiet time": Mutant(
        {"CLAIM": (("live = run == server", "live = true"), ("then live = false end", "then live = live end"))},
        _patched(Heartbeat, "may_claim", _claims_always),
    ),
    "no command ids": Mutant(patch=_without_command_ids),
    "spawn timer in memory": Mutant(patch=_forgotten("spawn")),
    "child timer in memory": Mutant(patch=_forgotten("child")),
    "release timer in memory": Mutant(patch=_forgotten("release")),
    "begin without a heartbeat": Mutant(patch=_patched(Heartbeat, "may_begin", _begins_always)),
    "begin without a heartbeat, tails after a loss": Mutant(patch=_begun_by_two),
    "undecided is cancelled": Mutant({"BEAT": (_UNDECIDED,)}),
    "begun without a claim": Mutant(patch=_patched(checkpoint, "apply", _without_claims)),
    "no condemning": Mutant(patch=_patched(Scripts, "condemn", _condemns_nothing)),
    "no number is used up": Mutant(patch=_burned_nothing),
    "tails after a loss": Mutant(patch=_patched(continuing, "_was_taken_away", lambda *_: False)),
    "begun without a claim, not swept": Mutant(patch=_never_found),
    "no sweep of the begun": Mutant(patch=_patched(sweeps, "_begun", _nobody)),
    "append without ACCEPT": Mutant(patch=_patched(wf_api.creation, "accept_all", _accept_nothing)),
}
