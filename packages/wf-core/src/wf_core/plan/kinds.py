"""What is particular to each kind of node, compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from wf_core.expressions import Template
from wf_core.plan.model import (
    ApprovalPlan,
    Body,
    ChildPlan,
    DynamicPlan,
    EndPlan,
    KindPlan,
    LoopPlan,
    MapPlan,
    OnTimeout,
    SwitchCase,
    SwitchPlan,
    WaitPlan,
    WaitTerm,
)
from wf_core.schema.canonical import canonical_bytes
from wf_core.schema.document import duration_ms, inline_document
from wf_core.schema.fields import is_template, milliseconds, tolerance
from wf_core.schema.nodes import (
    ApprovalSchema,
    ChildSchema,
    DynamicSchema,
    EndSchema,
    LoopSchema,
    MapSchema,
    SwitchSchema,
    TermSchema,
    WaitSchema,
)

if TYPE_CHECKING:
    from wf_core.plan.compiling import BodyCompiler


def _switch(body: BodyCompiler, index: int, _id: str, node: SwitchSchema, here: str) -> SwitchPlan:
    cases = tuple(
        SwitchCase(
            body.expression(_condition_text(case.when), f"{here}/cases/{position}/when", index),
            body.switch(index, case.to),
        )
        for position, case in enumerate(node.cases)
    )
    return SwitchPlan(cases, body.switch(index, node.default))


def _map(body: BodyCompiler, index: int, node_id: str, node: MapSchema, here: str) -> MapPlan:
    count, share = tolerance(node.tolerate)
    return MapPlan(
        items=body.template(node.items, f"{here}/items", index),
        as_=node.as_,
        body=_map_body(body, index, node_id, node, here),
        max_parallel=1 if node.order == "sequential" else node.max_parallel,
        batch=node.batch,
        tolerate=count,
        tolerate_share=share,
    )


def _map_body(body: BodyCompiler, index: int, node_id: str, node: MapSchema, here: str) -> Body:
    if node.nodes is not None:
        inside = body.inside(index, node.nodes, here)
        return inside.body(inside.nodes(node.nodes, f"{here}/nodes"), inside.output(node.output))
    inside = body.inside(index, {}, here)
    return body.single(body.item(node_id, node, inside.template(node.params or {}, f"{here}/params", None)), here)


def _loop(body: BodyCompiler, index: int, _id: str, node: LoopSchema, here: str) -> LoopPlan:
    inside = body.inside(index, node.nodes, here)
    nodes = inside.nodes(node.nodes, f"{here}/nodes")
    before = None if node.while_ is None else _condition_text(node.while_)
    after = None if node.until is None else _condition_text(node.until)
    return LoopPlan(
        while_=None if before is None else body.expression(before, f"{here}/while", index),
        until=None if after is None else inside.expression(after, f"{here}/until", None),
        body=inside.body(nodes, inside.output(node.output)),
        max_iterations=node.max_iterations,
        delay_ms=milliseconds(node.delay) or 0,
        keep_last=node.keep_last,
    )


def _child(body: BodyCompiler, index: int, node_id: str, node: ChildSchema, here: str) -> ChildPlan:
    document = None
    if node.nodes is not None:
        document = canonical_bytes(inline_document(body.owner.document, node_id, node))
    return ChildPlan(
        workflow=node.workflow,
        version=node.version,
        document=document,
        input=body.template({} if node.input is None else node.input, f"{here}/input", index),
        on_parent_close=node.on_parent_close,
    )


def _wait(body: BodyCompiler, index: int, _id: str, node: WaitSchema, here: str) -> WaitPlan:
    timeout = milliseconds(node.timeout)
    on_timeout = _on_timeout(body, index, node.on_timeout, here)
    if node.any is not None:
        return WaitPlan("any", _terms(body, index, node.any, f"{here}/any"), timeout, on_timeout)
    if node.all is not None:
        return WaitPlan("all", _terms(body, index, node.all, f"{here}/all"), timeout, on_timeout)
    return WaitPlan("one", (_term(body, index, node, here),), timeout, on_timeout)


def _terms(body: BodyCompiler, index: int, terms: list[TermSchema], here: str) -> tuple[WaitTerm, ...]:
    return tuple(_term(body, index, term, f"{here}/{position}") for position, term in enumerate(terms))


def _term(body: BodyCompiler, index: int, term: TermSchema | WaitSchema, here: str) -> WaitTerm:
    duration: Template | int | None = None
    if term.duration is not None:
        given = term.duration
        duration = body.template(given, f"{here}/duration", index) if is_template(given) else duration_ms(given)
    return WaitTerm(
        name=term.signal or ("until" if term.duration is None else "duration"),
        duration_ms=duration,
        until=None if term.until is None else body.template(term.until, f"{here}/until", index),
        signal=term.signal,
        match=None if term.match is None else body.expression(term.match, f"{here}/match", index),
    )


def _approval(body: BodyCompiler, index: int, _id: str, node: ApprovalSchema, here: str) -> ApprovalPlan:
    return ApprovalPlan(
        schema=node.schema_,
        assignees=body.template(node.assignees, f"{here}/assignees", index),
        timeout_ms=milliseconds(node.timeout),
        on_timeout=_on_timeout(body, index, node.on_timeout, here),
    )


def _on_timeout(body: BodyCompiler, index: int, value: Any, here: str) -> OnTimeout:
    if not isinstance(value, dict):
        return value  # type: ignore[no-any-return]
    return body.template(value["value"], f"{here}/on_timeout/value", index)


def _end(body: BodyCompiler, index: int, _id: str, node: EndSchema, here: str) -> EndPlan:
    return EndPlan(
        status=node.status,
        output=None if node.output is None else body.template(node.output, f"{here}/output", index),
        error=None if node.error is None else body.template(node.error, f"{here}/error", index),
    )


def _dynamic(body: BodyCompiler, index: int, _id: str, node: DynamicSchema, here: str) -> DynamicPlan:
    return DynamicPlan(body.template(node.nodes, f"{here}/nodes", index), tuple(node.allow), node.max_nodes)


def _condition_text(value: str | bool) -> str:
    return value if isinstance(value, str) else "true" if value else "false"


SPECS: Mapping[str, Callable[[BodyCompiler, int, str, Any, str], KindPlan]] = {
    "switch": _switch,
    "map": _map,
    "loop": _loop,
    "workflow": _child,
    "wait": _wait,
    "approval": _approval,
    "end": _end,
    "dynamic": _dynamic,
}
