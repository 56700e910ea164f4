"""Expressions of documents: CEL between `${{` and `}}`, compiled once, without I/O or side effects.

The CEL library is loaded when the first expression that is no plain path is compiled.
"""

from wf_core.expressions.expression import Expression, compile_expression, scan_expression
from wf_core.expressions.template import Template, compile_template, scan_template
from wf_core.expressions.values import Scope

__all__ = [
    "Expression",
    "Scope",
    "Template",
    "compile_expression",
    "compile_template",
    "scan_expression",
    "scan_template",
]
