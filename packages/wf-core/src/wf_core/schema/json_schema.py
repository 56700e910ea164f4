"""The published JSON Schema of documents, by which editors complete and check."""

from __future__ import annotations

from typing import Any

from wf_core.schema.document import JOIN_RULES, LONGEST_ID, WorkflowSchema
from wf_core.schema.nodes import KINDS

_ONE_OF = {
    "MapSchema": ("nodes", "task"),
    "LoopSchema": ("while", "until"),
    "ChildSchema": ("workflow", "nodes"),
    "WaitSchema": ("duration", "until", "signal", "any", "all"),
    "TermSchema": ("duration", "until", "signal"),
}
"""Parts that need exactly one of these keys."""


def workflow_json_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of a workflow document."""
    schema = WorkflowSchema.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    for name, keys in _ONE_OF.items():
        definitions[name]["oneOf"] = [{"required": [key]} for key in keys]
    names = {kind: model.__name__ for kind, model in KINDS.items()}
    for name in names.values():
        node = definitions[name]
        _complete(node["properties"])
        definitions[f"Listed{name}"] = {
            **node,
            "title": f"Listed{name}",
            "properties": {"id": {"type": "string", "description": "of the node"}, **node["properties"]},
            "required": ["id", *node.get("required", ())],
        }
    definitions["Node"] = _by_kind("A node: what it takes is a matter of its `kind`, task where none is written", names)
    listed = {kind: f"Listed{name}" for kind, name in names.items()}
    definitions["ListedNode"] = _by_kind("A node in a list, which carries its id", listed)
    definitions["Nodes"] = _nodes()
    for key in ("nodes", "finally"):
        schema["properties"][key] = _referred(schema["properties"][key], "Nodes")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "wf workflow"}


def _complete(properties: dict[str, Any]) -> None:
    """Says more of a node's properties than their types can."""
    join = properties["join"]
    properties["join"] = {
        "description": join["description"],
        "default": "all_success",
        "anyOf": [{"enum": sorted(JOIN_RULES)}, {"type": "string"}],
    }
    if "nodes" in properties and "pattern" not in properties["nodes"]:
        properties["nodes"] = _referred(properties["nodes"], "Nodes")


def _referred(described: dict[str, Any], definition: str) -> dict[str, Any]:
    return {"description": described["description"], "$ref": f"#/$defs/{definition}"}


def _by_kind(description: str, names: dict[str, str]) -> dict[str, Any]:
    """A schema that goes by `kind`, so that an editor completes and judges by that kind's schema alone."""
    cases = [
        {
            "if": {"properties": {"kind": {"const": kind}}, **({} if kind == "task" else {"required": ["kind"]})},
            "then": {"$ref": f"#/$defs/{name}"},
        }
        for kind, name in names.items()
    ]
    kind = {"description": "what the node is", "default": "task", "enum": list(names)}
    return {"description": description, "type": "object", "properties": {"kind": kind}, "allOf": cases}


def _nodes() -> dict[str, Any]:
    return {
        "description": "id to node, or a list of nodes that each carry id",
        "type": ["object", "array"],
        "minProperties": 1,
        "propertyNames": {"pattern": f"^[^/\\[\\]#\\u0000-\\u001f]{{1,{LONGEST_ID}}}$"},
        "additionalProperties": {"$ref": "#/$defs/Node"},
        "minItems": 1,
        "items": {"$ref": "#/$defs/ListedNode"},
    }
