"""The records by which executions and their children speak, made of what is known: no I/O, and time is an argument.

Every record may be appended again: its id, or the child's, is always the same one. `source` says who appends, `now` is
Unix ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from wf_core import ids, payload
from wf_core.broker.protocol import MAX_RECORD_BYTES
from wf_core.documents import document_records
from wf_core.errors import DocumentError, PayloadError
from wf_core.plan import resolved_retry, rules_of
from wf_core.schema.document import duration_ms
from wf_core.schema.inputs import validate_input
from wf_core.states import ExecutionStatus
from wf_core.wire import (
    Cancelled,
    ChildEnded,
    Created,
    Event,
    Failure,
    FrozenSettings,
    Parent,
    Paused,
    Resumed,
    Timer,
    Triggered,
)
from wf_orchestrator.machine.kinds.workflow import closing, passed_down

if TYPE_CHECKING:
    from wf_core.plan import ChildPlan, Plan
    from wf_orchestrator.machine.state import Execution

_LONGEST_OUTPUT = MAX_RECORD_BYTES - 64 * 1024


def birth(  # noqa: PLR0913 - the parent's node, the document, who appends it when
    x: Execution, index: int, plan: Plan, *, document: bytes | None, source: str, now: int
) -> list[Event]:
    """The records that make the child of an open node and start it; ChildEnded when its input is refused.

    `document` is the canonical form of the child's document, when the partition may not have it yet.
    """
    spec: ChildPlan | Any = x.node(index).spec
    token = x.token(index)
    child = ids.child_execution_id(token)
    try:
        given = _input(plan, x, index)
    except (DocumentError, PayloadError) as error:
        message = f"the child {plan.name!r} refuses its input: {error}"
        return [never_started(token, "InvalidInputError", message, source=source, now=now)]
    parent = Parent(execution=x.id, node=x.path(index), attempt=x.cells[index].attempt, on_close=spec.on_parent_close)
    created = Created(
        execution=child,
        ts=now,
        source=source,
        id="spawn",
        document=plan.hash,
        name=plan.name,
        version=plan.version,
        labels={**plan.document.labels, **x.labels},
        input=given,
        settings=inherited(x),
        rules=max(rules_of(plan.document), x.rules),  # whoever ends it must know that its parent is to be told
        parent=parent,
        depth=x.depth + 1,
        definitions=x.definitions,
    )
    parts = [] if document is None else document_records(child, now, source, plan.hash, document)
    return [*parts, created, Triggered(execution=child, ts=now, source=source, id="spawn-trigger")]


def _input(plan: Plan, x: Execution, index: int) -> bytes:
    value = validate_input(plan.document, payload.decode(x.inputs[index]))
    return payload.encode(value, limit=x.settings.max_payload_bytes, what="the input of the child")


def inherited(x: Execution) -> FrozenSettings:
    """The settings of a child: its parent's, under the defaults of its parent's document."""
    defaults = x.plan_of().document.defaults
    if defaults is None:
        return x.settings
    return msgspec.structs.replace(
        x.settings,
        retry=resolved_retry(defaults.retry, x.settings.retry),
        timeout_ms=x.settings.timeout_ms if defaults.timeout is None else duration_ms(defaults.timeout),
    )


def never_started(token: str, kind: str, message: str, *, source: str, now: int) -> ChildEnded:
    """The child of an attempt cannot be started: its node fails."""
    execution, node, attempt = ids.split_token(token)
    return ChildEnded(
        execution=execution,
        ts=now,
        source=source,
        node=node,
        attempt=attempt,
        child=ids.child_execution_id(token),
        status=ExecutionStatus.FAILED,
        error=Failure(type=kind, message=message, fatal=True),
    )


def closed(token: str, *, source: str, now: int) -> Cancelled:
    """The child of an attempt is cancelled, which ended before it."""
    execution, node, _ = ids.split_token(token)
    reason = f"its parent, the node {node!r} of {execution}, has ended"
    child = ids.child_execution_id(token)
    return Cancelled(execution=child, ts=now, source=source, id=closing(token), reason=reason)


def said(token: str, *, source: str, now: int) -> Paused | Resumed:
    """What was said to the parent is said to the child: `token` is that of a timer `down`."""
    word = passed_down(token)
    if word.verb == "resume":
        return Resumed(execution=word.child, ts=now, source=source, id=word.command)
    return Paused(execution=word.child, ts=now, source=source, id=word.command, reason="its parent was paused")


def end(  # noqa: PLR0913 - how the child ended, whom it is told when
    child: str,
    parent: Parent,
    status: ExecutionStatus,
    output: bytes | None,
    error: Failure | None,
    *,
    source: str,
    now: int,
) -> ChildEnded:
    """The parent is told how its child ended."""
    if output is not None and len(output) > _LONGEST_OUTPUT:
        status = ExecutionStatus.FAILED
        message = (
            f"the output of the child execution {child} is {len(output):,} bytes of JSON, more than the "
            f"{_LONGEST_OUTPUT:,} that its parent may be told; say in its `output` what is wanted"
        )
        error = Failure(type="PayloadError", message=message, fatal=True)
    return ChildEnded(
        execution=parent.execution,
        ts=now,
        source=source,
        node=parent.node,
        attempt=parent.attempt,
        child=child,
        status=status,
        output=output if status == ExecutionStatus.COMPLETED else None,
        error=error if status != ExecutionStatus.COMPLETED else None,
    )


def useless(kind: str, token: str, *, source: str, now: int) -> Timer:
    """A timer is of no use any more; the fold looks again whether that is so."""
    if kind == "close":
        child = ids.child_execution_id(token)
        return Timer(execution=child, ts=now, source=source, timer=kind, node=token)
    execution, node, attempt = ids.split_token(token)
    return Timer(execution=execution, ts=now, source=source, timer=kind, node=node, attempt=attempt)
