"""Operations on registered definitions, as flows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from wf_core import payload
from wf_core.client.flows import JSON, Call, Flow, Operations, _post, _query
from wf_core.client.models import Definition, DefinitionItem, Page, Registered, Removed, Submitted


def _at(name: str, *rest: str) -> str:
    return "/".join(("/definitions", quote(name, safe=""), *rest))


class DefinitionOperations(Operations):
    """The operations on executions, and those on registered definitions."""

    def definitions(self, *, cursor: str | None = None, limit: int | None = None) -> Flow[Page[DefinitionItem]]:
        """A page of the registered definitions, by name."""
        return self._ask(Call("GET", "/definitions", _query(cursor=cursor, limit=limit)), Page[DefinitionItem])

    def registered(self, name: str, *, version: str | None = None) -> Flow[Definition]:
        """The newest version of a definition, or the one that `version` names, with its document."""
        return self._ask(Call("GET", _at(name), _query(version=version)), Definition)

    def register(self, document: Any, *, name: str | None = None, allow_unknown: bool = False) -> Flow[Registered]:
        """Makes `document` (JSON values) the newest version of the definition of its name, or of `name`."""
        named = document.get("name") if isinstance(document, Mapping) else None
        target = name if name is not None else named if isinstance(named, str) and named else "-"
        query = _query(allow_unknown=True if allow_unknown else None)
        body = payload.encode(document, what="the document")
        return self._ask(Call("PUT", _at(target), query, body, {"Content-Type": JSON}), Registered)

    def unregister(self, name: str, *, version: str | None = None) -> Flow[Removed]:
        """Removes a definition, or only one version of it. Executions keep their documents."""
        return self._ask(Call("DELETE", _at(name), _query(version=version), repeatable=False), Removed)

    def submit_registered(  # noqa: PLR0913 - the envelope has so many fields, all by name
        self,
        name: str,
        *,
        version: str | None = None,
        input: Any = None,  # noqa: A002 - the document's own word
        labels: Mapping[str, str] | None = None,
        trigger: bool = False,
        idempotency_key: str | None = None,
    ) -> Flow[Submitted]:
        """Creates an execution of a registered definition; with `trigger` it starts at once."""
        said = {"version": version, "input": input, "labels": dict(labels) if labels else None}
        body = {key: value for key, value in said.items() if value is not None}
        query = _query(trigger=True if trigger else None)
        return self._ask(_post(_at(name, "executions"), body, key=idempotency_key, query=query), Submitted)
