"""What an expression refers to: nodes, other names, functions, comprehensions; found by tokens alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from wf_core.expressions.tokens import KEYWORDS, Token, brackets, is_selection, string_value, tokenize
from wf_core.expressions.values import FIELDS, ROOTS, Path

LONGEST = 4000
"""Characters of one expression: a tree of that size fits the stack of any thread."""
DEEPEST = 40
"""Brackets inside each other in one expression, for the same reason."""
NODE_PATH = 3
"""`nodes`, an id, and one of its fields."""
MACROS = frozenset({"all", "exists", "exists_one", "map", "filter"})
FUNCTIONS = frozenset(
    {
        "bytes",
        "contains",
        "double",
        "duration",
        "dyn",
        "endsWith",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getFullYear",
        "getHours",
        "getMilliseconds",
        "getMinutes",
        "getMonth",
        "getSeconds",
        "has",
        "int",
        "matches",
        "size",
        "startsWith",
        "string",
        "timestamp",
        "type",
        "uint",
    }
)
Fields = tuple[tuple[str, str], ...]
"""(node id, output | status | error) pairs, in order."""
_PATH = re.compile(r"(?!(?:true|false|null|in)\b)[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_HARD = re.compile(r"[\"'\[/]|\.[ \t\n\f\r]|[ \t\n\f\r]\.")
_FIELD = re.compile(r"(?<![.A-Za-z0-9_])nodes\.([A-Za-z_][A-Za-z0-9_]*)\.(output|status|error)(?![A-Za-z0-9_])")


@dataclass(frozen=True, slots=True)
class Macro:
    """A comprehension `receiver.name(variable, …)`: token indexes of its dot, brackets and commas."""

    name: str
    dot: int
    opening: int
    closing: int
    commas: tuple[int, ...]
    variable: str

    def holds(self, index: int) -> bool:
        """Whether the token at `index` is among the arguments that see the variable."""
        return self.commas[0] < index < self.closing


@dataclass(frozen=True, slots=True)
class Read:
    """A path of two steps or more that an expression reads, at `text[start:end]`."""

    path: Path
    start: int
    end: int


@dataclass(slots=True)
class Scan:
    """What was found. `path` is set when the expression is nothing but a path; `problems` are sentences."""

    fields: set[tuple[str, str]] = field(default_factory=set)
    """(node id, output | status | error) pairs."""
    names: set[str] = field(default_factory=set)
    """Top-level names other than `nodes`."""
    path: Path | None = None
    macros: list[Macro] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    """Where top-level names stand: indexes of their tokens."""
    tokens: Sequence[Token] = ()
    problems: list[str] = field(default_factory=list)


def quick_path(text: str) -> Path | None:
    """The steps of a path that is written with dots only."""
    return tuple(text.split(".")) if _PATH.fullmatch(text) else None


def quick_fields(text: str) -> Fields | None:
    """What `scan` would find in `fields` for a text without problems, for the common forms; None: ask `scan`."""
    if _HARD.search(text):
        return None
    return tuple(sorted(set(_FIELD.findall(text))))


def scan(text: str) -> Scan:
    """Reads an expression. Never raises: what is wrong is in `problems`, and the compiler will say the rest."""
    found = Scan()
    found.path = quick_path(text)
    if found.path is not None:
        _use_path(found, found.path)
        return found
    if len(text) > LONGEST:
        found.problems.append(f"it is {len(text):,} characters long; the limit is {LONGEST:,}")
        return found
    found.tokens = tokens = tokenize(text)
    pairs, depth = brackets(tokens)
    if depth > DEEPEST:
        found.problems.append(f"its brackets are {depth} deep; the limit is {DEEPEST}")
        return found
    found.path = _plain_path(tokens)
    found.macros = list(_macros(tokens, pairs))
    _check_nesting(found)
    for index, token in enumerate(tokens):
        if token.kind == "name" and token.text not in KEYWORDS:
            _use_name(found, index)
    return found


def _plain_path(tokens: Sequence[Token]) -> Path | None:
    if not tokens or tokens[0].kind != "name" or tokens[0].text in KEYWORDS:
        return None
    path: list[str | int] = [tokens[0].text]
    index = 1
    while index < len(tokens):
        step, index = _path_step(tokens, index)
        if step is None:
            return None
        path.append(step)
    return tuple(path)


def _path_step(tokens: Sequence[Token], index: int) -> tuple[str | int | None, int]:
    """The step `.name`, `["name"]` or `[0]` at `index`, and where the next begins; None when there is none."""
    texts = [token.text for token in tokens[index : index + 3]]
    if texts[0] == "." and len(texts) > 1 and tokens[index + 1].kind == "name":
        return texts[1], index + 2
    if texts[0] == "[" and texts[2:] == ["]"]:
        key = tokens[index + 1]
        if key.kind == "string":
            return string_value(key.text), index + 3
        if key.kind == "number" and key.text.isdecimal():
            return int(key.text), index + 3
    return None, index


def reads(found: Scan) -> list[Read]:
    """One for each of `roots`, in order, but for those that are no path, or whose presence `has()` asks for."""
    tokens = found.tokens
    pairs, _ = brackets(tokens)
    asked = [(at, pairs.get(at + 1, at)) for at, token in enumerate(tokens) if token.text == "has"]
    found_reads = []
    for root in found.roots:
        path: list[str | int] = [tokens[root].text]
        end = index = root + 1
        while index < len(tokens):
            step, index = _path_step(tokens, index)
            if step is None or (index < len(tokens) and tokens[index].text == "("):
                break
            path.append(step)
            end = index
        if len(path) > 1 and not any(begin < root < closing for begin, closing in asked):
            last = tokens[end - 1]
            found_reads.append(Read(tuple(path), tokens[root].start, last.start + len(last.text)))
    return found_reads


def _macros(tokens: Sequence[Token], pairs: dict[int, int]) -> Iterator[Macro]:
    for index, token in enumerate(tokens[:-1]):
        if token.text in MACROS and token.kind == "name" and is_selection(tokens, index):
            opening = index + 1
            closing = pairs.get(opening)
            if tokens[opening].text != "(" or closing is None:
                continue
            commas = tuple(_commas(tokens, pairs, opening, closing))
            if commas and tokens[opening + 1].kind == "name":
                yield Macro(token.text, index - 1, opening, closing, commas, tokens[opening + 1].text)


def _commas(tokens: Sequence[Token], pairs: dict[int, int], opening: int, closing: int) -> Iterator[int]:
    index = opening + 1
    while index < closing:
        if tokens[index].text == ",":
            yield index
        index = pairs.get(index, index) + 1


def _check_nesting(found: Scan) -> None:
    for macro in found.macros:
        around = sum(other.opening < macro.dot < other.closing for other in found.macros)
        if around > 1:
            found.problems.append(
                f"{macro.name}() stands inside {around} other comprehensions; one may stand inside one other"
            )
            return


def _use_name(found: Scan, index: int) -> None:
    tokens = found.tokens
    token = tokens[index]
    following = tokens[index + 1].text if index + 1 < len(tokens) else ""
    if following == "(":
        _use_function(found, index)
    elif is_selection(tokens, index):
        if index == 1 or (tokens[index - 2].kind == "op" and tokens[index - 2].text not in ")]}"):
            found.problems.append(f"a leading dot before {token.text!r} means nothing here")
    elif following == "{":
        found.problems.append(f"{token.text}{{…}} makes a message, and there are none; a map is {{'key': value}}")
    elif any(macro.variable == token.text and index == macro.opening + 1 for macro in found.macros):
        _bind(found, token.text)
    elif any(macro.variable == token.text and macro.holds(index) for macro in found.macros):
        return
    else:
        found.roots.append(index)
        if token.text == "nodes":
            _use_node(found, index)
        else:
            found.names.add(token.text)


def _bind(found: Scan, variable: str) -> None:
    if variable in ROOTS or variable.startswith("__"):
        found.problems.append(f"the variable of a comprehension may not be called {variable!r}; that name is taken")


def _use_function(found: Scan, index: int) -> None:
    name = found.tokens[index].text
    if name in MACROS:
        if not any(macro.opening == index + 1 for macro in found.macros):
            found.problems.append(f"{name}() is written list.{name}(x, …)")
    elif name not in FUNCTIONS:
        from wf_core.suggest import nearest

        close = nearest(name, FUNCTIONS | MACROS)
        hint = f"; did you mean {close[0]}()?" if close else ""
        found.problems.append(f"there is no function {name}(){hint}")


def _use_node(found: Scan, index: int) -> None:
    tokens = found.tokens
    path: list[str | int] = ["nodes"]
    index += 1
    while index < len(tokens) and len(path) < NODE_PATH:
        step, index = _path_step(tokens, index)
        if step is None:
            break
        path.append(step)
    _use_path(found, tuple(path))


def _use_path(found: Scan, path: Path) -> None:
    if path[0] != "nodes":
        found.names.add(str(path[0]))
    elif len(path) == 1 or not isinstance(path[1], str):
        found.problems.append('nodes needs the id of a node written out: nodes.x or nodes["a-b"], never a computed key')
    elif len(path) < NODE_PATH or path[2] not in FIELDS:
        given = f", not {path[2]!r}" if len(path) >= NODE_PATH else ""
        found.problems.append(
            f"a node has output, status and error{given}: write nodes.{path[1]}.output"
            if path[1].isidentifier()
            else f'a node has output, status and error{given}: write nodes["{path[1]}"].output'
        )
        found.fields.add((path[1], "output"))
    else:
        found.fields.add((path[1], str(path[2])))
