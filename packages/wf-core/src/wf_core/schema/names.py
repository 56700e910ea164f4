"""The names that expressions may use beside nodes: which there are by place, and which a document may give itself."""

from __future__ import annotations

from collections.abc import Collection

from wf_core.expressions.scan import FUNCTIONS, MACROS
from wf_core.expressions.tokens import KEYWORDS
from wf_core.expressions.values import ROOTS, listed
from wf_core.suggest import did_you_mean

DEFAULT_ITEM = "item"
IN_MAP = frozenset({"index"})
IN_LOOP = frozenset({"iteration", "last"})
IN_MATCH = frozenset({"payload"})
_SECRETS = "secrets"
_CEL = frozenset(
    {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package"}
    | {"namespace", "return", "void", "var", "while"}
    | {"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"}
)
RESERVED = (
    frozenset({*ROOTS, _SECRETS, DEFAULT_ITEM}) | IN_MAP | IN_LOOP | IN_MATCH | KEYWORDS | FUNCTIONS | MACROS | _CEL
)
"""What nothing in a document may be called by `as`."""
_ONLY = {
    DEFAULT_ITEM: "only the inside of a map without `as` has it",
    "index": "only the inside of a map has it",
    "iteration": "only the inside of a loop, and its `while` and `until`, have it",
    "last": "only the inside of a loop, and its `while` and `until`, have it",
    "payload": "only the `match` of a signal has it",
}


def bad_name(name: str) -> str | None:
    """What is wrong with a name that `as` gives, as a sentence; None when nothing is."""
    if name in RESERVED or name.startswith("__"):
        return f"`as` may not be {name!r}: that name is taken in expressions; choose another"
    if not (name.isascii() and name.isidentifier()):
        return f"`as` must be a name for expressions (letters, digits and _, no digit first), {name!r} is none"
    return None


def unknown_name(name: str, known: Collection[str], nodes: Collection[str]) -> str:
    """The sentence that an expression names what is not there, with the remedy. `known` are names beside ROOTS."""
    sentence = f"there is no name {name!r} in an expression"
    if name == _SECRETS:
        return "secrets are not supported yet, so no expression may name them; configure the worker with what it needs"
    if name in _ONLY:
        return f"{sentence} here: {_ONLY[name]}"
    if hint := did_you_mean(name, [*ROOTS, *known]):
        return sentence + hint
    if name in nodes:
        return f"{sentence}; did you mean nodes.{name}?"
    return f"{sentence}; known are {listed([*ROOTS, *sorted(known)])}"
