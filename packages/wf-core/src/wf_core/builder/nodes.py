"""What the methods of a workflow return: handles of nodes, by which others name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Self

from wf_core.builder.bodies import Body, InsideUse, NodeUse, condition, named, rendered
from wf_core.builder.making import Makes
from wf_core.builder.params import params_of, task_name
from wf_core.builder.terms import BuildError, Term


class Node:
    """A node of the workflow. As a value it is its output."""

    def __init__(self, body: Body, node_id: str, fields: dict[str, Any]) -> None:
        self.id = node_id
        self._body = body
        self._fields = fields

    def _term(self, part: str) -> Term:
        nodes = Term("nodes", (NodeUse(self._body, self.id),))
        return nodes[self.id][part]

    @property
    def output(self) -> Term:
        """What it gives; `null` unless it completed."""
        return self._term("output")

    @property
    def status(self) -> Term:
        """How it ended: `COMPLETED`, `FAILED`, `SKIPPED` and so on."""
        return self._term("status")

    @property
    def error(self) -> Term:
        """Why it failed: `type` and `message`."""
        return self._term("error")

    def as_term(self) -> Term:
        """Its output, where a value is wanted."""
        return self.output

    def __eq__(self, other: object) -> Term:  # type: ignore[override]
        return self.output == other

    def __ne__(self, other: object) -> Term:  # type: ignore[override]
        return self.output != other

    __hash__ = object.__hash__

    def __bool__(self) -> NoReturn:
        raise BuildError(f"{self!r} has no value while the workflow is being built: pass conditions on as `when`")

    def compensate(self, task: Any, params: dict[str, Any] | None = None, /, **more: Any) -> Self:
        """A task that undoes what the node did, when the execution fails or is cancelled later."""
        given = params_of(task, {**(params or {}), **more})
        self._fields["compensate"] = {"task": task_name(task), "params": rendered(given, self._body)}
        return self

    def catch(self, errors: str | Sequence[str] = (), *, to: Node | str | None = None, as_: str | None = None) -> Catch:
        """Names the node that runs instead when this one fails: `to`, or the first one of a `with` block.

        `errors` are names of error classes; none means all. `as_` names the error for the expressions of that node;
        the block's variable is that name as an expression.
        """
        listed = [errors] if isinstance(errors, str) else list(errors)
        entry: dict[str, Any] = {"errors": listed} if listed else {}
        if as_ is not None:
            entry["as"] = as_
        self._fields.setdefault("catch", []).append(entry)
        caught = Catch(self._body, entry, as_)
        if to is not None:
            caught.go_to(named(to)[0])
        return caught

    def __repr__(self) -> str:
        return f"<node {self.id!r}>"


class _Block:
    """A `with` block in which nodes of the same body are made."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._before: set[str] = set()

    def __enter__(self) -> Any:
        self._before = set(self._body.nodes)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            new = [node for node in self._body.nodes if node not in self._before and node not in self._body.claimed]
            self._body.claimed.update(self._take(new))

    def _take(self, new: list[str]) -> list[str]:
        raise NotImplementedError


class Catch(_Block):
    """Where a failure goes to."""

    def __init__(self, body: Body, entry: dict[str, Any], as_: str | None) -> None:
        super().__init__(body)
        self._entry = entry
        self._as = as_

    def go_to(self, node: str) -> None:
        """Names the node."""
        self._entry["to"] = node
        self._body.claimed.add(node)

    def __enter__(self) -> Term | None:
        super().__enter__()
        return None if self._as is None else Term(self._as)

    def _take(self, new: list[str]) -> list[str]:
        if not new:
            raise BuildError("a catch needs the node that runs then: make one in its block, or pass `to`")
        self.go_to(new[0])
        return new[:1]


class _Case(_Block):
    """The nodes of one way of a switch."""

    def __init__(self, body: Body, to: list[str]) -> None:
        super().__init__(body)
        self._to = to

    def _take(self, new: list[str]) -> list[str]:
        self._to.extend(new)
        return new


class Switch(Node):
    """A switch. Nodes that are made in the block of a case run when it is the first one that holds."""

    def case(self, when: Any, to: Any = None) -> _Case:
        """One more case: with the nodes `to`, or with those of the `with` block that it begins."""
        case: dict[str, Any] = {"when": condition(when, self._body), "to": [] if to is None else named(to)}
        self._fields["cases"].append(case)
        return self._way(case["to"])

    def default(self, to: Any = None) -> _Case:
        """What runs when no case holds: the nodes `to`, or those of the `with` block that it begins."""
        self._fields["default"] += [] if to is None else named(to)
        return self._way(self._fields["default"])

    def _way(self, to: list[str]) -> _Case:
        self._body.claimed.update(to)
        return _Case(self._body, to)


class Container(Node, Makes):
    """A node with nodes inside: they are made in its `with` block, or by its own methods."""

    def __init__(self, body: Body, node_id: str, fields: dict[str, Any], *, sealed: bool = False) -> None:
        super().__init__(body, node_id, fields)
        self.inside = Body(body.site, body, node_id, sealed)

    def _place(self) -> Body:
        self._fields.setdefault("nodes", self.inside.nodes)
        return self.inside

    def __enter__(self) -> Self:
        self._body.site.open.append(self._place())
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._body.site.open.pop()

    def returns(self, value: Any) -> None:
        """What the inside gives, in place of the output of its only leaf."""
        self._fields["output"] = rendered(value, self._place())

    def _inside_term(self, name: str) -> Term:
        return Term(name, (InsideUse(self.inside, name),))


class Map(Container):
    """A map: its inside runs for each item."""

    @property
    def item(self) -> Term:
        """The item, inside."""
        return self._inside_term(self._fields.get("as", "item"))

    @property
    def index(self) -> Term:
        """The item's place in the list, from 0, inside."""
        return self._inside_term("index")


class Loop(Container):
    """A loop: its inside runs again and again."""

    @property
    def iteration(self) -> Term:
        """The number of the pass, from 0, inside."""
        return self._inside_term("iteration")

    @property
    def last(self) -> Term:
        """The output of the pass before, inside."""
        return self._inside_term("last")

    def until(self, holds: Any) -> None:
        """Ends the loop once this holds behind a pass; it may name the nodes of that pass."""
        self._fields["until"] = condition(holds, self.inside)

    def while_(self, holds: Any) -> None:
        """Tested before each pass."""
        self._fields["while"] = condition(holds, self.inside)


class Child(Container):
    """A workflow inside this one, an execution of its own. Written here, it sees its own `input` only."""

    @property
    def input(self) -> Term:
        """The child's input, inside."""
        return self._inside_term("input")
