"""What the end of a node is for each node after it: a switch and a `catch` choose among them.

Counted once for each ended node, so that a join costs what changed and not what there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wf_core.states import NodeStatus

if TYPE_CHECKING:
    from wf_core.plan import CatchPlan
    from wf_core.wire import Failure
    from wf_orchestrator.machine.state import Execution


def count_end(x: Execution, index: int) -> None:
    """Tells the direct downstream nodes of an ended node how it ended."""
    scope = x.owner[index]
    base, local = scope.base, index - scope.base
    downstream = scope.body.graph.downstream[local]
    if not downstream:
        return
    node, status = scope.body.nodes[local], x.cells[index].status
    if status is NodeStatus.COMPLETED or (status is NodeStatus.FAILED and node.on_error == "continue"):
        ends = x.succeeded
    elif status is NodeStatus.SKIPPED:
        ends = x.skipped
    else:
        ends = x.failed
    if node.catch or node.kind == "switch":
        _count_choice(x, index, ends)
        return
    for follower in downstream:
        ends[base + follower] += 1


def _count_choice(x: Execution, index: int, ends: list[int]) -> None:
    scope = x.owner[index]
    for follower in scope.body.graph.downstream[index - scope.base]:
        if index in x.caught and x.caught[index] == follower:
            x.succeeded[scope.base + follower] += 1
        elif _passes_by(x, index, follower):
            x.skipped[scope.base + follower] += 1
        else:
            ends[scope.base + follower] += 1


def _passes_by(x: Execution, index: int, follower: int) -> bool:
    """Whether a node counts as skipped for its `follower` (an index in the body), however it ended.

    A switch that did not choose it; a `catch` that named it and caught nothing for it; a failure that was caught.
    """
    scope = x.owner[index]
    node = scope.node(index)
    if node.kind == "switch":
        taken = chosen(x, index)
        named = index - scope.base in scope.body.nodes[follower].switches
        return taken is not None and named and follower not in taken
    return index in x.caught or any(catch.to == follower for catch in node.catch)


def chosen(x: Execution, index: int) -> tuple[int, ...] | None:
    """The nodes (by index in the body) that a completed switch chose; None when it did not complete."""
    if x.cells[index].status is not NodeStatus.COMPLETED:
        return None
    spec: Any = x.node(index).spec
    case = int(x.outputs[index])
    targets: tuple[int, ...] = spec.default if case < 0 else spec.cases[case].to
    return targets


def is_unchosen(x: Execution, index: int) -> bool:
    """Whether a node, whose upstream has ended, is skipped whatever its join says.

    All switches that name it completed and none chose it; or it is the target of a `catch`, and nothing was caught.
    """
    scope = x.owner[index]
    node = scope.node(index)
    if node.catchers and caught_for(x, index) is None:
        return True
    return bool(node.switches) and all(
        (taken := chosen(x, scope.base + switch)) is not None and index - scope.base not in taken
        for switch in node.switches
    )


def is_open(x: Execution, index: int) -> bool:
    """Whether it may still turn out that no switch chooses a node: one that starts early must not be ahead of that."""
    scope = x.owner[index]
    switches = scope.node(index).switches
    return bool(switches) and all(
        not x.cells[scope.base + switch].status.is_terminal or _passes_by(x, scope.base + switch, index - scope.base)
        for switch in switches
    )


def catch_of(x: Execution, index: int, error: Failure) -> CatchPlan | None:
    """The first `catch` of a node that takes its error."""
    return next((catch for catch in x.node(index).catch if catch.takes(error)), None)


def caught_for(x: Execution, index: int) -> tuple[Failure, str | None] | None:
    """For the target of a `catch`: the error that it runs for, and the name that the document gives it."""
    scope = x.owner[index]
    for local in scope.node(index).catchers:
        catcher = scope.base + local
        if x.caught.get(catcher) == index - scope.base:
            error = x.errors[catcher]
            named = catch_of(x, catcher, error)
            return error, named.as_ if named else None
    return None
