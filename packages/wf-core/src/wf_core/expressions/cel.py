"""The CEL library behind one door: loading, compiling, running within limits, and errors in plain words."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.machinery import PathFinder
from typing import Any

from wf_core.errors import SetupError
from wf_core.expressions.operands import NoOverloadError, no_operation
from wf_core.expressions.scan import FUNCTIONS, Macro, Read, Scan, reads
from wf_core.expressions.values import Path, size

MOST_ITEMS = 10_000
"""Items that one comprehension may go over."""
MOST_STEPS = 100_000
"""Items that all comprehensions of one evaluation may go over, inner ones counted each time."""
MOST_VALUES = 1_000_000
"""Values that the comprehensions of one evaluation may copy: a bound on memory."""

_NO_OVERLOAD = "No such overload"
_NAMES = {"float": "double"}
"""CEL's names of types for which the library sometimes has others."""
_UNSUPPORTED = re.compile(r"Unsupported operation: (\w+) (\S+) (\w+)\.")
_NO_FUNCTION = re.compile(r"Undefined variable or function: '(\w+)'")
_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?(.*?)(?:\n\||$)", re.DOTALL)


@lru_cache(maxsize=1)
def _library() -> Any:
    """The extension module `cel.cel`, without the package around it, which imports a command line of 0.3 s."""
    if loaded := sys.modules.get("cel.cel"):
        return loaded
    package = importlib.util.find_spec("cel")
    places = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec("cel.cel", places) if places else None
    if spec is None or spec.loader is None:
        raise SetupError("the package common-expression-language is missing or broken; install wf-core again")
    module = importlib.util.module_from_spec(spec)
    sys.modules["cel.cel"] = module
    spec.loader.exec_module(module)
    return module


class CompileError(ValueError):
    """The text is no CEL. The message is a sentence with the place."""


class Program:
    """A compiled expression that runs within the limits above.

    The library copies all that lies under a key whenever it follows one, so a comprehension that reads `nodes.a.output`
    for each item would be quadratic. That is why it has a second form, with a variable in place of each such path.
    """

    __slots__ = ("_counted", "_direct", "_program", "is_direct", "paths")

    def __init__(self, text: str, found: Scan) -> None:
        """Raises CompileError."""
        self._counted = bool(found.macros)
        self._program = _compile(text)
        self._direct: Any = None
        self.paths: dict[str, Path] = {}
        """What the variables of the second form stand for; empty when there is none."""
        self.is_direct = False
        """The second form names nothing else."""
        if found.macros:
            read = reads(found)
            self._program = _compile(_with_limits(text, found, []))
            self._direct = _compile(_with_limits(text, found, read)) if read else None
            self.paths = {_variable(one): one.path for one in read}
            self.is_direct = len(read) == len(found.roots)

    def run(self, variables: Mapping[str, Any]) -> Any:
        """The CEL value. Raises ValueError with a sentence when the evaluation failed, or NoOverloadError."""
        return self._run(self._program, variables)

    def run_direct(self, variables: Mapping[str, Any]) -> Any:
        """The same by the second form. `variables` are those in `paths`, and all others unless it `is_direct`."""
        return self._run(self._direct, variables)

    def _run(self, program: Any, variables: Mapping[str, Any]) -> Any:
        budget = _Budget() if self._counted else None
        context = _library().Context(dict(variables), budget.functions if budget else None)
        try:
            return program.execute(context)
        except Exception as error:
            failed = NoOverloadError if str(error).startswith(_NO_OVERLOAD) else ValueError
            raise failed((budget and budget.spent) or _run_reason(error)) from error


def _variable(read: Read) -> str:
    return f"__at_{read.start}"


def _compile(text: str) -> Any:
    try:
        return _library().compile(text)
    except ValueError as error:
        raise CompileError(_compile_reason(str(error))) from error


def _compile_reason(message: str) -> str:
    match = _ERROR.search(message)
    if match is None:
        return message.splitlines()[0]
    line, column, what = int(match[1]), int(match[2]), match[3].strip()
    what = re.split(r",? expecting ", what)[0]
    what = re.sub(r"(?:mismatched|extraneous) input '<EOF>'", "the expression ends too early", what)
    what = re.sub(r"(?:mismatched|extraneous) input", "unexpected", what)
    what = re.sub(r"no viable alternative at input", "unexpected", what)
    what = re.sub(r"token recognition error at: ", "there is no such token: ", what)
    where = f"column {column}" if line == 1 else f"line {line}, column {column}"
    return f"{what} ({where})"


def _run_reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, KeyError):
        return f"there is no key {error.args[0]!r}"
    if text.startswith(_NO_OVERLOAD):
        return "an operation or a function in it is not there for values of these types; CEL converts none by itself"
    if found := _UNSUPPORTED.match(text):
        return no_operation([_NAMES.get(found[at], found[at]) for at in (1, 3)], found[2])
    if (found := _NO_FUNCTION.match(text)) and found[1] in FUNCTIONS:
        return f"there is no {found[1]}() for a value of this type; where it may be null, test it first"
    return text.partition(" Check that")[0].rstrip(".")


class _Budget:
    """Counts what the comprehensions of one evaluation do, and collects what `map` and `filter` find.

    The functions raise nothing (the library would print it): beyond a limit they answer with a value of the wrong type,
    which ends the evaluation, and `spent` holds the reason.
    """

    def __init__(self) -> None:
        self.spent: str | None = None
        self._steps = 0
        self._values = 0
        self._found: dict[int, list[Any]] = {}
        self.functions: dict[str, Callable[..., Any]] = {
            "__items": self._items,
            "__step": self._step,
            "__put": self._put,
            "__found": lambda _done, number: self._found.get(number),
        }

    def _items(self, values: Any, number: int) -> Any:
        """The items of a list, or the keys of a map in order, since the library's own order is a random one."""
        self._found[number] = []
        if isinstance(values, dict):
            values = sorted(values, key=lambda key: (type(key).__name__, key))
        if isinstance(values, list) and len(values) > MOST_ITEMS:
            return self._stop(f"a comprehension goes over {len(values):,} items; the limit is {MOST_ITEMS:,}")
        return values if self._charge(values) else None

    def _step(self) -> Any:
        self._steps += 1
        if self._steps > MOST_STEPS:
            return self._stop(f"its comprehensions go over more than {MOST_STEPS:,} items in all")
        return True

    def _put(self, number: int, value: Any) -> Any:
        self._found[number].append(value)
        return True if self._charge(value) else None

    def _charge(self, value: Any) -> bool:
        self._values += size(value, MOST_VALUES - self._values)
        if self._values > MOST_VALUES:
            self._stop(f"its comprehensions copy more than {MOST_VALUES:,} values")
            return False
        return True

    def _stop(self, reason: str) -> None:
        self.spent = self.spent or reason


def _with_limits(text: str, found: Scan, read: Sequence[Read]) -> str:
    """The same expression with each comprehension counted, `map` and `filter` in linear time, and variables for `read`.

    The library copies the whole list for every item that `map` and `filter` add (10,000 items take 3 s). So
    `l.map(x, e)` becomes `l.__items(0).all(x, __step() ? __put(0, e) : false).__found(0)`.
    """
    inserts = [(one.start, one.end, _variable(one)) for one in read]
    for number, macro in enumerate(found.macros):
        inserts += _limited(macro, number, found)
    pieces, last = [], 0
    for start, end, new in sorted(inserts):
        pieces += [text[last:start], new]
        last = end
    return "".join([*pieces, text[last:]])


def _limited(macro: Macro, number: int, found: Scan) -> list[tuple[int, int, str]]:
    """Replacements `(start, end, text)` for one comprehension."""
    tokens = found.tokens
    dot, name, comma = tokens[macro.dot].start, tokens[macro.dot + 1], tokens[macro.commas[0]].start
    close = tokens[macro.closing].start
    if macro.name not in ("map", "filter"):
        return [(comma, comma + 1, ", __step() ? ("), (close, close, ") : false")]
    begin = [(dot, dot, f".__items({number})"), (name.start, name.start + len(name.text), "all")]
    if macro.name == "map" and len(macro.commas) == 1:
        end = f") : false).__found({number})"
        return [*begin, (comma, comma + 1, f", __step() ? __put({number}, "), (close, close + 1, end)]
    if macro.name == "filter":
        put = f") ? __put({number}, {macro.variable}) : true) : false).__found({number})"
        return [*begin, (comma, comma + 1, ", __step() ? (("), (close, close + 1, put)]
    second = tokens[macro.commas[1]].start
    return [
        *begin,
        (comma, comma + 1, ", __step() ? (("),
        (second, second + 1, f") ? __put({number}, "),
        (close, close + 1, f") : true) : false).__found({number})"),
    ]
