"""JSON values with `${{ … }}` in their strings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from wf_core import payload
from wf_core.errors import DocumentError, PayloadError, Problem
from wf_core.expressions.expression import Expression, compile_expression, scan_expression, shortened
from wf_core.expressions.scan import LONGEST
from wf_core.expressions.tokens import find_end
from wf_core.expressions.values import Scope
from wf_core.schema.pointers import child

DEEPEST = 100
"""Arrays and objects inside each other."""
_OPEN = re.compile(r"\$?\$\{\{")
Compile = Callable[[str, str], Expression]


@dataclass(frozen=True, slots=True)
class _Text:
    """A string with expressions in it."""

    parts: tuple[str | Expression, ...]

    def render(self, scope: Scope) -> str:
        return "".join(part if isinstance(part, str) else _inline(part.evaluate(scope)) for part in self.parts)


def _inline(value: Any) -> str:
    return value if isinstance(value, str) else payload.encode(value).decode()


@dataclass(slots=True)
class Template:
    """A JSON value whose strings may hold expressions. Made by `compile_template`."""

    pointer: str
    expressions: tuple[Expression, ...]
    _tree: Any
    source: Any = field(default=None, repr=False, compare=False)
    """The value as it stands in the document."""
    _json: bytes | None = field(default=None, repr=False, compare=False)
    _source_json: bytes | None = field(default=None, repr=False, compare=False)
    _references: frozenset[str] | None = field(default=None, repr=False, compare=False)
    _names: frozenset[str] | None = field(default=None, repr=False, compare=False)

    @property
    def references(self) -> frozenset[str]:
        """Ids of the nodes that it names."""
        if self._references is None:
            self._references = frozenset([node for expression in self.expressions for node, _ in expression.fields])
        return self._references

    @property
    def values(self) -> frozenset[str]:
        """Those of them whose output or error it reads."""
        return frozenset([node for e in self.expressions for node, part in e.fields if part != "status"])

    @property
    def names(self) -> frozenset[str]:
        """The top-level names other than `nodes`."""
        if self._names is None:
            self._names = frozenset([name for expression in self.expressions for name in expression.names])
        return self._names

    @property
    def is_constant(self) -> bool:
        """Whether it holds no expression."""
        return not self.expressions

    @property
    def constant_json(self) -> bytes:
        """The JSON of a constant, encoded once. Raises ValueError for a template that is none."""
        if self.expressions:
            raise ValueError(f"the template at {self.pointer} is no constant")
        if self._json is None:
            self._json = payload.encode(self._tree, what=f"the value at {self.pointer}")
        return self._json

    @property
    def source_json(self) -> bytes:
        """The JSON of the value as it stands in the document: `scan_template` makes an equal template of it."""
        if self._source_json is None:
            self._source_json = payload.encode(self.source, what=f"the value at {self.pointer}")
        return self._source_json

    def render(self, scope: Scope) -> Any:
        """The JSON value. Raises ExpressionError. Do not change it: constant parts are shared between calls."""
        return _render(self._tree, scope) if self.expressions else self._tree


def _render(tree: Any, scope: Scope) -> Any:
    """Recursion is bounded by DEEPEST."""
    if isinstance(tree, Expression):
        return tree.evaluate(scope)
    if isinstance(tree, _Text):
        return tree.render(scope)
    if isinstance(tree, dict):
        return {key: _render(item, scope) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_render(item, scope) for item in tree]
    return tree


def compile_template(value: Any, pointer: str) -> Template:
    """A template of a JSON value that stands at `pointer`. Raises DocumentError with everything that is wrong."""
    builder = TemplateBuilder(compile_expression)
    template = builder.template(value, pointer)
    if not builder.problems:
        try:
            payload.encode(value, what="the value")
        except PayloadError as error:
            builder.problems.append(Problem(pointer, "not_json", str(error)))
    if builder.problems:
        raise DocumentError(builder.problems)
    return template


def scan_template(value: Any, pointer: str) -> Template:
    """As `compile_template` for a value that passed it before: CEL itself is compiled at the first rendering."""
    return TemplateBuilder(scan_expression).template(value, pointer)


class TemplateBuilder:
    """Builds one template and collects what is wrong with it in `problems`; the value must be JSON."""

    def __init__(self, compile_one: Compile) -> None:
        self.problems: list[Problem] = []
        self.expressions: list[Expression] = []
        self._compile = compile_one

    def template(self, value: Any, pointer: str) -> Template:
        """The template of `value`, worthless when there are problems."""
        tree = self._build(value, pointer, 0)
        return Template(pointer, tuple(self.expressions), tree, value)

    def _build(self, value: Any, pointer: str, depth: int) -> Any:
        if isinstance(value, str):
            return self._string(value, pointer) if "${{" in value else value
        if not isinstance(value, dict | list | tuple):
            return value
        if depth == DEEPEST:
            self.problems.append(Problem(pointer, "too_deep", f"more than {DEEPEST} levels of arrays and objects"))
            return None
        if isinstance(value, dict):
            for key in value:
                if isinstance(key, str) and "${{" in key:
                    self._key(key, pointer)
            return {key: self._item(item, pointer, key, depth) for key, item in value.items()}
        return [self._item(item, pointer, index, depth) for index, item in enumerate(value)]

    def _item(self, item: Any, pointer: str, key: str | int, depth: int) -> Any:
        """As `_build`, making the pointer only where it can matter."""
        if isinstance(item, str):
            return self._string(item, child(pointer, key)) if "${{" in item else item
        if isinstance(item, dict | list | tuple):
            return self._build(item, child(pointer, key), depth + 1)
        return item

    def _key(self, key: str, pointer: str) -> None:
        detail = f"the key `{shortened(key)}` would stay as it is: keys are no templates; make the object with CEL"
        self.problems.append(Problem(child(pointer, key), "bad_key", f"{detail}, as in `${{{{ {{input.name: 1}} }}}}`"))

    def _string(self, text: str, pointer: str) -> Any:
        parts = list(self._parts(text, pointer))
        if len(parts) == 1:
            return parts[0]
        if all(isinstance(part, str) for part in parts):
            return "".join(part for part in parts if isinstance(part, str))
        return _Text(tuple(parts))

    def _parts(self, text: str, pointer: str) -> Iterator[str | Expression]:
        position = 0
        while match := _OPEN.search(text, position):
            if match.start() > position:
                yield text[position : match.start()]
            if len(match.group()) == len("$${{"):
                yield "${{"
                position = match.end()
                continue
            end = find_end(text, match.end(), LONGEST)
            if end is None:
                self._unclosed(text, match.start(), pointer)
                return
            yield from self._expression(text[match.end() : end], pointer)
            position = end + 2
        if position < len(text):
            yield text[position:]

    def _expression(self, text: str, pointer: str) -> Iterator[Expression]:
        try:
            expression = self._compile(text.strip(), pointer)
        except DocumentError as error:
            self.problems.extend(error.problems)
            return
        self.expressions.append(expression)
        yield expression

    def _unclosed(self, text: str, start: int, pointer: str) -> None:
        detail = f"`{shortened(text[start:])}` has no closing }}}} within {LONGEST:,} characters"
        self.problems.append(Problem(pointer, "bad_expression", f"{detail}; a literal ${{{{ is written $${{{{"))
