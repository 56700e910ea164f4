"""What becomes of a timer that is due: the record that the orchestrator's shell would append.

Kinds that only say that their time has come are not listed: they give a `Timer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from wf_core import ids
from wf_core.definitions import Reference
from wf_core.errors import PluginError
from wf_core.policies import Retry, Stop
from wf_core.wire import Cached, Decision, Event, KeyAnswer, Lost, Release, Timer
from wf_orchestrator import child_records, expansion_records
from wf_orchestrator.machine import admission, caching, verdicts
from wf_orchestrator.machine.kinds import workflow
from wf_orchestrator.machine.timeouts import UNCLAIMED
from wf_orchestrator.policies.verdict import verdict

if TYPE_CHECKING:
    from wf_core.plan import Plan
    from wf_orchestrator.testing.world import World

Handler = Callable[["World", str], list[Event]]


def fire(world: World, kind: str, token: str) -> list[Event]:
    """The records of a timer that is due; none when it is stale."""
    handler = HANDLERS.get(kind)
    if handler is not None:
        return handler(world, token)
    return [world.about(Timer, token, timer=kind)]


def _decide(world: World, token: str) -> list[Event]:
    """Asks the retry policy."""
    execution_id, node, attempt = ids.split_token(token)
    execution = world.executions.get(execution_id)
    request = verdicts.request(execution, node, attempt) if execution else None
    if request is None:
        return []
    try:
        answer = verdict(world.policies.retry(request.settings.policy), **request._asdict())
    except PluginError as error:
        answer = Stop(str(error))
    delay_ms = answer.delay_ms if isinstance(answer, Retry) else None
    policy = request.settings.policy
    return [world.about(Decision, token, delay_ms=delay_ms, reason=answer.reason, policy=policy)]


def _withdraw(world: World, token: str) -> list[Event]:
    """Takes back an attempt that no worker has begun."""
    return [world.about(Lost, token, reason="withdrawn")] if world.is_waiting(token) else []


def _unclaimed(world: World, token: str) -> list[Event]:
    """Gives up an attempt that no worker took in time."""
    return [world.about(Lost, token, reason=UNCLAIMED)] if world.is_waiting(token) else []


def _spawn(world: World, token: str) -> list[Event]:
    """Starts the child of an attempt that still waits for it."""
    x = world.executions.get(ids.split_token(token)[0])
    index = None if x is None else workflow.waiting(x, token)
    if x is None or index is None:
        return [child_records.useless("spawn", token, **_by(world))]
    spec: Any = x.node(index).spec
    if spec.document is not None:
        plan: Plan | None = world.keep(spec.document)
    else:
        plan = world.plans.get(x.definitions.get(Reference(spec.workflow, spec.version).key, ""))
    if plan is None:
        message = f"no definition {spec.workflow!r} was given; pass definitions={{{spec.workflow!r}: <a document>}}"
        return [child_records.never_started(token, "UnknownDefinitionError", message, **_by(world))]
    return child_records.birth(x, index, plan, document=None, **_by(world))


def _close(world: World, token: str) -> list[Event]:
    """Cancels the child of an attempt that has ended before it."""
    if ids.child_execution_id(token) in world.executions:
        return [child_records.closed(token, **_by(world))]
    return [child_records.useless("close", token, **_by(world))]


def _pass_down(world: World, token: str) -> list[Event]:
    """Says to a child what was said to its parent."""
    if ids.split_token(token)[0] in world.executions:
        return [child_records.said(token, **_by(world))]
    return [child_records.useless("down", token, **_by(world))]


def _tell_parent(world: World, token: str) -> list[Event]:
    """Tells the parent of a child that has ended."""
    x = world.executions.get(ids.split_token(token)[0])
    if x is None:
        return [child_records.useless("child", token, **_by(world))]
    if x.parent is None or not x.status.is_terminal:
        return []
    return [child_records.end(x.id, x.parent, x.status, x.output, x.error, **_by(world))]


def _expand(world: World, token: str) -> list[Event]:
    """Checks the nodes that a dynamic node gave."""
    x = world.executions.get(ids.split_token(token)[0])
    index = None if x is None else expansion_records.waiting(x, token)
    return [] if x is None or index is None else [expansion_records.expanded(x, index, **_by(world))]


def _look_up(world: World, token: str) -> list[Event]:
    """Says what the cache holds for a node that waits for it."""
    execution_id, node, attempt = ids.split_token(token)
    x = world.executions.get(execution_id)
    name = "" if x is None else caching.name_of(x, node, attempt)
    return [world.about(Cached, token, output=world.cached(name))] if name else []


def _acquire(world: World, token: str) -> list[Event]:
    """An execution asks for its concurrency key."""
    x = world.executions.get(ids.split_token(token)[0])
    request = None if x is None else admission.request(x)
    return [] if request is None else [world.stamped(request)]


def _release(world: World, token: str) -> list[Event]:
    """An execution gives its concurrency key back."""
    execution_id, key, era = ids.split_token(token)
    return [world.record(Release, execution_id, key=key, era=era)]


def _answering(answer: str) -> Handler:
    """A concurrency key says something to an execution."""

    def handle(world: World, token: str) -> list[Event]:
        execution_id, key, era = ids.split_token(token)
        return [world.record(KeyAnswer, execution_id, key=key, era=era, answer=answer)]

    return handle


def _by(world: World) -> dict[str, Any]:
    return {"source": "test", "now": world.now_ms}


HANDLERS: Mapping[str, Handler] = {
    "decide": _decide,
    "withdraw": _withdraw,
    "queue": _unclaimed,
    "spawn": _spawn,
    "close": _close,
    "down": _pass_down,
    "child": _tell_parent,
    "expand": _expand,
    "cache": _look_up,
    "acquire": _acquire,
    "release": _release,
    "grant": _answering("granted"),
    "evict": _answering("evicted"),
}
