"""Expressions as Python values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wf_core.builder import BuildError, Term, call, cel, choose, has, size
from wf_core.builder.terms import literal, text_of

A, B = Term("a"), Term("b")


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (A.output.body[0].x, "a.output.body[0].x"),
        (A["a-b"]["in"].x_1, 'a["a-b"]["in"].x_1'),
        (A[B.key], "a[b.key]"),
        (A > 3, "a > 3"),
        (3 < A, "a > 3"),  # noqa: SIM300 - Python turns it round
        (A == "x", 'a == "x"'),
        (A != None, "a != null"),  # noqa: E711 - it is no comparison in Python
        ((A > 3) & (B <= 2) | ~(A == B), "a > 3 && b <= 2 || !(a == b)"),
        (A & (B | A), "a && (b || a)"),
        ((A + 1) * 2 - 7 / B % 2, "(a + 1) * 2 - 7 / b % 2"),
        (A - (B - 1), "a - (b - 1)"),
        (-A * 2, "-a * 2"),
        ("x" + A, '"x" + a'),
        (A.in_(["x", 1, True, None]), 'a in ["x", 1, true, null]'),
        (A.in_(B.list), "a in b.list"),
        (A == {"k": [B, 1.5]}, 'a == {"k": [b, 1.5]}'),
        (A == 'say "é"\n', 'a == "say \\"é\\"\\n"'),
        (size(A.rows) > 0, "size(a.rows) > 0"),
        (has(A.next) & B, "has(a.next) && b"),
        (choose(A > 1, A, "no").x, '(a > 1 ? a : "no").x'),
        (call("matches", A, "^x"), 'matches(a, "^x")'),
        (cel("a.exists(x, x > 1)") & B, "(a.exists(x, x > 1)) && b"),
        (A == -1, "a == -1"),
    ],
)
def test_operators_build_cel(term: Term, text: str):
    """With brackets where CEL needs them, and nowhere else."""
    assert text_of(term) == text


def test_an_f_string_holds_a_template():
    """And so does str()."""
    assert f"day {A.day} of {A['a b']}" == 'day ${{ a.day }} of ${{ a["a b"] }}'
    assert str(A > 1) == "${{ a > 1 }}"
    assert repr(A.x) == "<${{ a.x }}>"


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (lambda: bool(A > 1), "no value while the workflow is being built: combine conditions with `&`"),
        (lambda: 1 < A < 3, "no value while the workflow is being built"),
        (lambda: 3 in A, r"write `value\.in_\(…\)`"),
        (lambda: list(A), "has no items while the workflow is being built: use `wf.map"),
        (lambda: len(A), r"write size\(…\)"),
        (lambda: A > 3 & B, "put each side in parentheses"),
        (lambda: (A > 3) | "x", "put each side in parentheses"),
        (lambda: A[1:2], "has no slices"),
        (lambda: f"{A:.2f}", "no value yet that '.2f' could format"),
        (lambda: A + f"x {B}", r"join texts with \+"),
        (lambda: A == 2**63, "is no int64"),
        (lambda: A + float("nan"), "no number that an expression can hold"),
        (lambda: literal(object()), "cannot stand in an expression"),
    ],
)
def test_what_cannot_be_said_has_a_sentence(use: Callable[[], Any], sentence: str):
    """It never turns into something else silently."""
    with pytest.raises(BuildError, match=sentence):
        use()


def test_a_term_is_no_key():
    """Two that look alike would not be equal."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(A)
