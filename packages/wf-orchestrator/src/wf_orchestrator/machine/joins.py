"""Join rules as data: which ends of the direct upstream nodes let a node start, and what a no means.

A rule looks only at how many upstream nodes ended as a success, a failure or a skip. A node that FAILED under
`on_error: continue` is a success; FAILED, UPSTREAM_FAILED and CANCELLED are failures. Rules with `early` start the node
as soon as they hold; everything else, and every no, is decided when all direct upstream nodes have ended, so that their
order never matters. Without upstream a rule holds. A no is BLOCKED (the node is UPSTREAM_FAILED) when the rule wants
success and one upstream failed, else it is a skip.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Tally(NamedTuple):
    """The direct upstream nodes of one node, counted."""

    total: int
    succeeded: int
    failed: int
    skipped: int

    @property
    def is_open(self) -> bool:
        """Whether one of them has not ended."""
        return self.total > self.succeeded + self.failed + self.skipped


class Answer(Enum):
    """What a join says."""

    WAIT = "waits"
    YES = "starts"
    SKIP = "SKIPPED"
    BLOCKED = "UPSTREAM_FAILED"


class Rule(NamedTuple):
    """One join rule."""

    holds: Callable[[Tally], bool]
    early: bool = False
    """May hold before all upstream nodes have ended, and then stays true."""
    wants_success: bool = False
    cleans_up: bool = False
    """Nodes with this rule are still decided and run after a failure has halted the execution."""


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "all_success": Rule(lambda t: t.succeeded == t.total, wants_success=True),
        "all_done": Rule(lambda _: True, cleans_up=True),
        "all_failed": Rule(lambda t: t.failed == t.total, cleans_up=True),
        "any_success": Rule(lambda t: t.succeeded > 0, early=True, wants_success=True),
        "any_failed": Rule(lambda t: t.failed > 0, early=True, cleans_up=True),
        "none_failed": Rule(lambda t: t.failed == 0, wants_success=True),
        "none_failed_min_one_success": Rule(lambda t: t.failed == 0 and t.succeeded > 0, wants_success=True),
        "none_skipped": Rule(lambda t: t.skipped == 0),
        # Of the target of a `catch`: it is skipped when nothing was caught for it, which `cascade` asks itself.
        "caught": Rule(lambda _: True),
    }
)
EXPRESSION = Rule(lambda _: True)
"""Stands for a join that is an expression: asked when all upstream nodes have ended; its no is a skip."""


def judge(rule: Rule, tally: Tally) -> Answer:
    """What `rule` says about a node whose upstream stands at `tally`."""
    if tally.total == 0:
        return Answer.YES
    if tally.is_open:
        return Answer.YES if rule.early and rule.holds(tally) else Answer.WAIT
    if rule.holds(tally):
        return Answer.YES
    return Answer.BLOCKED if rule.wants_success and tally.failed else Answer.SKIP
