"""What must hold: Redis is the fold of the log at every write, everything ends, nothing is left, nothing runs twice."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from simulation.store import Hash, Members, Zset
from wf_core.states import ExecutionStatus
from wf_core.store.keys import PartitionKeys
from wf_orchestrator.plans import Plans
from wf_orchestrator.refold import Refold
from wf_orchestrator.verify import lines_of

if TYPE_CHECKING:
    from simulation.world import World

_NOT_FOLDED = ("m", "cl", "pg", "hb", "acc", "qa", "qs", "ob")
"""Keys of a partition that other scripts write as well, or that depend on how the log was cut into batches."""


class Violation(AssertionError):  # noqa: N818 - the field's word
    """A promise was broken."""


class Oracle:
    """Folds every partition's log by itself and compares it with what Redis holds."""

    def __init__(self, world: World, partitions: int) -> None:
        self._world = world
        self._plans = Plans()
        self._folds = [self._fresh(p) for p in range(partitions)]

    def _fresh(self, partition: int) -> Refold:
        refold = Refold(self._world.namespace, partition)
        refold._plans = self._plans
        return refold

    def check(self, partition: int) -> None:
        """Raises Violation unless Redis is the fold of the partition's log up to the stored offset."""
        refold = self._folds[partition]
        store = self._world.redis.store.keys
        offset = int(store.get(refold.keys.meta.encode(), {}).get(b"off", b"0"))
        if offset < refold.offset:  # Redis went back
            refold = self._folds[partition] = self._fresh(partition)
        records = self._world.log.records(self._world.events(partition))
        if offset > len(records):
            raise Violation(f"partition {partition} stores the offset {offset}, but its log ends at {len(records)}")
        if offset > refold.offset:
            _finish(refold.add(records[refold.offset : offset]))
        self._compare(partition, refold.keys, refold.model.keys)

    def _compare(self, partition: int, keys: PartitionKeys, expected: dict[str, Any]) -> None:
        prefix = keys.prefix + ":"
        found: dict[str, Any] = {}
        for raw, value in self._world.redis.store.keys.items():
            key = raw.decode()
            if key.startswith(prefix):
                found[key] = set(value) if value.__class__ is Members else value
        skipped = len(prefix)
        for key in expected.keys() | found.keys():
            if key[skipped:].partition(":")[0] not in _NOT_FOLDED and not _same(expected.get(key), found.get(key)):
                raise Violation(
                    f"partition {partition}: {key} is not the fold of the log: {_difference(expected, found, key)}"
                )
        waiting = {token for key in found if key.startswith(keys.outbox("")) for token in found[key]}
        sent, begun = found.get(keys.sent, {}), expected.get(keys.claims, {})
        for token in found.get(keys.in_flight, {}):
            if token not in waiting and token not in sent and token not in begun:
                raise Violation(f"{token.decode()} is in flight, but neither in an outbox, nor sent, nor begun")

    # --- the end

    def residue(self) -> dict[str, list[str]]:
        """What must be empty when every execution has ended."""
        left: defaultdict[str, list[str]] = defaultdict(list)
        for raw, value in self._world.redis.store.keys.items():
            key = raw.decode()
            kind = key.partition("}:")[2].partition(":")[0]
            if kind in {"q", "om", "ob", "qa", "tm", "cl", "acc", "ck"} and isinstance(value, Hash | Zset):
                left[kind] += [name.decode() for name in value]
        return dict(left)

    def statuses(self) -> dict[str, ExecutionStatus]:
        """Every execution that Redis knows of."""
        return {
            raw.decode().rpartition(":")[2]: ExecutionStatus(value[b"status"].decode())
            for raw, value in self._world.redis.store.keys.items()
            if raw.partition(b"}:")[2].startswith(b"x:")
        }

    def check_histories(self) -> None:
        """Raises Violation when a node ended twice, or an attempt's number went back.

        A node inside a container that is tried again ends once for each of its attempts, and any node once more after
        each `retry` of the execution.
        """
        for raw, entries in self._world.redis.store.keys.items():
            if raw.partition(b"}:")[2].startswith(b"h:"):
                self._check_history(raw.decode(), entries)

    def _check_history(self, key: str, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        ended: set[tuple[str, int]] = set()
        attempts: dict[str, int] = {}
        for line in lines_of(entries):
            kind, node, attempt = line.kind, line.node, line.attempt
            if kind == "execution.retried":
                ended.clear()
            if kind.startswith("node.") and kind != "node.caught" and line.status in _TERMINAL:
                inside = "/" in node or "[" in node
                once = (node, attempt if inside else 0)
                if once in ended and (attempt or not inside):
                    raise Violation(f"{key}: node {node} ended twice")
                ended.add(once)
            if kind == "node.failed" and b"PlatformError" in line.data:
                raise Violation(f"{key}: every attempt of node {node} was lost to the platform")
            if node and attempt:
                if attempt < attempts.get(node, 0):
                    raise Violation(f"{key}: the attempts of node {node} went back to {attempt}")
                attempts[node] = attempt


_TERMINAL = {"COMPLETED", "FAILED", "CANCELLED", "SKIPPED", "UPSTREAM_FAILED"}


def _same(expected: Any, found: Any) -> bool:
    if isinstance(expected, list) and isinstance(found, list):  # a history
        return lines_of(expected) == lines_of(found)
    return bool(expected == found)


def _difference(expected: dict[str, Any], found: dict[str, Any], key: str) -> str:
    was, now = expected.get(key), found.get(key)
    if isinstance(was, dict) and isinstance(now, dict):
        names = [name for name in was.keys() | now.keys() if was.get(name) != now.get(name)]
        return ", ".join(f"{n!r}: {was.get(n)!r} expected, {now.get(n)!r} found" for n in sorted(names)[:4])
    if isinstance(was, list) and isinstance(now, list):
        at = next(
            (i for i, pair in enumerate(zip(was, now, strict=False)) if pair[0] != pair[1]), min(len(was), len(now))
        )
        return f"entry {at}: {was[at : at + 1]} expected, {now[at : at + 1]} found"
    return f"{was!r} expected, {now!r} found"


def _finish(coroutine: Any) -> None:
    """Runs a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("folding the log again waited for something")
