"""One compiled expression."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from wf_core.errors import DocumentError, ExpressionError, Problem
from wf_core.expressions.cel import CompileError, Program
from wf_core.expressions.operands import NoOverloadError, wrong_operands
from wf_core.expressions.scan import Fields, Scan, quick_fields, quick_path, scan
from wf_core.expressions.tokens import literal_kind
from wf_core.expressions.values import Path, Scope, follow, kind, to_json

_SHOWN = 120
_PARTS = 64
"""Parts of expressions that are kept compiled: one that fails for an item of a map may fail for ten thousand."""


class Expression:
    """A CEL expression and where it stands in the document. Made by `compile_expression`."""

    __slots__ = ("_found", "_program", "fields", "path", "pointer", "text")

    def __init__(self, text: str, pointer: str, fields: Fields, path: Path | None, found: Scan | None = None) -> None:
        self.text = text
        self.pointer = pointer
        self.fields = fields
        """`(node id, output | status | error)` of everything that it reads of nodes."""
        self.path = path
        """Its steps, when it is nothing but a path."""
        self._found = found
        self._program: Program | None = None

    def __repr__(self) -> str:
        return f"Expression({self.text!r}, {self.pointer!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and (self.text, self.pointer) == (other.text, other.pointer)

    def __hash__(self) -> int:
        return hash((self.text, self.pointer))

    @property
    def references(self) -> frozenset[str]:
        """Ids of the nodes that it names."""
        return frozenset([node for node, _ in self.fields])

    @property
    def values(self) -> frozenset[str]:
        """Those of them whose output or error it reads."""
        return frozenset([node for node, part in self.fields if part != "status"])

    @property
    def names(self) -> frozenset[str]:
        """The top-level names other than `nodes`."""
        if self.path is not None:
            return frozenset([str(self.path[0])] if self.path[0] != "nodes" else [])
        return frozenset(self._scanned().names)

    @property
    def literal_kind(self) -> str | None:
        """What it is when it is one literal that is no boolean: `null`, `text`, `a number`; else None."""
        return None if self.fields or self.names else literal_kind(self.text)

    def evaluate(self, scope: Scope) -> Any:
        """The JSON value. A plain path hands its value on untouched. Raises ExpressionError."""
        try:
            if self.path is not None:
                return follow(self.path, scope)
            return to_json(self._run(scope))
        except RecursionError as error:
            raise self._failed("its value is too deep") from error
        except NoOverloadError as error:
            raise self._failed(self._mismatch(scope) or str(error)) from error
        except (LookupError, ValueError, OverflowError) as error:  # the last: a time that UTC has no year for
            raise self._failed(str(error.args[0]) if error.args else "unknown") from error

    def holds(self, scope: Scope) -> bool:
        """The value of a condition. Raises ExpressionError, also when the value is no boolean."""
        value = self.evaluate(scope)
        if not isinstance(value, bool):
            raise self._failed(f"a condition gives true or false, and this gives {kind(value)}")
        return value

    def _failed(self, reason: str) -> ExpressionError:
        return ExpressionError(shortened(self.text), self.pointer, reason)

    def compile_problems(self) -> list[str]:
        """Compiles now what is otherwise compiled at the first evaluation; says what the compiler says."""
        try:
            if self.path is None:
                self._compiled()
        except CompileError as error:
            return [str(error)]
        return []

    def _scanned(self) -> Scan:
        if self._found is None:
            self._found = scan(self.text)
        return self._found

    def _compiled(self) -> Program:
        if self._program is None:
            self._program = Program(self.text, self._scanned())
            self._found = Scan(names=self._scanned().names)
        return self._program

    def _run(self, scope: Scope) -> Any:
        program = self._compiled()
        try:
            read = {name: follow(path, scope) for name, path in program.paths.items()}
        except LookupError:  # perhaps nobody needs it; else CEL says what is missing
            read = {}
        if not read:
            return program.run(self._variables(scope))
        return program.run_direct(read if program.is_direct else {**self._variables(scope), **read})

    def _mismatch(self, scope: Scope) -> str | None:
        """Which operation has operands of the wrong types, found by evaluating the parts of the expression."""
        try:
            variables = self._variables(scope)
        except LookupError:
            return None
        return wrong_operands(self.text, lambda part: _program_of(part).run(variables))

    def _variables(self, scope: Scope) -> dict[str, Any]:
        """Only what the expression names: CEL copies every variable that it is given."""
        variables = {name: scope.value(name) for name in sorted(self.names)}
        if self.fields:
            nodes: dict[str, dict[str, Any]] = {}
            for node, part in self.fields:
                nodes.setdefault(node, {})[part] = follow(("nodes", node, part), scope)
            variables["nodes"] = nodes
        return variables


@lru_cache(maxsize=_PARTS)
def _program_of(part: str) -> Program:
    return Program(part, scan(part))


def shortened(text: str) -> str:
    """`text`, or its beginning when it is long."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def bare(text: str) -> str:
    """The expression in `text`, without the `${{ }}` that may stand around all of it."""
    stripped = text.strip()
    if stripped.startswith("${{") and stripped.endswith("}}") and "${{" not in stripped[3:]:
        return stripped[3:-2].strip()
    return stripped


def compile_expression(text: str, pointer: str) -> Expression:
    """Bare CEL, or CEL with `${{ }}` around it. Raises DocumentError with everything that is wrong."""
    text = bare(text)
    found = scan(text)
    expression = Expression(text, pointer, tuple(sorted(found.fields)), found.path, found)
    if problems := found.problems or expression.compile_problems():
        shown = shortened(text)
        raise DocumentError(
            [Problem(pointer, "bad_expression", f"the expression `{shown}` does not compile: {p}") for p in problems]
        )
    return expression


def scan_expression(text: str, pointer: str) -> Expression:
    """As `compile_expression` for a text that passed it before: CEL itself is compiled at the first evaluation."""
    text = bare(text)
    fields = quick_fields(text)
    if fields is not None:
        return Expression(text, pointer, fields, quick_path(text))
    found = scan(text)
    return Expression(text, pointer, tuple(sorted(found.fields)), found.path, found)
