"""Writes executions straight into Redis: the operations that the machine gives for one, again for any number of ids."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wf_core import ids, wire
from wf_core.documents import document_records
from wf_core.plan import load_plan, rules_of
from wf_core.schema.validation import canonical_bytes, document_hash, parse_document
from wf_core.store.keys import PartitionKeys
from wf_core.store.ops import Op, split
from wf_orchestrator.machine.decide import decide
from wf_orchestrator.machine.effects import Dispatch, Outcome
from wf_orchestrator.machine.snapshot import to_ops
from wf_orchestrator.machine.state import PartitionState

_CHUNK = 4 * 2**20

Answer = Callable[[wire.TaskMessage], dict[str, Any]]
"""How an attempt ends: fields of its Result."""


@dataclass(frozen=True)
class Template:
    """An execution as APPLY writes it. `once` is what all of its kind share: the document."""

    execution: str
    moment: int
    """Of its creation, Unix ms."""
    once: bytes
    each: bytes

    def at(self, execution: str, moment: int) -> bytes:
        """The commands that write another one, created at `moment`, Unix ms."""
        return self.each.replace(self.execution.encode(), execution.encode()).replace(
            str(self.moment).encode(), str(moment).encode()
        )


def template(
    namespace: str,
    partition: int,
    document: dict[str, Any],
    answer: Answer | None = None,
    *,
    keep: Callable[[str], bool] = lambda _: True,
) -> Template:
    """An execution that was triggered and, with `answer`, whose attempts have ended. `keep` chooses by the key.

    All that happened to it happened now: what it waits for is as far ahead.
    """
    now = time.time_ns() // 1_000_000
    parsed = parse_document(document)
    canonical = canonical_bytes(parsed)
    name = document_hash(canonical)
    plan = load_plan(canonical, name)
    one = ids.new_execution_id(partition, now)
    common: dict[str, Any] = {"execution": one, "ts": now, "source": "bench"}
    created = wire.Created(
        **common, id=f"{one}-c", document=name, name=parsed.name, labels=parsed.labels, rules=rules_of(parsed)
    )
    state, outcomes = PartitionState(), list[Outcome]()
    wave: list[wire.Event] = [created, wire.Triggered(**common, id=f"{one}-t")]
    execution = None
    while wave:
        known = len(outcomes)
        for event in wave:
            outcomes.append(decide(state, execution, event, len(outcomes), plan))
            execution = outcomes[-1].execution
        wave = list(_results(outcomes[known:], common, answer)) if answer is not None else []
    keys = PartitionKeys.of(namespace, partition)
    parts = [decide(state, None, part, 0) for part in document_records(one, now, "bench", name, canonical)]
    each = (op for op in to_ops(keys, outcomes) if keep(str(op[1])))
    return Template(one, now, _commands(to_ops(keys, parts)), _commands(each))


def _results(outcomes: Iterable[Outcome], common: dict[str, Any], answer: Answer) -> Iterator[wire.Event]:
    for outcome in outcomes:
        for effect in outcome.effects:
            if isinstance(effect, Dispatch):
                message = effect.message
                fields = {"node": message.node, "attempt": message.attempt, "worker": "w", **answer(message)}
                yield wire.Result(**common, **fields, started_at=common["ts"], ended_at=common["ts"])


def _commands(ops: Iterable[Op]) -> bytes:
    return b"".join(command(op) for op in split(ops))


def command(words: Sequence[str | bytes]) -> bytes:
    """A command as it is sent to Redis."""
    parts = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def write(port: int, commands: Iterable[bytes]) -> None:
    """Sends commands and waits for their replies, some megabytes at a time. Raises RuntimeError for one that failed."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        waiting = bytearray()
        for some in commands:
            waiting += some
            if len(waiting) > _CHUNK:
                _send(connection, waiting)
                waiting.clear()
        _send(connection, waiting)


def _send(connection: socket.socket, commands: bytearray) -> None:
    """Replies are short here, so they wait in the buffers of both sides while all is sent."""
    mark = b"all was written"
    reader = connection.makefile("rb")
    connection.sendall(bytes(commands) + command(["ECHO", mark]))
    while (line := reader.readline().rstrip()) != mark:
        if line.startswith(b"-"):
            raise RuntimeError(f"Redis refused what was to be written: {line.decode()}")
