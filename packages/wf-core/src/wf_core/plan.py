"""The compiled document: what the machine folds over. No clock and no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from wf_core.collector import collector_paused
from wf_core.expressions import (
    Expression,
    Template,
    compile_expression,
    compile_template,
    scan_expression,
    scan_template,
)
from wf_core.graph import Graph, compile_graph
from wf_core.schema.canonical import canonical_bytes, document_hash
from wf_core.schema.document import JOIN_RULES, NodeSchema, RetrySchema, WorkflowSchema, duration_ms
from wf_core.schema.pointers import join as join_pointer
from wf_core.wire import FrozenSettings, RetrySettings

_DURATIONS = {"delay": "delay_ms", "max_delay": "max_delay_ms", "max_elapsed": "max_elapsed_ms"}


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node, ready to be decided over."""

    index: int
    id: str
    task: str
    params: Template
    when: Expression | None
    """None: always."""
    join: str | Expression
    """The name of a rule (`always` is `all_done` here), or CEL over `nodes.<id>.status`."""
    retry: RetrySchema | None
    """The node's over the document's defaults, field by field; None when neither says anything."""
    timeout_ms: int | None
    queue: str
    priority: int
    on_error: str

    def retry_settings(self, frozen: FrozenSettings) -> RetrySettings:
        """The node's retry settings; what the document does not say comes from `frozen`."""
        if self.retry is None:
            return frozen.retry
        given: dict[str, Any] = {}
        for name, value in self.retry:
            if value is None:
                continue
            if name in _DURATIONS:
                given[_DURATIONS[name]] = duration_ms(value)
            else:
                given[name] = tuple(value) if isinstance(value, list) else value
        return msgspec.structs.replace(frozen.retry, **given)


@dataclass(frozen=True, slots=True)
class Plan:
    """A document as the machine reads it. Nodes stand in the document's order; an index names one."""

    hash: str
    name: str
    version: str | None
    nodes: tuple[NodePlan, ...]
    graph: Graph
    index_of: Mapping[str, int]
    leaves: tuple[int, ...]
    """Nodes that nothing depends on."""
    needed_outputs: frozenset[int]
    """Nodes whose output or error a template, a condition, a join or the document's output reads, written or not."""
    on_failure: str
    max_parallel: int | None
    scheduling: str
    timeout_ms: int | None
    output: Template | None
    document: WorkflowSchema


def compile_plan(document: WorkflowSchema) -> Plan:
    """The plan of a document. Raises DocumentError when an expression does not compile or the graph has a cycle."""
    with collector_paused():
        return _Compiler(document, trusted=document.is_checked).plan(document_hash(canonical_bytes(document)))


def load_plan(canonical: bytes, hash: str) -> Plan:  # noqa: A002 - the name that callers use for it
    """The plan of a canonical document that was validated when it was submitted; CEL is compiled when first needed."""
    with collector_paused():
        document = WorkflowSchema.model_validate_json(canonical).checked()
        return _Compiler(document, trusted=True).plan(hash)


class _Compiler:
    def __init__(self, document: WorkflowSchema, *, trusted: bool) -> None:
        self._document = document
        self._index_of = {node_id: index for index, node_id in enumerate(document.nodes)}
        self._expression = scan_expression if trusted else compile_expression
        self._template = scan_template if trusted else compile_template
        self._defaults = document.defaults
        self._default_timeout = _milliseconds(document.defaults.timeout) if document.defaults else None
        self._read: set[int] = set()

    def plan(self, hash_: str) -> Plan:
        document = self._document
        nodes = tuple(self._node(index, item) for index, item in enumerate(document.nodes.items()))
        graph = compile_graph(tuple(document.nodes), {node.index: self._upstream(node) for node in nodes})
        leaves = tuple(index for index, after in enumerate(graph.downstream) if not after)
        output = None if document.output is None else self._template(document.output, "/output")
        self._read.update(leaves if output is None else self._indexes(output.values))
        return Plan(
            hash=hash_,
            name=document.name,
            version=document.version,
            nodes=nodes,
            graph=graph,
            index_of=self._index_of,
            leaves=leaves,
            needed_outputs=frozenset(self._read),
            on_failure=document.on_failure,
            max_parallel=document.max_parallel,
            scheduling=document.scheduling,
            timeout_ms=_milliseconds(document.timeout),
            output=output,
            document=document,
        )

    def _node(self, index: int, item: tuple[str, NodeSchema]) -> NodePlan:
        node_id, node = item
        here = join_pointer(("nodes", node_id))
        rule: str | Expression = node.join
        if node.join not in JOIN_RULES:
            rule = self._expression(node.join, f"{here}/join")
        elif node.join == "always":
            rule = "all_done"
        return NodePlan(
            index=index,
            id=node_id,
            task=node.task,
            params=self._template(node.params, f"{here}/params"),
            when=condition(node.when, f"{here}/when", self._expression),
            join=rule,
            retry=_merged(node.retry, self._defaults.retry if self._defaults else None),
            timeout_ms=self._default_timeout if node.timeout is None else _milliseconds(node.timeout),
            queue=node.queue,
            priority=node.priority,
            on_error=node.on_error,
        )

    def _upstream(self, node: NodePlan) -> set[int]:
        """What it depends on: the nodes it lists, and those that its expressions name."""
        ids = self._document.nodes[node.id].depends_on
        upstream = {self._index_of[other] for other in ids}
        for part in (node.params, node.when, node.join):
            if isinstance(part, Template | Expression):
                upstream.update(self._indexes(part.references))
                self._read.update(self._indexes(part.values))
        return upstream

    def _indexes(self, ids: Iterable[str]) -> list[int]:
        return [self._index_of[node_id] for node_id in ids]


def condition(value: str | bool, pointer: str, compile_one: Any = compile_expression) -> Expression | None:
    """The expression of a `when`; None when it always holds."""
    if value is True or value == "true":
        return None
    expression: Expression = compile_one("false" if value is False else value, pointer)
    return expression


def _merged(own: RetrySchema | None, defaults: RetrySchema | None) -> RetrySchema | None:
    if own is None or defaults is None:
        return own or defaults
    given = {name: value for name, value in own if value is not None}
    return defaults.model_copy(update=given)


def _milliseconds(duration: str | float | None) -> int | None:
    return None if duration is None else duration_ms(duration)
