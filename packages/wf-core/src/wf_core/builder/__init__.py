"""Workflows in Python: the same documents as in YAML, with references that are checked as they are written.

    with workflow("orders-etl", input=Orders) as wf:
        rows = wf.task("http.request", url=f"https://shop/orders?day={wf.input.day}")
        priced = wf.map(price, over=rows.output.body, max_parallel=20)
        wf.task("shop.report", rows=priced, when=size(rows.output.body) > 0)

`wf.to_yaml()` shows the document; `Client.run(wf)` and `wf_orchestrator.testing.run(wf)` take it as it is.
"""

from wf_core.builder.document import Workflow, workflow
from wf_core.builder.making import PAYLOAD as payload  # noqa: N811 - it reads as the name in expressions
from wf_core.builder.nodes import Child, Loop, Map, Node, Switch
from wf_core.builder.terms import BuildError, Term, call, cel, choose, has, size

__all__ = [
    "BuildError",
    "Child",
    "Loop",
    "Map",
    "Node",
    "Switch",
    "Term",
    "Workflow",
    "call",
    "cel",
    "choose",
    "has",
    "payload",
    "size",
    "workflow",
]
