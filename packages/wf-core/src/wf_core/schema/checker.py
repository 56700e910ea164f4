"""Checking the meaning of bodies: ids, dependencies, expressions, targets, and the graph that they make.

Reads the raw value, so that one misspelt key hides no unknown dependency elsewhere. Recursion goes as deep as bodies
are nested, which is checked before.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from wf_core.errors import DocumentError, Problem
from wf_core.expressions import Expression
from wf_core.expressions.expression import compile_expression, shortened
from wf_core.expressions.template import TemplateBuilder
from wf_core.expressions.values import ROOTS
from wf_core.graph import cycle_problem, find_cycles
from wf_core.ids import COMPENSATION
from wf_core.schema import names as known_names
from wf_core.schema.fields import JOIN_RULES, check_id
from wf_core.schema.nodes import kind_of
from wf_core.schema.places import Place, Reader
from wf_core.schema.pointers import child
from wf_core.suggest import did_you_mean

_MOST_HINTS = 50
_WORD = re.compile(r"[A-Za-z_-]+")
_NOTHING: frozenset[str] = frozenset()


class Findings:
    """What was found in one document, its inline children included."""

    def __init__(self, most_expressions: int) -> None:
        self.problems: list[Problem] = []
        self._most = most_expressions
        self._hints = 0
        self._expressions = 0

    def add(self, pointer: str, code: str, detail: str) -> None:
        """Notes a problem."""
        self.problems.append(Problem(pointer, code, detail))

    def may_look(self) -> bool:
        """Whether to look for a suggestion: for the first problems only, since going through 100,000 names is dear."""
        self._hints += 1
        return self._hints <= _MOST_HINTS

    def template(self, value: Any, pointer: str) -> Iterable[Expression]:
        """The expressions of a template; what is wrong with them is noted."""
        if self._expressions > self._most:
            return ()
        builder = TemplateBuilder(compile_expression)
        builder.template(value, pointer)
        self.problems += builder.problems
        if builder.expressions:
            self._count(len(builder.expressions))
        return builder.expressions

    def expression(self, text: str, pointer: str) -> Iterable[Expression]:
        """The expression of a text as a tuple, empty when it does not compile, which is noted."""
        if self._expressions > self._most:
            return ()
        try:
            expression = compile_expression(text, pointer)
        except DocumentError as error:
            self.problems += error.problems
            return ()
        self._count(1)
        return (expression,)

    def condition(self, text: str, pointer: str) -> Iterable[Expression]:
        """As `expression`, of what gives true or false: a literal of another kind is noted."""
        found = self.expression(text, pointer)
        for expression in found:
            if other := expression.literal_kind:
                detail = f"a condition gives true or false, and `{shortened(expression.text)}` is {other}"
                self.add(pointer, "bad_condition", detail)
        return found

    def _count(self, more: int) -> None:
        within = self._expressions <= self._most
        self._expressions += more
        if within and self._expressions > self._most:
            self.add("", "too_many_expressions", f"a document may hold {self._most:,} expressions at most")


class BodyChecker:
    """Checks the nodes of one body."""

    def __init__(
        self, findings: Findings, nodes: Mapping[str, Any], pointer: str, place: Place, known: frozenset[str] = _NOTHING
    ) -> None:
        self.findings = findings
        self.nodes = nodes
        self.pointer = pointer
        """Where `nodes` stands."""
        self.place = place
        self.known = known
        """Names that expressions may use in all of this body, beside ROOTS."""
        self.later: Collection[str] = ()
        """Ids in `finally`, when these are the document's nodes."""
        self.beyond: Place | None = None
        """What stands around a child workflow, which sees none of it."""
        self.errors: dict[str, set[str]] = {}
        """For each target of a `catch` the names that its expressions have for the error."""
        self._catchers: dict[str, str] = {}
        self._switches: dict[str, str] = {}

    def check(self) -> None:
        """Checks every node and what is inside it, then looks for circles."""
        for node_id, node in self.nodes.items():
            if isinstance(node, dict) and "catch" in node:
                self._note_catch(node_id, node)
        for index, (node_id, node) in enumerate(self.nodes.items()):
            if sentence := check_id(node_id):
                self.findings.add(child(self.pointer, node_id), "bad_id", sentence)
            if isinstance(node, dict):
                self._node(index, node_id, node, child(self.pointer, node_id))
        self._check_targets()
        self.check_undone(self.nodes, self.pointer)
        cycles = find_cycles(list(self.nodes), self.place.upstream)
        self.findings.problems += [cycle_problem(cycle, self.pointer) for cycle in cycles]

    def known_to(self, node_id: str) -> frozenset[str]:
        """Names that a node's expressions may use, beside ROOTS."""
        return self.known | self.errors[node_id] if node_id in self.errors else self.known

    def use_template(self, value: Any, pointer: str, reader: Reader, known: frozenset[str]) -> None:
        """Checks a template; `reader` is the node that waits for what it names."""
        self.use(self.findings.template(value, pointer), reader, known)

    def use_condition(self, value: Any, pointer: str, reader: Reader, known: frozenset[str]) -> None:
        """Checks a condition, when it is text."""
        if isinstance(value, str):
            self.use(self.findings.condition(value, pointer), reader, known)

    def use(
        self, expressions: Iterable[Expression], reader: Reader, known: frozenset[str], *, itself: bool = False
    ) -> None:
        """Checks what expressions name. `itself`: a node may name itself."""
        for expression in expressions:
            for other, _ in expression.fields:
                self._reference(other, expression.pointer, reader, itself=itself)
            unknown = expression.names.difference(ROOTS)
            if unknown and not unknown <= known:
                for name in sorted(unknown - known):
                    detail = known_names.unknown_name(name, known, self.place.index_of)
                    self.findings.add(expression.pointer, "unknown_name", detail)

    def target(self, index: int, other: Any, pointer: str) -> bool:
        """Checks a node that a switch or a catch names, which comes after it. False when it is none."""
        if not isinstance(other, str):
            return False
        target = self.place.index_of.get(other)
        if target is None:
            detail = f"there is no node {other!r} beside this one{self._where(other, index)}"
            self.findings.add(pointer, "unknown_target", detail)
        elif target == index:
            self.findings.add(pointer, "own_dependency", f"the node {other!r} names itself")
        else:
            self.place.wait(target, index)
            return True
        return False

    def note_switch(self, node_id: str, target: str) -> None:
        """Notes that a switch names a node."""
        self._switches.setdefault(target, node_id)

    def inside(self, index: int, nodes: Mapping[str, Any], pointer: str, known: frozenset[str]) -> BodyChecker:
        """A checker of the nodes at `pointer`, which stand inside the node at `index`."""
        place = Place({str(node_id): at for at, node_id in enumerate(nodes)}, outer=self.place, container=index)
        for node_id in place.index_of:
            if self.place.find(node_id, None) is not None:
                detail = f"the id {node_id!r} is that of a node outside, which it would hide; choose another"
                self.findings.add(child(pointer, node_id), "shadowed_id", detail)
        checker = BodyChecker(self.findings, nodes, pointer, place, known)
        checker.beyond = self.beyond
        return checker

    def _node(self, index: int, node_id: str, node: dict[str, Any], here: str) -> None:
        from wf_core.schema.kinds import CHECKS

        known = self.known_to(node_id)
        if isinstance(listed := node.get("depends_on"), list):
            self._depends_on(index, listed, f"{here}/depends_on")
        if "when" in node:
            self.use_condition(node["when"], f"{here}/when", index, known)
        if isinstance(rule := node.get("join"), str) and rule not in JOIN_RULES:
            self._join(index, rule, f"{here}/join", known)
        kind = kind_of(node)
        if kind == "task":
            if isinstance(params := node.get("params"), dict):
                self.use_template(params, f"{here}/params", index, known)
            if isinstance(cache := node.get("cache"), dict):
                self.use_template(cache.get("key"), f"{here}/cache/key", index, known)
        elif kind in CHECKS:
            CHECKS[kind](self, index, node_id, node, here)
        if isinstance(undo := node.get("compensate"), dict) and isinstance(params := undo.get("params"), dict):
            found = self.findings.template(params, f"{here}/compensate/params")
            self.use(found, index, known, itself=True)
        if isinstance(catch := node.get("catch"), list):
            self._catch(index, catch, f"{here}/catch")

    def _depends_on(self, index: int, listed: list[Any], pointer: str) -> None:
        for position, other in enumerate(listed):
            if not isinstance(other, str):
                continue
            upstream = self.place.index_of.get(other)
            if upstream is None:
                detail = f"there is no node {other!r}{self._where(other, index)}"
                self.findings.add(child(pointer, position), "unknown_dependency", detail)
            elif upstream == index:
                detail = f"the node {other!r} waits for itself"
                self.findings.add(child(pointer, position), "own_dependency", detail)
            else:
                self.place.wait(index, upstream)

    def _join(self, index: int, rule: str, pointer: str, known: frozenset[str]) -> None:
        if _WORD.fullmatch(rule.strip()):
            rules = ", ".join(sorted(JOIN_RULES))
            detail = f"there is no join rule {rule!r}{did_you_mean(rule, JOIN_RULES)}; rules: {rules}"
            if rule == "caught":
                detail = "`caught` is the join of every node that a `catch` names; leave `join` out and name it there"
            self.findings.add(pointer, "unknown_join", detail)
        else:
            self.use(self.findings.condition(rule, pointer), index, known)

    def _reference(self, other: str, pointer: str, reader: Reader, *, itself: bool) -> None:
        found = self.place.find(other, reader)
        if found is None:
            detail = f"the expression names the node {other!r}, which is not there{self._where(other, reader)}"
            self.findings.add(pointer, "unknown_reference", detail)
            return
        place, index, waiting = found
        if waiting == index and not (itself and place is self.place):
            detail = (
                f"the node {other!r} waits for itself"
                if place is self.place
                else f"the expression stands inside the node {other!r}, which has no output before its inside ended"
            )
            self.findings.add(pointer, "own_dependency", detail)
        else:
            place.wait(waiting, index)

    def _where(self, other: str, reader: Reader) -> str:
        """Where a node is that cannot be named from here, else a similar id."""
        if not self.findings.may_look():
            return ""
        if other in self.later:
            return ": it is in `finally`, which runs when everything here has ended"
        for index, node in enumerate(self.nodes.values()):
            if isinstance(node, dict) and isinstance(node.get("nodes"), dict) and other in node["nodes"]:
                name = self.place.name(index)
                if index == reader:
                    return f": it is inside {name!r}, and this is evaluated before; a `while` may use `last`"
                return f": it is inside {name!r}, which nobody outside sees; use the output of {name!r}"
        if self.beyond is not None and self.beyond.find(other, None) is not None:
            return "; a child workflow sees nothing but its own `input`: pass on there what it needs"
        return self._outward(other) or did_you_mean(other, self.place.visible())

    def _outward(self, other: str) -> str:
        """What to do about a node further out, which only expressions may name."""
        place = self.place
        if place.outer is None or place.outer.find(other, None) is None:
            return ""
        if place.container is None:
            return "; it has ended before `finally` begins"
        return "; this names nodes that stand beside it: let the container depend on that one"

    def _note_catch(self, node_id: str, node: dict[str, Any]) -> None:
        for entry in node["catch"] if isinstance(node["catch"], list) else ():
            if isinstance(entry, dict) and isinstance(target := entry.get("to"), str):
                self._catchers.setdefault(target, node_id)
                names = self.errors.setdefault(target, set())
                if isinstance(name := entry.get("as"), str):
                    names.add(name)

    def _catch(self, index: int, catch: list[Any], pointer: str) -> None:
        for position, entry in enumerate(catch):
            if isinstance(entry, dict):
                self.target(index, entry.get("to"), f"{pointer}/{position}/to")
                self.check_as(entry.get("as"), f"{pointer}/{position}/as")

    def check_as(self, name: Any, pointer: str) -> None:
        """Checks a name that the document gives; the names around are taken."""
        if not isinstance(name, str):
            return
        sentence = known_names.bad_name(name)
        if sentence is None and name in self.known:
            sentence = f"`as` may not be {name!r}: a container around has that name already; choose another"
        if sentence is not None:
            self.findings.add(pointer, "bad_name", sentence)

    def _check_targets(self) -> None:
        for target, catcher in self._catchers.items():
            node = self.nodes.get(target)
            if not isinstance(node, dict):
                continue
            here = child(self.pointer, target)
            if "join" in node:
                detail = f"the `catch` of {catcher!r} names {target!r}, so its join is `caught`; leave `join` out"
                self.findings.add(f"{here}/join", "conflict", detail)
            if target in self._switches:
                switch = self._switches[target]
                detail = f"the `catch` of {catcher!r} and the switch {switch!r} both name {target!r}; only one may"
                self.findings.add(here, "conflict", detail)

    def check_undone(self, nodes: Mapping[str, Any], pointer: str) -> None:
        """Refuses ids among `nodes` that are those of compensations in this body."""
        for node_id, node in self.nodes.items():
            if isinstance(node, dict) and "compensate" in node and (undo := f"{node_id}{COMPENSATION}") in nodes:
                detail = f"the id {undo!r} is that of the compensation of {node_id!r}; choose another"
                self.findings.add(child(pointer, undo), "duplicate_id", detail)
