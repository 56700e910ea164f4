"""CEL on a worker."""

from __future__ import annotations

import pytest

from wf_core import Fatal
from wf_tasks_builtin import expr


def test_an_expression_reads_its_input():
    """The data is `input`; the value keeps its JSON type."""
    assert expr.evaluate.function("input.filter(x, x > 1).map(x, x * 10)", [1, 2, 3]) == [20, 30]


@pytest.mark.parametrize("text", ["1 +", "input.missing", "other + 1"])
def test_a_wrong_expression_is_not_retried(text):
    """It fails for good, and the message has the expression."""
    with pytest.raises(Fatal, match="expression"):
        expr.evaluate.function(text, {})
