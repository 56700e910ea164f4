"""What a document means: ids, dependencies, expressions and the graph that they make.

Reads the raw value, so that one misspelt key hides no unknown dependency elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema_rs

from wf_core.errors import DocumentError, Problem
from wf_core.expressions import Expression
from wf_core.expressions.expression import compile_expression
from wf_core.expressions.template import TemplateBuilder
from wf_core.expressions.values import ROOTS
from wf_core.graph import cycle_problem, find_cycles
from wf_core.schema.document import JOIN_RULES, check_id
from wf_core.schema.inputs import schema_validator
from wf_core.schema.pointers import child, join
from wf_core.suggest import did_you_mean

MOST_EXPRESSIONS = 300_000
"""In one document: compiling them is the dearest part of accepting it."""
_MOST_HINTS = 50
_WORD = re.compile(r"[A-Za-z_-]+")


def check_semantics(value: dict[str, Any]) -> list[Problem]:
    """Everything that is wrong with the meaning of a document, as far as its shape lets one see."""
    nodes = value.get("nodes")
    checker = _Checker(nodes if isinstance(nodes, dict) else {})
    checker.check(value)
    return checker.problems


class _Checker:
    def __init__(self, nodes: dict[Any, Any]) -> None:
        self.problems: list[Problem] = []
        self._nodes = {str(node_id): node for node_id, node in nodes.items()}
        self._index_of = {node_id: index for index, node_id in enumerate(self._nodes)}
        self._upstream: dict[int, set[int]] = {}
        self._hints = 0
        self._expressions = 0

    def check(self, value: dict[str, Any]) -> None:
        for node_id, node in self._nodes.items():
            if sentence := check_id(node_id):
                self._add(join(("nodes", node_id)), "bad_id", sentence)
            if isinstance(node, dict):
                self._node(node_id, node)
        if value.get("output") is not None:
            self._references(self._template(value["output"], "/output"), None)
        if isinstance(value.get("input"), dict):
            self.problems += schema_problems(value["input"])
        names = list(self._nodes)
        self.problems += [cycle_problem(cycle) for cycle in find_cycles(names, self._upstream)]

    def _node(self, node_id: str, node: dict[str, Any]) -> None:
        here = join(("nodes", node_id))
        if isinstance(listed := node.get("depends_on"), list):
            self._depends_on(node_id, listed, f"{here}/depends_on")
        if isinstance(params := node.get("params"), dict):
            self._references(self._template(params, f"{here}/params"), node_id)
        if isinstance(when := node.get("when"), str):
            self._references(self._expression(when, f"{here}/when"), node_id)
        if isinstance(rule := node.get("join"), str) and rule not in JOIN_RULES:
            self._join(node_id, rule, f"{here}/join")

    def _depends_on(self, node_id: str, listed: list[Any], pointer: str) -> None:
        for position, other in enumerate(listed):
            if isinstance(other, str):
                self._edge(
                    node_id, other, child(pointer, position), "unknown_dependency", f"there is no node {other!r}"
                )

    def _join(self, node_id: str, rule: str, pointer: str) -> None:
        if _WORD.fullmatch(rule.strip()):
            known = ", ".join(sorted(JOIN_RULES))
            self._add(
                pointer,
                "unknown_join",
                f"there is no join rule {rule!r}{did_you_mean(rule, JOIN_RULES)}; rules: {known}",
            )
        else:
            self._references(self._expression(rule, pointer), node_id)

    def _edge(self, node_id: str, other: str, pointer: str, code: str, sentence: str) -> None:
        index = self._index_of.get(other)
        if index is None:
            self._add(pointer, code, sentence + self._hint(other, self._index_of))
        elif other == node_id:
            self._add(pointer, "own_dependency", f"the node {node_id!r} waits for itself")
        else:
            self._upstream.setdefault(self._index_of[node_id], set()).add(index)

    def _template(self, value: Any, pointer: str) -> Iterable[Expression]:
        builder = TemplateBuilder(compile_expression)
        if self._expressions > MOST_EXPRESSIONS:
            return ()
        builder.template(value, pointer)
        self.problems += builder.problems
        self._count(len(builder.expressions))
        return builder.expressions

    def _expression(self, text: str, pointer: str) -> Iterable[Expression]:
        try:
            expression = compile_expression(text, pointer)
        except DocumentError as error:
            self.problems += error.problems
            return ()
        self._count(1)
        return (expression,)

    def _count(self, more: int) -> None:
        within = self._expressions <= MOST_EXPRESSIONS
        self._expressions += more
        if within and self._expressions > MOST_EXPRESSIONS:
            self._add("", "too_many_expressions", f"a document may hold {MOST_EXPRESSIONS:,} expressions at most")

    def _references(self, expressions: Iterable[Expression], node_id: str | None) -> None:
        for expression in expressions:
            for other in dict.fromkeys(node for node, _ in expression.fields):
                sentence = f"the expression names the node {other!r}, which is not there"
                if node_id is not None:
                    self._edge(node_id, other, expression.pointer, "unknown_reference", sentence)
                elif other not in self._index_of:
                    hint = self._hint(other, self._index_of)
                    self._add(expression.pointer, "unknown_reference", sentence + hint)
            for name in expression.names.difference(ROOTS):
                hint = self._hint(name, ROOTS) or self._path_hint(name)
                self._add(expression.pointer, "unknown_name", f"there is no name {name!r} in an expression{hint}")

    def _path_hint(self, name: str) -> str:
        known = "; known are input, nodes and execution"
        return f"; did you mean nodes.{name}?" if name in self._index_of else known

    def _hint(self, word: str, known: Iterable[str]) -> str:
        """A suggestion, for the first problems only: looking through 100,000 names is dear."""
        self._hints += 1
        return did_you_mean(word, list(known)) if self._hints <= _MOST_HINTS else ""

    def _add(self, pointer: str, code: str, detail: str) -> None:
        self.problems.append(Problem(pointer, code, detail))


def schema_problems(schema: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with the JSON Schema of a document's input."""
    try:
        schema_validator(schema)
    except jsonschema_rs.ValidationError as error:
        place = join(error.instance_path, "/input")
        yield Problem(place, "bad_schema", f"this is no JSON Schema: {error.message}")
