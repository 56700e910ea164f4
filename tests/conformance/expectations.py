"""Compares what was seen with what a case expects; every difference is a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from conformance.seen import NodeSeen, Seen

_CLOCK_MS = 2
"""Times are whole milliseconds of several processes on one host."""
KNOWN = {
    "status", "output", "error", "nodes", "attempts", "outputs", "absent", "order", "gaps", "lasts", "most", "children",
    "refused", "varies", "before", "apart", "together",
}  # fmt: skip


def differences(expect: Mapping[str, Any], seen: Seen) -> list[str]:
    """Every way in which `seen` is not what `expect` says."""
    return [*seen.surprises, *_differences(expect, seen)]


def _differences(expect: Mapping[str, Any], seen: Seen) -> Iterator[str]:
    if unknown := set(expect) - KNOWN:
        yield f"the case expects unknown things: {unknown}"
    if "refused" in expect or seen.refused is not None:
        if sorted(expect.get("refused", [])) != sorted(seen.refused or []):
            yield f"refused at {seen.refused}, expected {expect.get('refused')}"
        return
    if seen.status != expect["status"]:
        yield f"the execution is {seen.status}, expected {expect['status']} (its error: {seen.error})"
    if "output" in expect and seen.output != expect["output"]:
        yield f"the output is {seen.output!r}, expected {expect['output']!r}"
    if "error" in expect:
        yield from _error(expect["error"], seen.error)
    yield from _nodes(expect, seen)
    yield from _times(expect, seen)
    yield from _others(expect, seen)
    for path, child in expect.get("children", {}).items():
        node = seen.nodes.get(path)
        if node is None or node.child is None:
            yield f"{path} has no child"
        else:
            yield from (f"child of {path}: {difference}" for difference in differences(child, node.child))


def _others(expect: Mapping[str, Any], seen: Seen) -> Iterator[str]:
    """What is expected of the executions before this one."""
    for other in seen.before if "before" in expect else ():
        yield from (f"an execution before: {difference}" for difference in differences(expect["before"], other))
    for key, wanted in (("apart", False), ("together", True)):
        if key in expect:
            runs = [run.nodes[expect[key]] for run in (*seen.before, seen)]
            if _overlap(runs) is not wanted:
                yield f"{expect[key]} did {'not ' if wanted else ''}run in two executions at once"


def _overlap(nodes: list[NodeSeen]) -> bool:
    spans = sorted((node.started, node.ended) for node in nodes if node.started and node.ended)
    return any(then < ended - _CLOCK_MS for (_, ended), (then, _) in pairwise(spans))


def _error(expect: Mapping[str, Any] | None, seen: Mapping[str, Any] | None) -> Iterator[str]:
    if expect is None or seen is None:
        if expect is not seen:
            yield f"the error is {seen}, expected {expect}"
        return
    for key, value in expect.items():
        found = seen.get(key)
        if (key == "message" and value not in (found or "")) or (key != "message" and found != value):
            yield f"the error's {key} is {found!r}, expected {value!r}"


def _nodes(expect: Mapping[str, Any], seen: Seen) -> Iterator[str]:
    for key, attribute in (("nodes", "status"), ("attempts", "attempts"), ("outputs", "output")):
        for path, value in expect.get(key, {}).items():
            node = seen.nodes.get(path)
            if node is None:
                yield f"there is no node {path}"
            elif getattr(node, attribute) != value:
                yield f"{path}: {attribute} is {getattr(node, attribute)!r}, expected {value!r} ({node.error})"
    for path in expect.get("absent", ()):
        if path in seen.nodes:
            yield f"there is a node {path} ({seen.nodes[path].status}), expected none"


def _times(expect: Mapping[str, Any], seen: Seen) -> Iterator[str]:
    for sequence in expect.get("order", ()):
        moments = [_moment(event, seen.nodes) for event in sequence]
        for (event, at), (next_event, then) in pairwise(zip(sequence, moments, strict=True)):
            if at is None or then is None:
                yield f"no time is known of {event!r} or {next_event!r}: {at}, {then}"
            elif then < at - _CLOCK_MS:
                yield f"{next_event} {at - then:g} ms before {event}"
    for path, gaps in expect.get("gaps", {}).items():
        found = list(_gaps(seen.nodes.get(path)))
        if len(found) != len(gaps) or any(is_ < least - _CLOCK_MS for is_, least in zip(found, gaps, strict=True)):
            yield f"{path}: {found} ms between attempts, expected at least {gaps}"
    for path, least in expect.get("lasts", {}).items():
        node = seen.nodes.get(path)
        if node is None or node.started is None or node.ended is None:
            yield f"no times are known of {path}"
        elif node.ended - node.started < least - _CLOCK_MS:
            yield f"{path} took {node.ended - node.started:g} ms, expected at least {least}"
    for path, most in expect.get("most", {}).items():
        together = _most(path, seen.nodes)
        if not 0 < together <= most:
            yield f"{together} items of {path} ran at once, expected at most {most}"


def _moment(event: str, nodes: Mapping[str, NodeSeen]) -> float | None:
    path, _, what = event.rpartition(" ")
    node = nodes.get(path)
    if node is None:
        return None
    return {"starts": node.started, "ends": node.ended}[what]


def _gaps(node: NodeSeen | None) -> Iterator[float]:
    tries = node.tries if node else ()
    for (_, ended), (started, _) in pairwise(tries):
        yield -1 if ended is None or started is None else started - ended


def _most(path: str, nodes: Mapping[str, NodeSeen]) -> int:
    """The most attempts of items that ran at once."""
    changes: list[tuple[float, int]] = []
    for name, node in nodes.items():
        if name.startswith(f"{path}["):
            for started, ended in node.tries:
                if started is not None and ended is not None and ended > started:
                    changes += [(started, 1), (ended, -1)]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most
