"""The methods that make nodes; a workflow has them, and every node that has an inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from wf_core.builder.bodies import Body, condition, named, rendered
from wf_core.builder.params import missing_of, params_of, task_name
from wf_core.builder.terms import BuildError, Term

if TYPE_CHECKING:
    from wf_core.builder.nodes import Child, Loop, Map, Node, Switch


class Options(TypedDict, total=False):
    """What every node takes beside what its kind does; see the document's fields of the same names."""

    depends_on: Any
    when: Any
    join: Any
    retry: dict[str, Any]
    timeout: Any
    queue_timeout: Any
    total_timeout: Any
    heartbeat: Any
    queue: str
    priority: int
    on_error: str
    catch: list[dict[str, Any]]
    compensate: dict[str, Any]
    cache: dict[str, Any]


class Makes(ABC):
    """Makes nodes in one body. Ids default to the task's short name or the kind, made unique by a number."""

    @abstractmethod
    def _place(self) -> Body:
        """The body in which the next node stands."""

    def task(
        self,
        task: Any,
        id: str | None = None,  # noqa: A002 - the document's own word
        *,
        params: dict[str, Any] | None = None,
        **more: Any,
    ) -> Node:
        """A task, by its name or as a `@task` function. Keywords are its parameters, or options of the node.

        A parameter that is called like an option (`timeout`, `retry`, …) goes into `params`.
        """
        from wf_core.builder.nodes import Node

        options, rest = _split(more)
        given = params_of(task, {**(params or {}), **rest})
        body = self._place()
        fields: dict[str, Any] = {"task": task_name(task)}
        if given:
            fields["params"] = rendered(given, body)
        return Node(*_add(body, id, _short(task), fields, options))

    def map(  # noqa: PLR0913 - the fields of a map, all by name
        self,
        task: Any = None,
        id: str | None = None,  # noqa: A002 - the document's own word
        *,
        over: Any,
        as_: str | None = None,
        params: dict[str, Any] | None = None,
        max_parallel: int | None = None,
        batch: int | None = None,
        tolerate: int | str | None = None,
        order: str | None = None,
        **more: Any,
    ) -> Map:
        """Runs a task, or the nodes of its `with` block, for each item of `over`.

        With a `@task` function, the one parameter that it needs and was not given gets the item.
        """
        from wf_core.builder.nodes import Map

        options, rest = _split(more)
        body = self._place()
        fields = {"kind": "map", "items": rendered(over, body), "as": as_}
        limits = {"max_parallel": max_parallel, "batch": batch, "tolerate": tolerate, "order": order}
        made = Map(*_add(body, id, _short(task) if task is not None else "map", {**fields, **limits}, options))
        given = {**(params or {}), **rest}
        if task is not None:
            if len(missing := missing_of(task, given)) == 1:
                given[missing[0]] = made.item
            fields_of_task = {"task": task_name(task), "params": rendered(params_of(task, given), made.inside)}
            body.nodes[made.id].update(fields_of_task)
        elif given:
            raise BuildError(f"a map without a task takes no parameters: {', '.join(given)}")
        return made

    def loop(  # noqa: PLR0913 - the fields of a loop, all by name
        self,
        id: str | None = None,  # noqa: A002 - the document's own word
        *,
        max_iterations: int,
        while_: Any = None,
        until: Any = None,
        delay: Any = None,
        keep_last: int | None = None,
        **options: Unpack[Options],
    ) -> Loop:
        """Runs the nodes of its `with` block again and again; conditions that name them are set in the block."""
        from wf_core.builder.nodes import Loop

        body = self._place()
        fields = {"kind": "loop", "max_iterations": max_iterations, "delay": delay, "keep_last": keep_last}
        loop = Loop(*_add(body, id, "loop", fields, options))
        if while_ is not None:
            loop.while_(while_)
        if until is not None:
            loop.until(until)
        return loop

    def switch(
        self,
        id: str | None = None,  # noqa: A002 - the document's own word
        *,
        cases: Any = (),
        default: Any = (),
        **options: Unpack[Options],
    ) -> Switch:
        """Takes the first case that holds. `cases` are pairs of a condition and nodes; or use `.case`, `.default`."""
        from wf_core.builder.nodes import Switch

        body = self._place()
        switch = Switch(*_add(body, id, "switch", {"kind": "switch", "cases": [], "default": []}, options))
        for when, to in cases:
            switch.case(when, to)
        switch.default(default)
        return switch

    def call(  # noqa: PLR0913 - the fields of a child, all by name
        self,
        workflow: str | None = None,
        id: str | None = None,  # noqa: A002 - the document's own word
        *,
        input: Any = None,  # noqa: A002 - the document's own word
        version: str | None = None,
        defaults: dict[str, Any] | None = None,
        on_parent_close: str | None = None,
        **options: Unpack[Options],
    ) -> Child:
        """A child execution: of a registered definition, or of the nodes of its `with` block."""
        from wf_core.builder.nodes import Child

        body = self._place()
        fields = {
            "kind": "workflow", "workflow": workflow, "version": version, "input": rendered(input, body),
            "defaults": defaults, "on_parent_close": on_parent_close,
        }  # fmt: skip
        return Child(*_add(body, id, _short(workflow) if workflow else "workflow", fields, options), sealed=True)

    def wait(  # noqa: PLR0913 - the fields of a wait, all by name
        self,
        id: str | None = None,  # noqa: A002 - the document's own word
        *,
        duration: Any = None,
        until: Any = None,
        signal: str | None = None,
        match: Any = None,
        any: list[dict[str, Any]] | None = None,  # noqa: A002 - the document's own word
        all: list[dict[str, Any]] | None = None,  # noqa: A002 - the document's own word
        timeout: Any = None,
        on_timeout: Any = None,
        **options: Unpack[_Untimed],
    ) -> Node:
        """Waits for a time, a signal, or for `any` or `all` of several, each a dict of the same fields."""
        from wf_core.builder.nodes import Node

        body = self._place()
        fields = {
            "kind": "wait", "duration": duration, "until": until, "signal": signal, "match": condition(match, body),
            "any": _terms(any, body), "all": _terms(all, body), "timeout": timeout, "on_timeout": on_timeout,
        }  # fmt: skip
        return Node(*_add(body, id, signal or "wait", fields, options))

    def approval(
        self,
        id: str | None = None,  # noqa: A002 - the document's own word
        *,
        schema: dict[str, Any] | None = None,
        assignees: Any = None,
        timeout: Any = None,
        on_timeout: Any = None,
        **options: Unpack[_Untimed],
    ) -> Node:
        """Asks people; the answer, which fits the JSON Schema `schema`, is the output."""
        from wf_core.builder.nodes import Node

        fields = {"schema": schema, "assignees": assignees, "timeout": timeout, "on_timeout": on_timeout}
        return Node(*_add(self._place(), id, "approval", {"kind": "approval", **fields}, options))

    def end(
        self,
        id: str | None = None,  # noqa: A002 - the document's own word
        *,
        status: str = "COMPLETED",
        output: Any = None,
        error: Any = None,
        **options: Unpack[Options],
    ) -> Node:
        """Ends the execution, or inside a map or loop the item or pass, at once."""
        from wf_core.builder.nodes import Node

        fields = {"kind": "end", "status": status, "output": output, "error": error}
        return Node(*_add(self._place(), id, "end", fields, options))

    def dynamic(
        self,
        nodes: Any,
        id: str | None = None,  # noqa: A002 - the document's own word
        *,
        allow: list[str] | None = None,
        max_nodes: int | None = None,
        **options: Unpack[Options],
    ) -> Node:
        """Runs the nodes that an expression gives: a map of ids."""
        from wf_core.builder.nodes import Node

        fields = {"kind": "dynamic", "nodes": nodes, "allow": allow, "max_nodes": max_nodes}
        return Node(*_add(self._place(), id, "dynamic", fields, options))


class _Untimed(TypedDict, total=False):
    """Options of kinds that name their timeout themselves."""

    depends_on: Any
    when: Any
    join: Any
    retry: dict[str, Any]
    total_timeout: Any
    on_error: str
    catch: list[dict[str, Any]]
    compensate: dict[str, Any]


def _split(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the node, and parameters of its task."""
    known = Options.__annotations__
    return {k: v for k, v in given.items() if k in known}, {k: v for k, v in given.items() if k not in known}


def _add(
    body: Body, wanted: str | None, short: str, fields: dict[str, Any], options: Any
) -> tuple[Body, str, dict[str, Any]]:
    """Puts a node into a body; what is None is left out."""
    if unknown := set(options) - set(Options.__annotations__):
        raise BuildError(f"a node takes no {', '.join(sorted(map(repr, unknown)))}")
    made = {name: rendered(value, body) for name, value in fields.items() if value is not None}
    for name, value in options.items():
        if name == "depends_on":
            made[name] = named(value)
        elif name == "catch":
            made[name] = [{**entry, "to": named(entry["to"])[0]} for entry in value]
        elif name in ("when", "join"):
            made[name] = condition(value, body)
        else:
            made[name] = rendered(value, body)
    node_id = body.site.take_id(wanted, short)
    body.nodes[node_id] = made
    return body, node_id, made


def _short(task: Any) -> str:
    return task_name(task).rpartition(".")[2] or task_name(task)


def _terms(terms: list[dict[str, Any]] | None, body: Body) -> list[dict[str, Any]] | None:
    """What a wait waits for; `match` is bare CEL."""
    if terms is None:
        return None
    return [{**term, "match": condition(term["match"], body)} if "match" in term else term for term in terms]


PAYLOAD = Term("payload")
"""The payload of a signal, in a wait's `match`."""
