"""The lexical grammar of CEL: enough to find what an expression refers to, without a second parser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\n\f\r]+|//[^\n]*)
    |(?P<string>[bB]?(?:
        [rR](?:\"\"\".*?\"\"\"|'''.*?'''|"[^"\n\r]*"|'[^'\n\r]*')
        |\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''
        |"(?:\\.|[^"\\\n\r])*"|'(?:\\.|[^'\\\n\r])*'))
    |(?P<number>0[xX][0-9a-fA-F]+[uU]?|(?:[0-9]+\.[0-9]+|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[0-9]+(?:[eE][+-]?[0-9]+|[uU])?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<op>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE = re.compile(r"\\(?:[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL)
_AWKWARD = re.compile(r"[\"'{}/]")
_CLOSING = {")": "(", "]": "[", "}": "{"}
KEYWORDS = frozenset({"true", "false", "null", "in"})


class Token(NamedTuple):
    """A token: its kind (string, number, name, op), its text and where it starts."""

    kind: str
    text: str
    start: int


def tokenize(text: str) -> list[Token]:
    """The tokens of a CEL expression, without space and comments. What is no token comes out as an `op`."""
    return [
        Token(match.lastgroup or "op", match.group(), match.start())
        for match in _TOKEN.finditer(text)
        if match.lastgroup != "space"
    ]


def literal_kind(text: str) -> str | None:
    """What an expression gives that is one literal: `null`, `text`, `bytes`, `a number`; None for a boolean or more."""
    tokens = tokenize(text)
    if len(tokens) > 1 and tokens[0].text == "-":
        tokens = tokens[1:]
    if len(tokens) != 1:
        return None
    kind, found, _ = tokens[0]
    if kind == "string":
        return "bytes" if found[0] in "bB" else "text"
    if kind == "number":
        return "a number"
    return "null" if found == "null" else None


def find_end(text: str, start: int, limit: int) -> int | None:
    """Where the `}}` stands that closes a template whose expression begins at `start`; None when none is in reach."""
    plain = text.find("}}", start, start + limit)
    if plain >= 0 and not _AWKWARD.search(text, start, plain):
        return plain
    depth = 0
    position, end = start, min(len(text), start + limit)
    while match := _TOKEN.match(text, position, end):
        found = match.group()
        if found == "{":
            depth += 1
        elif found == "}":
            if depth == 0:
                return position if text.startswith("}}", position) else None
            depth -= 1
        position = match.end()
    return None


def brackets(tokens: Sequence[Token]) -> tuple[dict[int, int], int]:
    """Index of each opening bracket to that of its closing one, and the greatest depth. Unmatched ones are left out."""
    pairs: dict[int, int] = {}
    waiting: list[int] = []
    deepest = 0
    for index, token in enumerate(tokens):
        if token.kind != "op":
            continue
        if token.text in "([{":
            waiting.append(index)
            deepest = max(deepest, len(waiting))
        elif token.text in _CLOSING and waiting and tokens[waiting[-1]].text == _CLOSING[token.text]:
            pairs[waiting.pop()] = index
    return pairs, deepest


def is_selection(tokens: Sequence[Token], index: int) -> bool:
    """Whether the token at `index` is a field or method name: `.name` behind something."""
    return index > 0 and tokens[index - 1].text == "."


def string_value(literal: str) -> str | None:
    """The text of a string literal; None when it is a bytes literal or holds an escape that CEL has not."""
    if literal[0] in "bB":
        return None
    raw = literal[0] in "rR"
    body = literal[1:] if raw else literal
    quotes = 3 if body[:3] in ('"""', "'''") and len(body) >= 6 else 1  # noqa: PLR2004 - two triple quotes
    body = body[quotes:-quotes]
    return body if raw or "\\" not in body else _unescape(body)


def _unescape(body: str) -> str | None:
    try:
        return _ESCAPE.sub(_escaped, body)
    except (ValueError, OverflowError):
        return None


def _escaped(match: re.Match[str]) -> str:
    hex2, hex4, hex8, octal, other = match.groups()
    if octal:
        return chr(int(octal, 8))
    if other is not None:
        return _ESCAPES.get(other, other)
    return chr(int(hex2 or hex4 or hex8, 16))
