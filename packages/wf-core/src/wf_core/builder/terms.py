"""Expressions as Python values: `rows.output.count > 3` is the CEL text `nodes.rows.output.count > 3`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Protocol

from wf_core.errors import WfError

_OR, _AND, _RELATION, _SUM, _PRODUCT, _UNARY, _ATOM = range(1, 8)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LITERALS = frozenset({"true", "false", "null", "in"})
_INT64 = 2**63


class BuildError(WfError):
    """The author must act: a workflow that is being built in Python makes no sense at this place."""


class Use(Protocol):
    """Something that an expression names, and that is known in some places of the document only."""

    def check_here(self) -> None:
        """Raises BuildError unless it is known where the workflow is being built right now."""
        ...

    def check(self, place: Any) -> None:
        """Raises BuildError unless it is known in a body of nodes."""
        ...


class Term:
    """A CEL expression. Fields are attributes or `["…"]`; `== != < <= > >= + - * / %` and `& | ~` build larger ones.

    `.in_(values)` is membership. In an f-string it becomes a template, `${{ … }}`.
    """

    __slots__ = ("_level", "_text", "_uses")
    _text: str
    _uses: tuple[Use, ...]
    _level: int

    def __init__(self, text: str, uses: tuple[Use, ...] = (), level: int = _ATOM) -> None:
        self._text = text
        self._uses = uses
        self._level = level

    def __getattr__(self, name: str) -> Term:
        if name.startswith("_"):
            raise AttributeError(f"an expression has no {name!r}; write [{name!r}] for a field of that name")
        return self[name]

    def __getitem__(self, key: str | int | Term) -> Term:
        if isinstance(key, slice):
            raise BuildError("an expression has no slices; a task may cut a list")
        text = _bracketed(self, _ATOM)
        if isinstance(key, str) and _NAME.fullmatch(key) and key not in _LITERALS:
            return Term(f"{text}.{key}", self._uses)
        index = literal(key)
        return Term(f"{text}[{index._text}]", self._uses + index._uses)  # noqa: SLF001 - of the same class

    def in_(self, values: Any) -> Term:
        """Whether it is one of `values`: a list, or an expression of a list or map."""
        return _binary("in", _RELATION, self, values)

    def __eq__(self, other: object) -> Term:  # type: ignore[override]
        return _binary("==", _RELATION, self, other)

    def __ne__(self, other: object) -> Term:  # type: ignore[override]
        return _binary("!=", _RELATION, self, other)

    __hash__ = None  # type: ignore[assignment]

    def __lt__(self, other: Any) -> Term:
        return _binary("<", _RELATION, self, other)

    def __le__(self, other: Any) -> Term:
        return _binary("<=", _RELATION, self, other)

    def __gt__(self, other: Any) -> Term:
        return _binary(">", _RELATION, self, other)

    def __ge__(self, other: Any) -> Term:
        return _binary(">=", _RELATION, self, other)

    def __add__(self, other: Any) -> Term:
        return _binary("+", _SUM, self, other)

    def __radd__(self, other: Any) -> Term:
        return _binary("+", _SUM, other, self)

    def __sub__(self, other: Any) -> Term:
        return _binary("-", _SUM, self, other)

    def __rsub__(self, other: Any) -> Term:
        return _binary("-", _SUM, other, self)

    def __mul__(self, other: Any) -> Term:
        return _binary("*", _PRODUCT, self, other)

    def __rmul__(self, other: Any) -> Term:
        return _binary("*", _PRODUCT, other, self)

    def __truediv__(self, other: Any) -> Term:
        return _binary("/", _PRODUCT, self, other)

    def __rtruediv__(self, other: Any) -> Term:
        return _binary("/", _PRODUCT, other, self)

    def __mod__(self, other: Any) -> Term:
        return _binary("%", _PRODUCT, self, other)

    def __rmod__(self, other: Any) -> Term:
        return _binary("%", _PRODUCT, other, self)

    def __and__(self, other: Any) -> Term:
        return _binary("&&", _AND, self, _truth(other))

    def __rand__(self, other: Any) -> Term:
        return _binary("&&", _AND, _truth(other), self)

    def __or__(self, other: Any) -> Term:
        return _binary("||", _OR, self, _truth(other))

    def __ror__(self, other: Any) -> Term:
        return _binary("||", _OR, _truth(other), self)

    def __invert__(self) -> Term:
        return Term(f"!{_bracketed(self, _UNARY)}", self._uses, _UNARY)

    def __neg__(self) -> Term:
        return Term(f"-{_bracketed(self, _UNARY)}", self._uses, _UNARY)

    def __str__(self) -> str:
        for use in self._uses:
            use.check_here()
        return template_text(self)

    def __format__(self, spec: str) -> str:
        if spec:
            raise BuildError(f"an expression has no value yet that {spec!r} could format; a task may do it")
        return str(self)

    def __repr__(self) -> str:
        return f"<{template_text(self)}>"

    def __bool__(self) -> NoReturn:
        raise BuildError(
            f"{self!r} has no value while the workflow is being built: combine conditions with `&`, `|`, `~` "
            "(each side in parentheses) and pass them on as `when`, or use a switch"
        )

    def __contains__(self, value: Any) -> NoReturn:
        raise BuildError(f"{self!r} has no value while the workflow is being built: write `value.in_(…)`")

    def __iter__(self) -> NoReturn:
        raise BuildError(f"{self!r} has no items while the workflow is being built: use `wf.map(over=…)`")

    def __len__(self) -> NoReturn:
        raise BuildError(f"{self!r} has no length while the workflow is being built: write size(…)")


def template_text(term: Term) -> str:
    """The expression as a template."""
    return f"${{{{ {term._text} }}}}"  # noqa: SLF001 - of this module


def text_of(term: Term) -> str:
    """The expression as bare CEL."""
    return term._text  # noqa: SLF001 - of this module


def uses_of(term: Term) -> tuple[Use, ...]:
    """What the expression names."""
    return term._uses  # noqa: SLF001 - of this module


def cel(text: str) -> Term:
    """An expression in CEL's own words, for what Python's operators cannot say."""
    return Term(text, (), 0)


def call(function: str, *arguments: Any) -> Term:
    """A call of a CEL function: `call("size", rows.output)`."""
    terms = [literal(argument) for argument in arguments]
    return Term(f"{function}({', '.join(map(text_of, terms))})", _united(terms))


def size(value: Any) -> Term:
    """How many items or characters."""
    return call("size", value)


def has(field: Term) -> Term:
    """Whether a field is there: `has(rows.output.next)`."""
    return call("has", field)


def choose(condition: Any, then: Any, otherwise: Any) -> Term:
    """`then` where the condition holds, else `otherwise`."""
    terms = [literal(value) for value in (condition, then, otherwise)]
    first, second, third = (_bracketed(term, _OR) for term in terms)
    return Term(f"{first} ? {second} : {third}", _united(terms), 0)


def literal(value: Any) -> Term:
    """A Python value inside an expression. Raises BuildError for what CEL cannot say."""
    if isinstance(value, Term):
        return value
    if hasattr(value, "as_term"):
        term: Term = value.as_term()
        return term
    if value is None or isinstance(value, bool):
        return Term({None: "null", True: "true", False: "false"}[value])
    if isinstance(value, str):
        if "${{" in value:
            raise BuildError(f"{value!r} is a template inside an expression; join texts with + instead of an f-string")
        return Term(json.dumps(value, ensure_ascii=False))
    return _number(value) if isinstance(value, int | float) else _collection(value)


def _collection(value: Any) -> Term:
    if isinstance(value, Mapping):
        items = [literal(item) for item in value.values()]
        pairs = zip(map(literal, map(str, value)), items, strict=True)
        return Term("{" + ", ".join(f"{text_of(key)}: {text_of(item)}" for key, item in pairs) + "}", _united(items))
    if isinstance(value, Iterable):
        items = [literal(item) for item in value]
        return Term(f"[{', '.join(map(text_of, items))}]", _united(items))
    raise BuildError(f"{value!r} cannot stand in an expression; use numbers, texts, lists and maps")


def _number(value: float) -> Term:
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise BuildError(f"{value} is no int64, which is what CEL reckons with")
    if not math.isfinite(value):
        raise BuildError(f"{value} is no number that an expression can hold")
    return Term(repr(value), (), _ATOM if value >= 0 else _UNARY)


def _truth(value: Any) -> Any:
    if isinstance(value, bool | Term):
        return value
    raise BuildError(f"`&` and `|` join conditions, not {value!r}; put each side in parentheses: (a > 3) & (b < 2)")


def _binary(operator: str, level: int, left: Any, right: Any) -> Term:
    first, second = literal(left), literal(right)
    text = f"{_bracketed(first, level)} {operator} {_bracketed(second, level + 1)}"
    return Term(text, _united([first, second]), level)


def _bracketed(term: Term, level: int) -> str:
    return term._text if term._level >= level else f"({term._text})"  # noqa: SLF001 - of this module


def _united(terms: Iterable[Term]) -> tuple[Use, ...]:
    return tuple(dict.fromkeys(use for term in terms for use in uses_of(term)))
