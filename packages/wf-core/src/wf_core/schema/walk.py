"""Every node of a document, whatever it stands in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from wf_core.schema.document import WorkflowSchema
from wf_core.schema.nodes import AnyNode, ChildSchema, LoopSchema, MapSchema
from wf_core.schema.pointers import child


def every_node(document: WorkflowSchema) -> Iterator[tuple[str, AnyNode]]:
    """Pointer and node: of the document, its `finally`, and inside maps, loops and children written in it."""
    waiting: list[tuple[str, Mapping[str, AnyNode]]] = [("/nodes", document.nodes)]
    if document.finally_:
        waiting.append(("/finally", document.finally_))
    for pointer, nodes in waiting:  # the list is the queue as well: what is appended is visited
        for node_id, node in nodes.items():
            here = child(pointer, node_id)
            yield here, node
            if isinstance(node, MapSchema | LoopSchema | ChildSchema) and node.nodes:
                waiting.append((f"{here}/nodes", node.nodes))
