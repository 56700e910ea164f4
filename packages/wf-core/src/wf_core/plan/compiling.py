"""From a document that was found right to its plan. Recursion goes as deep as bodies are nested, 32 at most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from wf_core.expressions import Expression, Template, scan_expression, scan_template
from wf_core.graph import Graph, compile_graph
from wf_core.ids import COMPENSATION
from wf_core.plan.kinds import SPECS
from wf_core.plan.model import Body, CachePlan, CatchPlan, ConcurrencyPlan, NodePlan, Plan
from wf_core.schema.document import JOIN_RULES, RetrySchema, WorkflowSchema
from wf_core.schema.fields import DEFAULT_PRIORITY, DEFAULT_QUEUE, milliseconds
from wf_core.schema.nodes import AnyNode, AttemptedSchema, CompensateSchema, EndSchema, MapSchema, TaskSchema
from wf_core.schema.places import Place, Reader
from wf_core.schema.pointers import child
from wf_core.schema.walk import every_node

_NOTHING = Template("", (), {})
_DEFAULT_SCHEDULING = WorkflowSchema.model_fields["scheduling"].default


class DocumentCompiler:
    """What holds for every body of one document."""

    def __init__(self, document: WorkflowSchema) -> None:
        self.document = document
        self.retry = document.defaults.retry if document.defaults else None
        self.timeout_ms = milliseconds(document.defaults.timeout) if document.defaults else None
        self.has_tails = _has_tails(document)

    def plan(self, hash_: str) -> Plan:
        """The plan of the document, whose hash is given. Raises DocumentError on a cycle."""
        document = self.document
        root = BodyCompiler(self, Place(_indexes(document.nodes)), "")
        nodes = root.nodes(document.nodes, "/nodes")
        final = None
        if document.finally_:
            inside = BodyCompiler(self, Place(_indexes(document.finally_), outer=root.place), "/finally")
            final = inside.body(inside.nodes(document.finally_, "/finally"), None, reads_leaves=False)
        return Plan(
            hash=hash_,
            name=document.name,
            version=document.version,
            root=root.body(nodes, root.output(document.output)),
            final=final,
            on_failure=document.on_failure,
            max_parallel=document.max_parallel,
            scheduling=document.scheduling,
            timeout_ms=milliseconds(document.timeout),
            concurrency=self._concurrency(),
            document=document,
        )

    def _concurrency(self) -> ConcurrencyPlan | None:
        given = self.document.concurrency
        if given is None:
            return None
        return ConcurrencyPlan(scan_template(given.key, "/concurrency/key"), given.limit, given.on_conflict)


def _has_tails(document: WorkflowSchema) -> bool:
    """Whether nothing in the document needs every node to be begun in its turn.

    A limit of attempts at once and an order of its own are kept where nodes are dispatched. What is to be undone must
    be known, and a node that a worker began by itself is not before its predecessor's result was folded.
    """
    if document.max_parallel is not None or document.scheduling != _DEFAULT_SCHEDULING:
        return False
    return not any(getattr(node, "compensate", None) for _, node in every_node(document))


class BodyCompiler:
    """Compiles the nodes of one body, and notes what they name in it and outward."""

    def __init__(self, owner: DocumentCompiler, place: Place, pointer: str) -> None:
        self.owner = owner
        self.place = place
        self.pointer = pointer
        self._catchers: dict[int, list[int]] = {}
        self._switches: dict[int, list[int]] = {}

    def nodes(self, nodes: Mapping[str, AnyNode], pointer: str) -> list[NodePlan]:
        """The nodes that stand at `pointer`, without who catches and switches them: others may name them still."""
        return [
            self._node(index, node_id, node, child(pointer, node_id))
            for index, (node_id, node) in enumerate(nodes.items())
        ]

    def body(self, nodes: list[NodePlan], output: Template | None, *, reads_leaves: bool = True) -> Body:
        """The body, when everything that may name its nodes was compiled. Raises DocumentError on a cycle."""
        for index in self._catchers.keys() | self._switches.keys():
            catchers = tuple(dict.fromkeys(self._catchers.get(index, ())))
            switches = tuple(dict.fromkeys(self._switches.get(index, ())))
            join = "caught" if catchers else nodes[index].join
            nodes[index] = replace(nodes[index], join=join, catchers=catchers, switches=switches)
        place = self.place
        graph = compile_graph(tuple(place.index_of), place.upstream)
        leaves = tuple(index for index, after in enumerate(graph.downstream) if not after)
        if output is None and reads_leaves:
            place.read.update(leaves)
        return Body(
            nodes=tuple(nodes),
            graph=graph,
            index_of=place.index_of,
            leaves=leaves,
            needed=frozenset(place.read),
            output=output,
            pointer=self.pointer,
            has_tails=self.owner.has_tails,
        )

    def output(self, value: Any) -> Template | None:
        """The template of the body's own output."""
        return None if value is None else self.template(value, f"{self.pointer}/output", None)

    def template(self, value: Any, pointer: str, reader: Reader) -> Template:
        """The template of a value in this body, noting which nodes it names for `reader`."""
        template = scan_template(value, pointer)
        for expression in template.expressions:
            for node_id, part in expression.fields:
                self.place.use(node_id, part, reader)
        return template

    def expression(self, text: str, pointer: str, reader: Reader) -> Expression:
        """The expression of a text in this body, noting which nodes it names for `reader`."""
        expression = scan_expression(text, pointer)
        for node_id, part in expression.fields:
            self.place.use(node_id, part, reader)
        return expression

    def condition(self, value: str | bool | None, pointer: str, reader: Reader) -> Expression | None:
        """The expression of a condition; None when it always holds, or when there is none."""
        if value is None or value is True or value == "true":
            return None
        return self.expression("false" if value is False else value, pointer, reader)

    def inside(self, index: int, nodes: Mapping[str, AnyNode], pointer: str) -> BodyCompiler:
        """A compiler for the body of the node at `index`."""
        return BodyCompiler(self.owner, Place(_indexes(nodes), outer=self.place, container=index), pointer)

    def switch(self, index: int, ids: Iterable[str]) -> tuple[int, ...]:
        """Notes that the switch at `index` names these nodes, and gives their indexes."""
        targets = tuple(self.place.index_of[node_id] for node_id in ids)
        self.place.read.add(index)
        for target in targets:
            self.place.wait(target, index)
            self._switches.setdefault(target, []).append(index)
        return targets

    def single(self, node: NodePlan, pointer: str) -> Body:
        """A body of one node."""
        graph = Graph((node.id,), ((),), ((),), (0,), (0,))
        return Body((node,), graph, {node.id: 0}, (0,), frozenset((0,)), None, pointer, single=True)

    def item(self, node_id: str, node: MapSchema, params: Template) -> NodePlan:
        """The node of a map's short form: what the map says of attempts is each item's."""
        return NodePlan(
            index=0,
            id=node_id,
            task=node.task or "",
            params=params,
            when=None,
            join="all_success",
            on_error="fail",
            own_retry=node.retry is not None,
            **self._of_attempts(node),
        )

    def _of_attempts(self, node: TaskSchema | MapSchema) -> dict[str, Any]:
        """What a task, or a map about each of its items, says of attempts on a worker."""
        return {
            "retry": merged_retry(node.retry, self.owner.retry),
            "timeout_ms": self.owner.timeout_ms if node.timeout is None else milliseconds(node.timeout),
            "queue": node.queue,
            "priority": node.priority,
            "queue_timeout_ms": milliseconds(node.queue_timeout),
            "heartbeat_ms": milliseconds(node.heartbeat),
        }

    def _node(self, index: int, node_id: str, node: AnyNode, here: str) -> NodePlan:
        if node.depends_on:
            for other in node.depends_on:
                self.place.wait(index, self.place.index_of[other])
        common = self._common(index, node_id, node, here)
        if isinstance(node, TaskSchema):
            return NodePlan(
                task=node.task,
                params=self.template(node.params, f"{here}/params", index),
                cache=self._cache(node, index, here),
                **self._of_attempts(node),
                **common,
            )
        spec = SPECS[node.kind](self, index, node_id, node, here)
        is_items = isinstance(node, MapSchema) and node.task is not None
        timeout = None if is_items or node.kind in ("wait", "approval") else getattr(node, "timeout", None)
        own = None if is_items else getattr(node, "retry", None)
        return NodePlan(
            task="",
            params=_NOTHING,
            retry=merged_retry(own, self.owner.retry),
            timeout_ms=milliseconds(timeout),
            queue=DEFAULT_QUEUE,
            priority=DEFAULT_PRIORITY,
            kind=node.kind,
            spec=spec,
            **{**common, "own_retry": own is not None},
        )

    def _common(self, index: int, node_id: str, node: AnyNode, here: str) -> dict[str, Any]:
        """What every kind has."""
        rule: str | Expression = node.join
        if node.join not in JOIN_RULES:
            rule = self.expression(node.join, f"{here}/join", index)
        elif node.join == "always":
            rule = "all_done"
        when = node.when
        common: dict[str, Any] = {
            "index": index,
            "id": node_id,
            "when": None if when is True else self.condition(when, f"{here}/when", index),
            "join": rule,
        }
        if isinstance(node, EndSchema):
            return {**common, "on_error": "fail"}
        common["on_error"] = node.on_error
        if node.catch:
            common["catch"] = self._catch(index, node)
        if isinstance(node, AttemptedSchema):
            self._attempted(common, node, here)
        return common

    def _attempted(self, common: dict[str, Any], node: AttemptedSchema, here: str) -> None:
        """Adds what nodes have that may be tried again."""
        if node.retry is not None:
            common["own_retry"] = True
        if node.total_timeout is not None:
            common["total_timeout_ms"] = milliseconds(node.total_timeout)
        if node.compensate is not None:
            common["compensate"] = self._compensation(common["index"], common["id"], node, node.compensate, here)

    def _catch(self, index: int, node: Any) -> tuple[CatchPlan, ...]:
        plans = []
        self.place.read.add(index)
        for entry in node.catch:
            target = self.place.index_of[entry.to]
            self.place.wait(target, index)
            self._catchers.setdefault(target, []).append(index)
            plans.append(CatchPlan(tuple(entry.errors), target, entry.as_))
        return tuple(plans)

    def _compensation(self, index: int, node_id: str, node: AttemptedSchema, undo: CompensateSchema, here: str) -> Body:
        here = f"{here}/compensate"
        plan = NodePlan(
            index=0,
            id=f"{node_id}{COMPENSATION}",
            task=undo.task,
            params=self.template(undo.params, f"{here}/params", index),
            when=None,
            join="all_success",
            retry=self.owner.retry,
            timeout_ms=self.owner.timeout_ms,
            queue=getattr(node, "queue", DEFAULT_QUEUE),
            priority=getattr(node, "priority", DEFAULT_PRIORITY),
            on_error="fail",
        )
        return self.single(plan, here)

    def _cache(self, node: TaskSchema, index: int, here: str) -> CachePlan | None:
        if node.cache is None:
            return None
        return CachePlan(self.template(node.cache.key, f"{here}/cache/key", index), milliseconds(node.cache.ttl))


def merged_retry(own: RetrySchema | None, defaults: RetrySchema | None) -> RetrySchema | None:
    """What is said of retries, field by field: the node's own, else the defaults'."""
    if own is None or defaults is None:
        return own or defaults
    return defaults.model_copy(update={name: value for name, value in own if value is not None})


def _indexes(nodes: Mapping[str, AnyNode]) -> dict[str, int]:
    return {node_id: index for index, node_id in enumerate(nodes)}
