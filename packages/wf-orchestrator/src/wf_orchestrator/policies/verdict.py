"""The verdict on a failed attempt: everything that decides whether a node is tried again, in one place.

The first rule that applies decides:

1. the task raised `Fatal`, or another attempt would be refused as this one was → stop
2. the error matches `fail_on` → stop
3. `retry_on` is given and the error does not match it → stop
4. `max_retries` retries are used → stop
5. the policy → its delay, or stop; a policy that raises or answers nonsense → stop
6. the task raised `RetryAfter` → its delay in place of the policy's
7. `max_elapsed` would be exceeded when the delay is over → stop
"""

from __future__ import annotations

import hashlib

from wf_core.durations import LONGEST_MS
from wf_core.policies import Retry, RetryPolicy, Stop
from wf_core.sentences import lasting
from wf_core.wire import Failure, RetrySettings


def attempt_hash(execution_id: str, node: str, attempt: int) -> float:
    """The attempt's own number in [0, 1): the same on every host and in every replay."""
    digest = hashlib.sha256(f"{execution_id}/{node}/{attempt}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def verdict(  # noqa: PLR0913 - the facts of one attempt, each named at the call
    policy: RetryPolicy,
    *,
    failures: int,
    error: Failure,
    settings: RetrySettings,
    execution_id: str,
    node: str,
    attempt: int,
    elapsed_ms: int,
) -> Retry | Stop:
    """Whether attempt `attempt`, the node's failure number `failures`, is followed by another. Never raises.

    `elapsed_ms` runs from the dispatch of the first attempt to this failure.
    """
    if refusal := _refusal(failures, error, settings):
        return Stop(refusal)
    answer = _ask(policy, failures, error, settings, attempt_hash(execution_id, node, attempt))
    if isinstance(answer, Stop):
        return answer
    used = f"retry {failures} of {settings.max_retries}"
    if error.retry_after_ms is None:
        delay, reason = answer.delay_ms, f"{used}: {answer.reason}"
    else:
        delay, reason = error.retry_after_ms, f"{used}: the task asked for this delay"
    delay = min(max(delay, 0), LONGEST_MS)
    if settings.max_elapsed_ms is not None and elapsed_ms + delay > settings.max_elapsed_ms:
        return Stop(f"{lasting(elapsed_ms + delay)} would exceed max_elapsed of {lasting(settings.max_elapsed_ms)}")
    return Retry(delay, reason)


def matches(error: Failure, names: tuple[str, ...]) -> bool:
    """Whether the error's class or one of its bases goes by one of `names`, short or full."""
    known = {error.type, *error.classes}
    return any(name in known for name in names)


def _refusal(failures: int, error: Failure, settings: RetrySettings) -> str:
    if error.fatal:
        return _hopeless(error)
    if matches(error, settings.fail_on):
        return f"{error.type} is in fail_on"
    if settings.retry_on and not matches(error, settings.retry_on):
        return f"{error.type} is not in retry_on"
    if failures > settings.max_retries:
        return f"all {settings.max_retries} retries are used" if settings.max_retries else "no retries are allowed"
    return ""


def _hopeless(error: Failure) -> str:
    """Why no retry can help: the task says so, or whoever runs it would refuse it again."""
    if error.type == "ParametersError":
        return "the task did not run: its parameters do not fit, and a retry would give it the same ones"
    if matches(error, ("Fatal",)):
        return "the task said that no retry can help (Fatal)"
    return "another attempt would fail the same way"


def _ask(policy: RetryPolicy, failures: int, error: Failure, settings: RetrySettings, u: float) -> Retry | Stop:
    try:
        answer = policy.decide(failures, error, settings, u)
    except Exception as problem:  # noqa: BLE001 - a raising policy is a decision too
        return Stop(f"the policy {settings.policy!r} raised {type(problem).__name__}: {problem}")
    if isinstance(answer, Stop) or (isinstance(answer, Retry) and isinstance(answer.delay_ms, int)):
        return answer
    return Stop(f"the policy {settings.policy!r} answered {answer!r}, which is no Retry in ms and no Stop")
