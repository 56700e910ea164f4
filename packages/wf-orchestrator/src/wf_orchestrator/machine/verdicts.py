"""What a `decide` timer asks a retry policy; the answer is folded by `failure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from wf_core.states import AttemptClass, NodeStatus

if TYPE_CHECKING:
    from wf_core.wire import Failure, RetrySettings
    from wf_orchestrator.machine.state import Execution

_USERS = (AttemptClass.USER, AttemptClass.TIMEOUT)


class VerdictRequest(NamedTuple):
    """The facts of a failed attempt for `policies.verdict`. `settings.policy` names the policy."""

    execution_id: str
    node: str
    attempt: int
    failures: int
    error: Failure
    settings: RetrySettings
    elapsed_ms: int


def request(x: Execution, path: str, attempt: int) -> VerdictRequest | None:
    """What the policy has to judge; None when nobody waits for a verdict on this attempt (the timer is stale)."""
    index = x.index_of(path) if x.is_live else None
    if index is None:
        return None
    cell = x.cells[index]
    if cell.status is not NodeStatus.RETRYING or cell.attempt != attempt or not x.is_undecided(index):
        return None
    attempts = x.attempts_of_era(index)
    error = attempts[-1].error
    if error is None:
        return None
    return VerdictRequest(
        execution_id=x.id,
        node=path,
        attempt=attempt,
        failures=sum(record.class_ in _USERS for record in attempts),
        error=error,
        settings=x.node(index).retry_settings(x.settings),
        elapsed_ms=max(0, cell.time_ms - (attempts[0].queued_at or cell.time_ms)),
    )
