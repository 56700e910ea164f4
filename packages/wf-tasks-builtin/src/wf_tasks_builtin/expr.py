"""`expr.eval`: a CEL expression, evaluated on a worker: for what is too much work for the orchestrator."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from wf_core import Fatal, task
from wf_core.errors import DocumentError, ExpressionError
from wf_core.expressions import Scope, compile_expression


@task("expr.eval", executor="thread", timeout="60s")
def evaluate(
    expression: Annotated[str, Field(examples=["input.orders.filter(o, o.total > 100).size()"])],
    input: Any = None,
) -> Any:
    """The value of `expression` (CEL without `${{ }}`), which reads its data as `input`."""
    try:
        return compile_expression(expression, "/params/expression").evaluate(Scope(input, {}, {}))
    except (DocumentError, ExpressionError) as error:
        raise Fatal(str(error)) from error
