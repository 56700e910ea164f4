"""What a kind does that has no bodies, no timers, or nothing to do after a pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wf_orchestrator.machine.scope import Scope
    from wf_orchestrator.machine.step import Step


def no_bodies(_step: Step, index: int, scope: Scope) -> None:
    """Raises RuntimeError: a node of this kind opens no body."""
    raise RuntimeError(f"the node at {index} has no body, and yet {scope.key!r} ended in it")


def nothing_to_open(_step: Step, _index: int) -> None:
    """Nothing is opened after a pause."""


def nothing_to_drop(_step: Step, _index: int, _reason: str) -> None:
    """Nothing goes on outside."""
