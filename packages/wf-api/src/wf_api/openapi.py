"""What routes say of themselves in /openapi.json: their problems, their bodies, their headers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wf_api import idempotency, problems
from wf_api.body import JSON
from wf_core.schema.validation import workflow_json_schema

WORKFLOW = "Workflow"
PROBLEM = "ProblemModel"
_DEFS = "#/$defs/"
_SCHEMAS = "#/components/schemas/"
_IN_REFERENCES = str.maketrans("[]", "__")
_SENTENCES = {
    400: "The request or its body cannot be parsed",
    401: "The API key is missing or wrong",
    403: "The API has no key, and the request comes from another site",
    404: "There is no such thing",
    405: "The method is not allowed here",
    408: "The body did not arrive in time",
    409: "The state, or the idempotency key, does not allow it",
    413: "The body is too large",
    415: "The body's media type is not supported",
    422: "The document, the input or a parameter is wrong",
    500: "A fault of the server",
    503: "Redis or the log does not answer; try again after Retry-After",
}
OF_BODY = (400, 408, 413, 415, 422)
"""Statuses of routes that take a body."""
OF_ALL = (401, 403, 405, 500)
"""Statuses that any route may answer."""


def shows(
    shape: str, *statuses: int, status: int = 200, also: str | None = None, says: str = "Successful Response"
) -> dict[int | str, dict[str, Any]]:
    """What a route answers: JSON of a shape of `models`, by its name there, and the problems with `statuses`.

    `also` is another media type that it may answer with. The shapes are made when somebody asks for /openapi.json.
    """
    content = {JSON: {"schema": {"$ref": _SCHEMAS + shape.translate(_IN_REFERENCES)}}}
    if also is not None:
        content[also] = {"schema": {"type": "string"}}
    return {status: {"description": says, "content": content}} | responses(*statuses)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer."""
    content = {problems.MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}{PROBLEM}"}}}
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, *OF_ALL}):
        found[status] = {"description": _SENTENCES[status], "content": content}
    return found


def text(media_type: str, schema_type: str = "string") -> dict[int | str, dict[str, Any]]:
    """An answer that is no JSON of ours."""
    return {200: {"content": {media_type: {"schema": {"type": schema_type}}}}}


def takes_body(schema: dict[str, Any], *, required: bool, yaml: bool = False) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its body itself."""
    content = {JSON: {"schema": schema}}
    if yaml:
        content["application/yaml"] = {"schema": schema}
    return {"requestBody": {"required": required, "content": content}, "parameters": [_KEY, _PREFER]}


_KEY = {
    "name": idempotency.HEADER,
    "in": "header",
    "required": False,
    "description": "A repetition under the same key gets the first answer; another body under it gets 409.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`respond-async` answers as soon as the log has the command.",
    "schema": {"type": "string"},
}


def complete(document: dict[str, Any], *, needs_key: bool) -> dict[str, Any]:
    """FastAPI's document with what it does not know: our answers and problems, the workflow's schema, the key."""
    # Imported here: a server that nobody asks for this document is smaller, and starts sooner.
    from wf_api.models import ProblemModel, shapes

    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas |= shapes(_SCHEMAS + "{model}")
    schemas |= _hoisted(PROBLEM, ProblemModel.model_json_schema())
    schemas |= _hoisted(WORKFLOW, workflow_json_schema())
    for operation in _operations(document):
        unsaid = operation["responses"].get("422", {}).get("content", {}).get(JSON)
        if unsaid is not None:  # FastAPI's own, for a path parameter that is any text
            del operation["responses"]["422"]
    if needs_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        document["paths"]["/healthz"]["get"]["security"] = []
    return document


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _hoisted(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema and the definitions inside it as components; `$defs` of a part have no address in OpenAPI."""
    parts = {name: schema, **{f"{name}.{inner}": part for inner, part in schema.get("$defs", {}).items()}}
    return {key: _moved(part, f"{_SCHEMAS}{name}.") for key, part in parts.items()}


def _moved(value: Any, prefix: str) -> Any:
    if isinstance(value, list):
        return [_moved(item, prefix) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: prefix + item.removeprefix(_DEFS) if key == "$ref" and isinstance(item, str) else _moved(item, prefix)
        for key, item in value.items()
        if key not in {"$defs", "$schema", "$id"}
    }
