"""API, orchestrators and workers as generators: each `yield` is a point where the process may die or be paused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from simulation.world import (
    ACCEPTED_MS,
    BY_HASH,
    DEATH_MS,
    KEYS,
    LEASE_MS,
    ORPHAN_MS,
    PARTITIONS,
    PLANS,
    TASK_PARTITIONS,
    Data,
    Shard,
    TimedOut,
    World,
    load_execution,
    partition_of,
)

from wf_core import ids, wire
from wf_core.policies import Retry
from wf_core.states import AttemptStatus
from wf_orchestrator.machine.decide import decide
from wf_orchestrator.machine.effects import ClearTimer, Dispatch, Ended, Outcome, SetTimer
from wf_orchestrator.machine.snapshot import to_ops
from wf_orchestrator.machine.state import Execution, PartitionState
from wf_orchestrator.policies.retry import Exponential
from wf_orchestrator.policies.verdict import verdict

Steps = Iterator[None]
SLOTS = 2
AGAIN_MS = 2_000
RESCAN_MS = 3_000
RESEND_MS = 5_000
MOST_TRIES = 20


def _record(world: World, kind: type[Any], execution_id: str, **values: Any) -> Any:
    return kind(execution=execution_id, ts=world.now, source="sim", **values)


# -- API


def api(world: World, executions: list[tuple[str, int]], cancels: list[str]) -> Steps:
    """Creates and triggers executions, cancels some. It may die between accepting a command and appending it."""
    for execution_id, number in executions:
        plan = PLANS[number % len(PLANS)]
        created = _record(world, wire.Created, execution_id, id="create", document=plan.hash, name=plan.name)
        triggered = _record(world, wire.Triggered, execution_id, id="trigger")
        for verb, event in (("create", created), ("trigger", triggered)):
            yield from _command(world, execution_id, verb, event)
    for execution_id in cancels:
        for _ in range(world.random.randint(10, 400)):
            yield
        yield from _command(world, execution_id, "cancel", _record(world, wire.Cancelled, execution_id, id="cancel"))


def _command(world: World, execution_id: str, verb: str, event: wire.Event) -> Steps:
    p = partition_of(execution_id)
    name = f"{execution_id}/{verb}"

    def accept(data: Data) -> None:
        shard = data.shards[p]
        if verb == "create" and shard.store.get(shard.keys.execution(execution_id)):
            return
        shard.accepted.setdefault(name, (world.now, event))

    while True:
        yield
        with suppress(TimedOut):
            world.call(accept)
            break
    if world.chance(0.2):
        return  # it died here: the sweep appends the command
    for _ in range(3):
        yield
        with suppress(TimedOut):
            world.append(world.log[p], event)
            return


# -- orchestrator


@dataclass
class Owned:
    """What an owner remembers of a partition."""

    nonce: str
    off: int
    inc: int
    gen: int
    catch_up: int
    state: PartitionState
    executions: dict[str, Execution] = field(default_factory=dict)
    pending: dict[str, wire.TaskMessage] = field(default_factory=dict)
    acknowledged: list[tuple[str, tuple[int, int, int]]] = field(default_factory=list)
    timers: dict[str, int] = field(default_factory=dict)
    fired: dict[str, int] = field(default_factory=dict)
    watch: dict[str, tuple[int, int]] = field(default_factory=dict)
    sent_at: dict[str, int] = field(default_factory=dict)
    tries: Counter[str] = field(default_factory=Counter)
    live: bool = False


class Orchestrator:
    """The steps of an owner, one method each, in the order of the protocol."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.owned: dict[int, Owned] = {}

    def run(self) -> Steps:
        """For ever."""
        while True:
            for p in range(PARTITIONS):
                yield
                try:
                    if p in self.owned:
                        yield from self._round(p, self.owned[p])
                    elif self.world.random.random() < 0.5:
                        self._lease(p)
                except TimedOut:
                    pass

    def _lease(self, p: int) -> None:
        w = self.world
        nonce = w.unique(self.name)

        def lease(data: Data) -> Owned | None:
            m = data.shards[p].meta
            if m.own and m.lease > w.now:
                return None
            m.own, m.lease, m.live = nonce, w.now + LEASE_MS, False
            if m.inc not in (0, w.incarnation):  # another log: start over in it
                m.off, m.bid, m.gen = 0, "", m.gen + 1
            m.inc = w.incarnation
            return Owned(nonce, m.off, m.inc, m.gen, len(w.log[p]), PartitionState(m.seq, m.ts))

        owned = w.call(lease)
        if owned is None:
            return
        shard = w.call(lambda data: data.shards[p], writes=False)
        messages = shard.store.get(shard.keys.messages)
        owned.pending = {token: wire.decode_task(messages[token]) for token in shard.outbox if token in messages}
        owned.timers = dict(shard.store.get(shard.keys.timers))
        self.owned[p] = owned

    def _round(self, p: int, o: Owned) -> Steps:
        w = self.world
        if w.incarnation != o.inc:
            self.owned.pop(p)
            return
        records = w.log[p][o.off : o.off + w.random.randint(1, 4)]
        if records:
            yield from self._fold(p, o, records)
            if p not in self.owned:
                return
        self._renew(p, o)
        if p not in self.owned:
            return
        if o.live:
            yield from self._send(p, o)
            if p in self.owned:
                yield from self._fire(p, o)
                yield from self._sweep(p, o)

    def _fold(self, p: int, o: Owned, records: list[wire.Event]) -> Steps:
        w = self.world
        shard = w.call(lambda data: data.shards[p], writes=False)
        if shard.meta.off != o.off:
            self.owned.pop(p)  # Redis went back: what it says now belongs to another offset
            return
        outcomes = self._outcomes(p, o, shard, records)
        ops = to_ops(KEYS[p], outcomes, o.gen)
        if w.mutant == "produce first":
            for effect in (
                effect for outcome in outcomes for effect in outcome.effects if isinstance(effect, Dispatch)
            ):
                w.append(w.tasks[w.random.randrange(TASK_PARTITIONS)], effect.message)
        yield  # decided, nothing written
        following, batch = o.off + len(outcomes), w.unique(o.nonce)
        reply = ""
        for _ in range(4):
            try:
                reply = w.call(lambda data: self._apply(data.shards[p], o, following, batch, ops))
                break
            except TimedOut:
                yield
        if reply not in ("OK", "DUP"):
            w.stats[f"apply {reply or 'unknown'}"] += 1
            self.owned.pop(p, None)
            return
        if w.mutant == "offset apart":
            yield
            w.call(lambda data: setattr(data.shards[p].meta, "off", following))
        o.off = following
        for outcome in outcomes:
            self._remember(o, outcome)
        yield  # written, nothing sent

    def _outcomes(self, p: int, o: Owned, shard: Shard, records: list[wire.Event]) -> list[Outcome]:
        for event in records:  # before the fold, which does no I/O
            if event.execution not in o.executions and (found := load_execution(shard.store, KEYS[p], event.execution)):
                o.executions[event.execution] = found
        outcomes: list[Outcome] = []
        for n, event in enumerate(records):
            plan = BY_HASH[event.document] if isinstance(event, wire.Created) else None
            outcome = decide(o.state, o.executions.get(event.execution), event, o.off + n, plan)
            if outcome.execution is not None:
                o.executions[event.execution] = outcome.execution
            outcomes.append(outcome)
        return outcomes

    def _apply(self, shard: Shard, o: Owned, following: int, batch: str, ops: list[Any]) -> str:
        m = shard.meta
        unfenced = "no nonce" in self.world.mutant
        if m.own != o.nonce and not unfenced:
            return "FENCED"
        if m.off != o.off and "no offset check" not in self.world.mutant:
            return "DUP" if (m.off, m.bid) == (following, batch) else "BEHIND"
        if self.world.mutant == "no outbox":
            ops = [op for op in ops if op[1] != shard.keys.outbox("default")]
        shard.store.apply(ops)
        if self.world.mutant != "offset apart":
            m.off = following
        m.bid, m.seq, m.ts = batch, o.state.seq, o.state.ts
        return "OK"

    def _remember(self, o: Owned, outcome: Outcome) -> None:
        for effect in outcome.effects:
            if isinstance(effect, Dispatch) and self.world.mutant != "produce first":
                o.pending[effect.token] = effect.message
            elif isinstance(effect, Ended):
                o.pending.pop(effect.token, None)
            elif isinstance(effect, SetTimer):
                o.timers[f"{effect.kind}|{effect.token}"] = effect.due_ms
            elif isinstance(effect, ClearTimer):
                o.timers.pop(f"{effect.kind}|{effect.token}", None)

    def _renew(self, p: int, o: Owned) -> None:
        w = self.world

        def renew(data: Data) -> int | None:
            m = data.shards[p].meta
            if m.own != o.nonce and "no nonce" not in w.mutant:
                return None
            m.lease = w.now + LEASE_MS
            m.live = m.live or o.off >= o.catch_up
            return m.off

        stored = w.call(renew)
        if stored != o.off and w.mutant != "no rewind":
            w.stats["rewinds"] += 1
            self.owned.pop(p, None)
        o.live = o.live or o.off >= o.catch_up

    def _send(self, p: int, o: Owned) -> Steps:
        w = self.world
        for token, message in list(o.pending.items()):
            t, inc = w.random.randrange(TASK_PARTITIONS), w.incarnation
            if w.mutant == "trim first":
                w.call(lambda data, token=token: self._trim(data.shards[p], o, [(token, (0, -1, 0))]))
                yield
            offset = w.append(w.tasks[t], message)
            o.pending.pop(token, None)
            o.acknowledged.append((token, (t, offset, inc)))
            yield
        if o.acknowledged and not w.call(lambda data: self._trim(data.shards[p], o, o.acknowledged)):
            self.owned.pop(p, None)
            return
        o.acknowledged = []

    def _trim(self, shard: Shard, o: Owned, sent: list[tuple[str, tuple[int, int, int]]]) -> bool:
        if shard.meta.own != o.nonce and "no nonce" not in self.world.mutant:
            return False
        for token, where in sent:
            if token in shard.in_flight:
                shard.sent[token] = where
            shard.outbox.pop(token, None)
        return True

    def _fire(self, p: int, o: Owned) -> Steps:
        w = self.world
        for name, due in list(o.timers.items()):
            if due > w.now or o.fired.get(name, -AGAIN_MS) > w.now - AGAIN_MS:
                continue
            o.fired[name] = w.now
            kind, _, token = name.partition("|")
            execution_id, node, attempt = ids.split_token(token)
            if kind == "decide":
                yield from self._decide(p, execution_id, node, attempt)
            elif kind == "withdraw":
                if w.call(lambda data, token=token: self._withdraw(data.shards[p], o, token)):
                    yield
                    lost = _record(w, wire.Lost, execution_id, node=node, attempt=attempt, reason="withdrawn")
                    w.append(w.log[p], lost)
            else:
                timer = _record(w, wire.Timer, execution_id, timer=kind, node=node, attempt=attempt)
                w.append(w.log[p], timer)
            yield

    def _decide(self, p: int, execution_id: str, node: str, attempt: int) -> Steps:
        w = self.world
        shard = w.call(lambda data: data.shards[p], writes=False)
        execution = load_execution(shard.store, KEYS[p], execution_id)
        request = execution and execution.verdict_request(node, attempt)
        if not request:
            return
        yield
        answer = verdict(Exponential(), **request._asdict())
        delay = answer.delay_ms if isinstance(answer, Retry) else None
        decision = _record(
            w, wire.Decision, execution_id, node=node, attempt=attempt, delay_ms=delay, reason="sim", policy="sim"
        )
        w.append(w.log[p], decision)

    def _withdraw(self, shard: Shard, o: Owned, token: str) -> bool:
        claim = shard.claims.get(token)
        if shard.meta.own != o.nonce or token not in shard.in_flight or (claim and claim[0] != "condemned"):
            return False
        shard.claims[token] = ("condemned", self.world.now)
        return True

    def _sweep(self, p: int, o: Owned) -> Steps:
        w = self.world
        shard, tasks = w.call(lambda data: (data.shards[p], data.tasks), writes=False)
        if w.mutant != "no re-scan":
            messages = shard.store.get(shard.keys.messages)
            for token in shard.outbox:
                old = int(shard.in_flight.get(token, w.now)) + RESCAN_MS < w.now
                if old and token in messages and token not in o.pending and self._again(o, "outbox|" + token):
                    o.pending[token] = wire.decode_task(messages[token])
        for worker, beat in shard.beats.items():
            if o.watch.get(worker, (None,))[0] != beat:
                o.watch[worker] = (beat, w.now)
        if w.mutant != "no sweep":
            for token in list(shard.in_flight):
                reason = self._judge(shard, tasks, o, token)
                if reason and self._again(o, token) and w.call(lambda data, t=token: self._condemn(data, p, o, t)):
                    w.stats[f"lost {reason}"] += 1
                    execution_id, node, attempt = ids.split_token(token)
                    yield
                    w.append(w.log[p], _record(w, wire.Lost, execution_id, node=node, attempt=attempt, reason=reason))
        for name, (at, event) in shard.accepted.items():
            if at + ACCEPTED_MS < w.now and self._again(o, "accepted|" + name):
                o.tries[name] += 1
                if o.tries[name] > MOST_TRIES:  # its execution was forgotten before anyone was told of it
                    w.call(lambda data, name=name: data.shards[p].accepted.pop(name, None))
                    w.stats["dead letters"] += 1
                    continue
                w.stats["accepted again"] += 1
                w.append(w.log[p], event)
                yield

    def _again(self, o: Owned, name: str) -> bool:
        if o.sent_at.get(name, -AGAIN_MS) > self.world.now - AGAIN_MS:
            return False
        o.sent_at[name] = self.world.now
        return True

    def _judge(self, shard: Shard, tasks: list[Any], o: Owned, token: str) -> str:
        """`dead`, `orphan` or nothing: why an attempt in flight cannot end by itself."""
        w = self.world
        claim = shard.claims.get(token)
        if claim:
            holder = claim[0]
            if holder == "condemned":
                return "dead"
            beat, since = o.watch.setdefault(holder, (shard.beats.get(holder, 0), w.now))
            return "dead" if beat == shard.beats.get(holder, 0) and since + DEATH_MS < w.now else ""
        if token in shard.outbox or int(shard.in_flight[token]) + ORPHAN_MS > w.now or token not in shard.sent:
            return ""
        t, offset, inc = shard.sent[token]
        gone = inc != w.incarnation or offset < 0 or tasks[t].off > offset or offset >= len(w.tasks[t])
        return "orphan" if gone else ""

    def _condemn(self, data: Data, p: int, o: Owned, token: str) -> bool:
        shard = data.shards[p]
        if shard.meta.own != o.nonce or token not in shard.in_flight:
            return False
        if not self._judge(shard, data.tasks, o, token):
            return False
        if self.world.mutant != "no condemning":
            shard.claims[token] = ("condemned", self.world.now)
        return True


# -- worker


@dataclass
class Running:
    """An attempt on a worker."""

    message: wire.TaskMessage
    ends: int
    result: wire.Result | None = None


class Worker:
    """Leases task partitions, claims, runs, answers, and keeps a result until it was folded."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.id = world.unique(name)
        self.running: dict[str, Running] = {}
        self.finished: dict[str, tuple[wire.Result, int, int, int]] = {}
        self.seen: set[str] = set()

    def run(self) -> Steps:
        """For ever."""
        while True:
            yield
            try:
                self._beat_all()
                yield from self._resend()
                for t in range(TASK_PARTITIONS):
                    yield
                    yield from self._take(t)
                yield from self._finish()
            except TimedOut:
                pass

    def _beat_all(self) -> None:
        for p in range(PARTITIONS):
            cancel, folded = self.world.call(lambda data, p=p: self._beat(data.shards[p], p))
            for token in cancel:
                self.running.pop(token, None)
                self.world.stats["cancelled"] += 1
            for token in folded:
                self.finished.pop(token, None)

    def _beat(self, shard: Shard, p: int) -> tuple[list[str], list[str]]:
        now, m = self.world.now, shard.meta
        shard.beats[self.id] = shard.beats.get(self.id, 0) + 1
        cancel, folded, known = [], [], set()
        for token in [*self.running, *self.finished]:
            if partition_of(ids.split_token(token)[0]) != p:
                continue
            known.add(token)
            if token not in shard.in_flight:
                if m.live:
                    (cancel if token in self.running else folded).append(token)
            elif token not in shard.claims:
                shard.claims[token] = (self.id, now)  # a roll-back forgot it
            elif shard.claims[token][0] != self.id and token in self.running:
                cancel.append(token)
        for token, (holder, since) in list(shard.claims.items()):
            if holder == self.id and token not in known and since + ORPHAN_MS < now:
                del shard.claims[token]
        return cancel, folded

    def _resend(self) -> Steps:
        w = self.world
        for token, (result, _, _, at) in list(self.finished.items()):
            if at + RESEND_MS < w.now and w.mutant != "no resend":
                inc = w.incarnation
                self.finished[token] = (result, 0, inc, w.now)
                w.append(w.log[partition_of(result.execution)], result)
                yield

    def _take(self, t: int) -> Steps:
        w = self.world

        def lease(data: Data) -> int | None:
            task = data.tasks[t]
            if task.own not in ("", self.id) and task.lease > w.now:
                return None
            if task.inc not in (0, w.incarnation):
                task.off = 0
            task.own, task.lease, task.inc = self.id, w.now + LEASE_MS, w.incarnation
            return task.off

        offset = w.call(lease)
        if offset is None or len(self.running) >= SLOTS or offset >= len(w.tasks[t]):
            return
        message = w.tasks[t][offset]
        token = ids.token(message.execution, message.node, message.attempt)
        yield  # received, not claimed
        if w.mutant == "commit first":
            w.call(lambda data: self._commit(data, t, offset + 1))
            yield
        p = partition_of(message.execution)
        answer = "OK" if w.mutant == "no claim" else w.call(lambda data: self._claim(data.shards[p], token))
        w.stats[f"claim {answer}"] += 1
        if answer == "OK":
            self.seen.add(token)
            self.running[token] = Running(message, w.now + w.random.randint(10, 1_500))
        if answer != "LATER":
            yield  # claimed, offset not committed
            w.call(lambda data: self._commit(data, t, offset + 1))

    def _claim(self, shard: Shard, token: str) -> str:
        if not shard.meta.live:
            return "LATER"
        if token not in shard.in_flight:
            return "STALE"
        claim = shard.claims.get(token)
        if claim and (claim[0] != self.id or token in self.seen):
            return "DUP"
        shard.claims[token] = (self.id, self.world.now)
        shard.beats[self.id] = shard.beats.get(self.id, 0) + 1
        return "OK"

    def _commit(self, data: Data, t: int, offset: int) -> None:
        task = data.tasks[t]
        if task.own == self.id:
            task.off = max(task.off, offset)

    def _finish(self) -> Steps:
        w = self.world
        for token, running in list(self.running.items()):
            yield
            if token not in self.running or running.ends > w.now:
                continue
            if running.result is None:
                w.runs[token] += 1  # the user's code ran
                running.result = self._result(running.message)
            yield  # it ran, nobody knows
            inc = w.incarnation
            offset = w.append(w.log[partition_of(running.message.execution)], running.result)
            self.running.pop(token, None)
            self.finished[token] = (running.result, offset, inc, w.now)

    def _result(self, message: wire.TaskMessage) -> wire.Result:
        w = self.world
        values: dict[str, Any] = {"output": b"1"}
        if w.chance(0.25):
            status = AttemptStatus.TIMED_OUT if w.random.random() < 0.3 else AttemptStatus.FAILED
            values = {"status": str(status), "error": wire.Failure(type="Oops", message="went wrong")}
        return wire.Result(
            execution=message.execution,
            ts=w.now,
            source=self.id,
            node=message.node,
            attempt=message.attempt,
            worker=self.id,
            started_at=w.now,
            ended_at=w.now,
            **values,
        )


Actor = Callable[[World, str], Steps]
ORCHESTRATOR: Actor = lambda world, name: Orchestrator(world, name).run()  # noqa: E731 - made again after each crash
WORKER: Actor = lambda world, name: Worker(world, name).run()  # noqa: E731 - as above
