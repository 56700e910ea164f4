"""Concurrency keys, kept where they live: who holds a key, who waits for it, and what is said to them.

A key is plain text, one for the whole namespace, whatever workflow names it: executions of different documents exclude
each other by naming the same key, and a document that wants a key of its own writes its name into it. It lives in one
partition (`ids.partition_of_key`), whose log folds what executions ask of it. Nothing that is said is ever lost for
good, and everything may come twice, late, or after its execution has gone:

    execution's partition                     key's partition
    timer `acquire`  ── Acquire ──────────▶   holds it now, waits for it, or is refused
    clears it        ◀── queued, refused ──   told once for each Acquire that comes
    clears it        ◀── granted ──────────   timer `grant`
                     ── Holds ────────────▶   clears it; told once for each `granted` that comes
    timer `release`  ── Release ──────────▶   goes; the next one is granted
    clears it        ◀── released ─────────   told once for each Release that comes
    is cancelled     ◀── evicted ──────────   timer `evict`, cleared by Release

A timer is fired every 2 s until it is cleared. An execution that is granted what it does not want (any more) answers
with Release, so a late copy of Acquire holds nothing for longer than that. `era` tells the runs of one execution apart.
Waiting is first come, first served; each request brings its own limit, and the first in the queue is asked for its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from wf_core import ids
from wf_core.wire import Acquire, Holds, KeyAnswer, Release
from wf_orchestrator.machine.effects import ClearTimer, KeepKey, Send, SetTimer

if TYPE_CHECKING:
    from wf_core.wire import KeyRecord
    from wf_orchestrator.machine.effects import Effect
    from wf_orchestrator.machine.state import PartitionState
    from wf_orchestrator.machine.step import Step

MOST_WAITING = 10_000
"""Executions that may wait for one key; more are refused, whatever their `on_conflict` says."""
LONGEST_KEY = 1_000
"""Characters of a key."""

ASKED, WAITING, HELD, RELEASED = "asked", "waiting", "held", "released"


class Hold(msgspec.Struct, frozen=True, array_like=True):
    """What an execution knows of its key: it has asked, waits in the queue, holds it, or needs it no more."""

    key: str
    era: int
    state: str = ASKED
    holder: str = ""
    """While it waits: who held the key longest when it came."""

    @property
    def is_waiting(self) -> bool:
        """Whether nothing of the execution may start yet."""
        return self.state in (ASKED, WAITING)


class Claim(msgspec.Struct, array_like=True, omit_defaults=True):
    """An execution that holds a key or waits for it."""

    execution: str
    era: int
    limit: int
    on_conflict: str
    evicted: bool = False
    """Its place was asked for."""


class Key(msgspec.Struct, array_like=True):
    """One concurrency key: who holds it, longest first, and who waits, first come first."""

    holders: list[Claim] = []
    queue: list[Claim] = []


_decoder = msgspec.msgpack.Decoder(Key)
_encoder = msgspec.msgpack.Encoder()


def pack(key: Key) -> bytes:
    """A field of `{p}:ck`; b"" for a key that nobody wants: the field goes."""
    return _encoder.encode(key) if key.holders or key.queue else b""


def unpack(data: bytes | None) -> Key:
    """What `pack` made."""
    return _decoder.decode(data) if data else Key([], [])


def keep(step: Step, hold: Hold) -> None:
    """What the execution knows of its key changed."""
    step.x.hold = hold
    step.touch("hold")


def release(step: Step) -> None:
    """The execution has ended: it gives its key back, if it has one or may yet be given it."""
    x, hold = step.x, step.x.hold
    if hold is None or hold.state == RELEASED:
        return
    token = ids.token(x.id, hold.key, hold.era)
    step.effect(ClearTimer("acquire", token))
    step.effect(SetTimer("release", token, step.now))
    keep(step, Hold(hold.key, hold.era, RELEASED))


class _Fold(NamedTuple):
    """One record about one key."""

    name: str
    key: Key
    effects: list[Effect]
    now: int

    def timer(self, kind: str, claim: Claim) -> None:
        self.effects.append(SetTimer(kind, ids.token(claim.execution, self.name, claim.era), self.now))

    def clear(self, kind: str, execution: str, era: int) -> None:
        self.effects.append(ClearTimer(kind, ids.token(execution, self.name, era)))

    def answer(self, event: KeyRecord, answer: str) -> None:
        holder = self.key.holders[0].execution if self.key.holders and answer != "released" else ""
        self.effects.append(
            Send(
                KeyAnswer(
                    execution=event.execution,
                    ts=self.now,
                    source="",
                    key=self.name,
                    era=event.era,
                    answer=answer,
                    holder=holder,
                )
            )
        )


def fold(partition: PartitionState, event: KeyRecord) -> list[Effect]:
    """Folds what an execution says to a key that lives in this partition; `partition.keys` holds it."""
    key = partition.keys.setdefault(event.key, Key([], []))
    step = _Fold(event.key, key, [], partition.ts)
    match event:
        case Acquire():
            _acquire(step, event)
        case Holds():
            step.clear("grant", event.execution, event.era)
        case Release():
            _release(step, event)
    return step.effects


def _acquire(step: _Fold, event: Acquire) -> None:
    holders, queue = step.key.holders, step.key.queue
    if (held := _find(holders, event)) is not None:
        step.timer("grant", held)
    elif _find(queue, event) is not None:
        step.answer(event, "queued")
    elif not queue and len(holders) < event.limit:
        queue.append(Claim(event.execution, event.era, event.limit, event.on_conflict))
        _settle(step)
    elif event.on_conflict in ("skip", "reject") or len(queue) >= MOST_WAITING:
        step.answer(event, "refused")
    else:
        queue.append(Claim(event.execution, event.era, event.limit, event.on_conflict))
        step.answer(event, "queued")
        _settle(step)


def _release(step: _Fold, event: Release) -> None:
    for claims in (step.key.holders, step.key.queue):
        if (claim := _find(claims, event)) is not None:
            claims.remove(claim)
            step.clear("grant", event.execution, event.era)
            step.clear("evict", event.execution, event.era)
            _settle(step)
    step.answer(event, "released")


def _find(claims: list[Claim], event: KeyRecord) -> Claim | None:
    return next((c for c in claims if c.execution == event.execution and c.era == event.era), None)


def _settle(step: _Fold) -> None:
    """Grants what is free, asks the oldest holders for the places that `cancel_running` wants, and keeps the key."""
    holders, queue = step.key.holders, step.key.queue
    while queue and len(holders) < queue[0].limit:
        claim = queue.pop(0)
        holders.append(claim)
        step.timer("grant", claim)
    wanted = sum(claim.on_conflict == "cancel_running" for claim in queue)
    for claim in holders[:wanted]:
        if not claim.evicted:
            claim.evicted = True
            step.timer("evict", claim)
    step.effects.append(KeepKey(step.name, step.key))
