"""Which operation of an expression found values of the wrong types: CEL's library does not say it of comparisons.

What stands at its sides is evaluated again, which is needed only for an expression that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from wf_core.expressions.tokens import Token, brackets, tokenize

_LEVELS = (("||",), ("&&",), ("==", "!=", "<=", ">=", "<", ">", "in"), ("+", "-"), ("*", "/", "%"))
"""Binary operators, those that bind least first."""
_TWO = frozenset({"||", "&&", "==", "!=", "<=", ">="})
_DEEPEST = 10
"""Operations inside each other that are looked through."""
_NUMBERS = frozenset({"int", "uint", "double"})
_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "bool"),
    (int, "int"),
    (float, "double"),
    (str, "string"),
    (bytes, "bytes"),
    (list, "list"),
    (dict, "map"),
    (datetime, "timestamp"),
    (timedelta, "duration"),
)


class NoOverloadError(ValueError):
    """An operation or a function is not there for values of these types; the library does not say which."""


def wrong_operands(text: str, evaluate: Callable[[str], Any]) -> str | None:
    """A sentence about the operation of `text` that is not there for the types of its operands; None: not found.

    `evaluate` gives the CEL value of a part, and raises NoOverloadError when it fails as `text` did.
    """
    for _ in range(_DEEPEST):
        operands, operator = _parts(text)
        types: list[str] = []
        for operand in operands:
            try:
                types.append(_type_of(evaluate(operand)))
            except NoOverloadError:
                text = operand
                break
            except ValueError:  # it fails in another way, which is not what is looked for
                return None
        else:
            return no_operation(types, operator) if operator else None
    return None


def no_operation(types: Sequence[str], operator: str) -> str:
    """A sentence with the remedy: there is no such operation for operands of these types."""
    shown = f" {operator} ".join(types) if len(types) > 1 else f"{operator}{types[0]}"
    return f"there is no operation `{shown}`{_remedy(types, operator)}"


def _remedy(found: Sequence[str], operator: str) -> str:
    types = frozenset(found[-1:] if operator == "in" else found)
    if "null" in types:
        return "; where a value may be null, test it first: `x != null && …`"
    if operator == "in":
        text = "; for text: `x.contains(y)`" if "string" in types else ""
        return f"; `in` looks into a list or the keys of a map{text}"
    if len(types) > 1 and types <= _NUMBERS:
        return "; CEL never mixes int and double by itself: convert with int(x) or double(x)"
    if len(types) > 1 and types <= _NUMBERS | {"string"}:
        return "; convert one of them with int(x), double(x) or string(x)"
    return ""


def _type_of(value: Any) -> str:
    """CEL's name of a value's type."""
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "null")


def _parts(text: str) -> tuple[list[str], str]:
    """The operands and the operator of the operation that `text` ends with; a condition comes without an operator."""
    tokens = tokenize(text)
    pairs, _ = brackets(tokens)
    if tokens and tokens[0].text == "(" and pairs.get(0) == len(tokens) - 1:
        return _parts(text[tokens[0].start + 1 : tokens[-1].start])
    operators = list(_outer(tokens, pairs))
    for start, operator in operators:
        if operator == "?":
            return [text[:start].strip()], ""
    for level in _LEVELS:
        found = [(start, operator) for start, operator in operators if operator in level]
        if found:
            start, operator = found[-1]
            return [text[:start].strip(), text[start + len(operator) :].strip()], operator
    if tokens and tokens[0].text in ("!", "-"):
        return [text[tokens[0].start + 1 :].strip()], tokens[0].text
    return [], ""


def _outer(tokens: Sequence[Token], pairs: Mapping[int, int]) -> Iterator[tuple[int, str]]:
    """The operators between operands that stand in no brackets, in order, each with its place in the text."""
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if at in pairs:
            at = pairs[at]
        elif token.text == "in" or (token.kind == "op" and at > 0 and not _awaits(tokens[at - 1])):
            two = token.text + (tokens[at + 1].text if at + 1 < len(tokens) else "")
            yield token.start, two if two in _TWO else token.text
            at += two in _TWO
        at += 1


def _awaits(token: Token) -> bool:
    """Whether an operand follows `token`, so that a `-` there is a sign."""
    return token.text == "in" or (token.kind == "op" and token.text not in ")]}")
