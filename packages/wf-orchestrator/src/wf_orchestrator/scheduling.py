"""Asks an execution's scheduling policy in which order its ready nodes are sent."""

from __future__ import annotations

import contextlib
import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import structlog

from wf_core.errors import PluginError
from wf_core.policies import ReadyNode, SchedulingPolicy
from wf_orchestrator.machine.effects import Dispatch, Outcome
from wf_orchestrator.machine.state import Execution
from wf_orchestrator.policy_book import PolicyBook
from wf_orchestrator.ready import Order

log = structlog.get_logger(__name__)

FIRST_COME = "fifo"
"""The policy of documents that name none: it orders only what becomes ready together."""


def arrange(policies: PolicyBook, executions: Mapping[str, Execution], outcomes: Sequence[Outcome]) -> None:
    """Hands the places in the outbox that an execution's nodes got out again, in the order of its policy.

    The places (priority, sequence) stay what they are, so between executions nothing changes. The order is no part of
    the state: a policy that is missing or wrong is logged and changes nothing.
    """
    found: defaultdict[str, list[tuple[Outcome, int, Dispatch]]] = defaultdict(list)
    for outcome in outcomes:
        for i, effect in enumerate(outcome.effects):
            if isinstance(effect, Dispatch):
                found[effect.message.execution].append((outcome, i, effect))
    for execution_id, dispatched in found.items():
        execution = executions.get(execution_id)  # None: it ended and was deleted, all in these outcomes
        if len(dispatched) > 1 and execution is not None and execution.plan is not None:
            _arrange(policies, execution.plan.scheduling, execution_id, dispatched)


def _arrange(
    policies: PolicyBook, name: str, execution_id: str, dispatched: Sequence[tuple[Outcome, int, Dispatch]]
) -> None:
    ordered = _ordered(policies, name, execution_id, [d.ready for _, _, d in dispatched])
    rank: dict[ReadyNode, int] = {node: i for i, node in enumerate(ordered)}
    wanted = sorted(dispatched, key=lambda one: (rank[one[2].ready], one[2].seq))
    places = sorted(((d.priority, d.seq) for _, _, d in dispatched), key=lambda place: (-place[0], place[1]))
    for (outcome, i, dispatch), (priority, seq) in zip(wanted, places, strict=True):
        if (dispatch.priority, dispatch.seq) != (priority, seq):
            outcome.effects[i] = msgspec.structs.replace(dispatch, priority=priority, seq=seq)


def order_of(policies: PolicyBook, execution: Execution) -> Order | None:
    """How all of an execution's nodes that wait are ordered, again whenever one joins them.

    None for FIRST_COME: there what has waited longer stays before what becomes ready later.
    """
    if execution.plan is None or execution.plan.scheduling == FIRST_COME:
        return None
    name, key = execution.plan.scheduling, None
    with contextlib.suppress(PluginError):  # said whenever it is asked for the order
        key = _key_of(policies.scheduling(name))
    return Order(
        functools.partial(_ordered, policies, name, execution.id),
        None if key is None else functools.partial(_safely, key, name, execution.id),
    )


def _key_of(policy: SchedulingPolicy) -> Callable[[ReadyNode], Iterable[int]] | None:
    """The policy's `key`, unless a class that has its own `order` inherits it: then it is another policy's."""
    for kind in type(policy).__mro__:
        if "key" in vars(kind):
            key: Callable[[ReadyNode], Iterable[int]] = getattr(policy, "key")  # noqa: B009 - no part of the protocol
            return key
        if "order" in vars(kind):
            return None
    return None


def _safely(
    key: Callable[[ReadyNode], Iterable[int]], name: str, execution_id: str, node: ReadyNode
) -> tuple[float, ...]:
    """The node's key; a node whose key fails comes last."""
    try:
        return tuple(map(int, key(node)))
    except Exception as error:  # noqa: BLE001 - a policy may raise anything
        reason = f"{type(error).__name__}: {error}"
        log.error("key of a scheduling policy failed", policy=name, execution=execution_id, error=reason)
        return (math.inf,)


def _ordered(policies: PolicyBook, name: str, execution_id: str, ready: Sequence[ReadyNode]) -> Sequence[ReadyNode]:
    try:
        ordered = list(policies.scheduling(name).order(ready))
        if len(ordered) != len(ready) or set(ordered) != set(ready):
            raise PluginError("it did not return exactly the nodes that it was given")  # noqa: TRY301 - as if it raised
    except Exception as error:  # noqa: BLE001 - a policy may raise anything
        reason = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        log.error("scheduling policy ignored", policy=name, execution=execution_id, error=reason)
        return ready
    return ordered
