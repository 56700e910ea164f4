"""The published JSON Schema of documents, by which editors complete and check."""

from __future__ import annotations

from typing import Any

from wf_core.schema.document import JOIN_RULES, LONGEST_ID, WorkflowSchema


def workflow_json_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of a workflow document."""
    schema = WorkflowSchema.model_json_schema()
    definitions = schema["$defs"]
    node = definitions["NodeSchema"]
    node["properties"]["join"] = {
        "description": node["properties"]["join"]["description"],
        "default": "all_success",
        "anyOf": [{"enum": sorted(JOIN_RULES)}, {"type": "string"}],
    }
    listed = {**node, "properties": {"id": {"type": "string"}, **node["properties"]}}
    listed["required"] = ["id", *node["required"]]
    definitions["ListedNodeSchema"] = {**listed, "title": "ListedNodeSchema"}
    schema["properties"]["nodes"] = {
        "description": "id to node, or a list of nodes that each carry id",
        "oneOf": [
            {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": f"^[^/\\[\\]#\\u0000-\\u001f]{{1,{LONGEST_ID}}}$"},
                "additionalProperties": {"$ref": "#/$defs/NodeSchema"},
            },
            {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/ListedNodeSchema"}},
        ],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "wf workflow"}
