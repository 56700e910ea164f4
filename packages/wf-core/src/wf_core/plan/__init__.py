"""The compiled document: what the machine folds over. No clock and no I/O."""

from __future__ import annotations

from wf_core.collector import collector_paused
from wf_core.errors import DocumentError
from wf_core.plan.compiling import DocumentCompiler
from wf_core.plan.model import (
    ApprovalPlan,
    Body,
    CachePlan,
    CatchPlan,
    ChildPlan,
    ConcurrencyPlan,
    DynamicPlan,
    EndPlan,
    KindPlan,
    LoopPlan,
    MapPlan,
    NodePlan,
    OnTimeout,
    Plan,
    SwitchCase,
    SwitchPlan,
    WaitPlan,
    WaitTerm,
    resolved_retry,
)
from wf_core.plan.rules import rules_of
from wf_core.schema.canonical import canonical_bytes, document_hash
from wf_core.schema.document import WorkflowSchema

__all__ = [
    "ApprovalPlan",
    "Body",
    "CachePlan",
    "CatchPlan",
    "ChildPlan",
    "ConcurrencyPlan",
    "DynamicPlan",
    "EndPlan",
    "KindPlan",
    "LoopPlan",
    "MapPlan",
    "NodePlan",
    "OnTimeout",
    "Plan",
    "SwitchCase",
    "SwitchPlan",
    "WaitPlan",
    "WaitTerm",
    "compile_plan",
    "load_plan",
    "resolved_retry",
    "rules_of",
]


def compile_plan(document: WorkflowSchema) -> Plan:
    """The plan of a document. Raises DocumentError when an expression does not compile or the graph has a cycle."""
    with collector_paused():
        if not document.is_checked:
            _check(document)
        return DocumentCompiler(document).plan(document_hash(canonical_bytes(document)))


def load_plan(canonical: bytes, hash: str) -> Plan:  # noqa: A002 - the name that callers use for it
    """The plan of a canonical document that was validated when it was submitted; CEL is compiled when first needed."""
    with collector_paused():
        document = WorkflowSchema.model_validate_json(canonical).checked()
        return DocumentCompiler(document).plan(hash)


def _check(document: WorkflowSchema) -> None:
    """Raises DocumentError when the meaning of a document that nobody checked is wrong."""
    from wf_core.schema.semantics import check_semantics

    problems = check_semantics(document.model_dump(by_alias=True, exclude_defaults=True))
    if problems:
        raise DocumentError(problems)
