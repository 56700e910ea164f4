"""Bodies of nodes: what stands in them, and what may be named there."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pydantic_core

from wf_core.builder.terms import BuildError, Term, literal, template_text, text_of, uses_of
from wf_core.schema.document import check_id


@dataclass(eq=False, slots=True)
class Site:
    """What all bodies of one workflow share: the ids that are taken, and which bodies are open."""

    open: list[Body] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def take_id(self, wanted: str | None, short: str) -> str:
        """The id of a new node: as wanted, else a name made unique. Raises BuildError for one that is taken."""
        if wanted is None:
            number = 1
            while (name := short if number == 1 else f"{short}_{number}") in self.ids:
                number += 1
        else:
            name = wanted
            if problem := check_id(name):
                raise BuildError(f"the id {name!r}: {problem}")
            if name in self.ids:
                raise BuildError(f"the id {name!r} is that of another node already; ids are unique in a workflow")
        self.ids.add(name)
        return name


@dataclass(eq=False, slots=True)
class Body:
    """A map of nodes. `owner` is the id of the node that it is the inside of; "" for the workflow's own."""

    site: Site
    parent: Body | None = None
    owner: str = ""
    sealed: bool = False
    """Whether it sees nothing of what is around it: a child workflow."""
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    claimed: set[str] = field(default_factory=set)
    """Nodes that a switch or a catch names."""

    def shown(self) -> str:
        """Where it is, for messages."""
        return f"the inside of {self.owner!r}" if self.owner else "the workflow itself"


@dataclass(frozen=True, slots=True)
class NodeUse:
    """A node is named."""

    body: Body
    node: str

    def check_here(self) -> None:
        """See Use."""
        if self.body.site.open:
            self.check(self.body.site.open[-1])

    def check(self, place: Body) -> None:
        """Nodes are known in their own body and in what is nested in it, save inside themselves."""
        if self.body.site is not place.site:
            raise BuildError(f"the node {self.node!r} is one of another workflow; call that one with `call`")
        inner, around = "", place
        while around is not self.body:
            if around.sealed or around.parent is None:
                known = f"the node {self.node!r} is known in {self.body.shown()} only, not in {place.shown()}"
                remedy = "give it to the child as input" if around.owner else "pass on the container's own output"
                raise BuildError(f"{known}; {remedy}")
            inner, around = around.owner, around.parent
        if inner == self.node:
            raise BuildError(f"what is inside of {self.node!r} cannot wait for {self.node!r} itself to end")


@dataclass(frozen=True, slots=True)
class InsideUse:
    """A name is used that exists inside a body only: `item`, `index`, `iteration`, `last`, a child's `input`."""

    body: Body
    name: str

    def check_here(self) -> None:
        """See Use."""
        if self.body.site.open:
            self.check(self.body.site.open[-1])

    def check(self, place: Body) -> None:
        """Raises BuildError outside of it, and where a child workflow begins."""
        around: Body | None = place
        while around is not None and around is not self.body:
            around = None if around.sealed else around.parent
        if around is None:
            raise BuildError(f"{self.name!r} is known in {self.body.shown()} only, not in {place.shown()}")


def rendered(value: Any, place: Body) -> Any:
    """A value as it stands in the document: expressions become templates. Raises BuildError for what is not known."""
    if isinstance(value, Term) or hasattr(value, "as_term"):
        term = literal(value)
        _check(term, place)
        return template_text(term)
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise BuildError(f"keys are plain texts, never {wrong[0]!r}")
        return {key: rendered(item, place) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rendered(item, place) for item in value]
    if isinstance(value, timedelta):
        ms = round(value / timedelta(milliseconds=1))
        return f"{ms}ms" if ms % 1000 else f"{ms // 1000}s"
    try:
        return pydantic_core.to_jsonable_python(value)
    except pydantic_core.PydanticSerializationError as error:
        raise BuildError(f"{value!r} is no JSON value: {error}") from None


def condition(value: Any, place: Body) -> Any:
    """A `when`, `until` or `join`: bare CEL."""
    if isinstance(value, Term) or hasattr(value, "as_term"):
        term = literal(value)
        _check(term, place)
        return text_of(term)
    return value


def named(nodes: Any) -> list[str]:
    """The ids of nodes: one or several, each a node or an id."""
    several = nodes if isinstance(nodes, list | tuple | set | frozenset) else [nodes]
    if wrong := [node for node in several if isinstance(node, Term)]:
        raise BuildError(f"{wrong[0]!r} is a value, where a node is wanted: pass the node itself, or its id")
    return [node if isinstance(node, str) else node.id for node in several]


def _check(term: Term, place: Body) -> None:
    for use in uses_of(term):
        use.check(place)
