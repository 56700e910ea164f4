"""Errors, sorted by who must act: the author of a document, the caller of the API, the operator of the servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class WfError(Exception):
    """Root of the errors that this engine raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with what was sent in.

    `pointer` is an RFC 6901 JSON pointer into the document or body ("" is its root), `code` a stable slug such as
    `unknown_dependency`, `detail` a sentence with the thing and the remedy.
    """

    pointer: str
    code: str
    detail: str


class DocumentError(WfError):
    """The author must act: a document, an input or parameters are wrong. Carries every problem at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.pointer or '/'}: {p.detail}" for p in self.problems))


class UnparsableError(DocumentError):
    """The author must act: the bytes are no JSON or YAML that this engine accepts."""


class PayloadError(WfError):
    """The author must act: a value is no JSON (NaN, a lone surrogate, a set) or too large to travel."""


class ExpressionError(WfError):
    """The author must act: an expression failed when it was evaluated. Names the expression and its place."""

    def __init__(self, expression: str, pointer: str, reason: str) -> None:
        self.expression = expression
        self.pointer = pointer
        self.reason = reason
        super().__init__(f"the expression {expression!r} at {pointer} failed: {reason}")


class UnavailableError(WfError):
    """The operator must act: Redis or the log does not answer."""


class SetupError(WfError):
    """The operator must act: a server, a setting or an installed package does not fit. The sentence says the remedy."""


class PluginError(SetupError):
    """The operator must act: a plugin is missing, broken or named twice."""
