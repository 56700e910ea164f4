"""The verdict: everything that decides whether a failed attempt is followed by another."""

from __future__ import annotations

import pytest

from wf_core.durations import LONGEST_MS
from wf_core.policies import Retry, Stop
from wf_core.wire import Failure, RetrySettings
from wf_orchestrator.policies.retry import Fixed, NoRetry
from wf_orchestrator.policies.verdict import attempt_hash, verdict

ERROR = Failure(
    type="ReadTimeout", message="m", classes=("ReadTimeout", "httpx.ReadTimeout", "OSError", "builtins.OSError")
)
PLAIN = RetrySettings(delay_ms=100, jitter=0, max_retries=2)


def judge(policy=None, error=ERROR, settings=PLAIN, **facts):
    facts = {"failures": 1, "execution_id": "x", "node": "n", "attempt": 1, "elapsed_ms": 0, **facts}
    return verdict(policy or Fixed(), error=error, settings=settings, **facts)


def test_retries_are_counted_not_attempts():
    """`max_retries: 2` allows three attempts."""
    assert judge(failures=1) == Retry(100, "retry 1 of 2: fixed delay")
    assert judge(failures=2) == Retry(100, "retry 2 of 2: fixed delay")
    assert judge(failures=3) == Stop("all 2 retries are used")
    assert judge(settings=RetrySettings(max_retries=0)) == Stop("no retries are allowed")


def test_fatal_forbids_retries():
    """A task that raised Fatal is never tried again."""
    answer = judge(error=Failure(type="Fatal", message="m", fatal=True, retry_after_ms=5))
    assert answer == Stop("the task said that no retry can help (Fatal)")
    answer = judge(error=Failure(type="NoStock", message="m", fatal=True, classes=("NoStock", "Fatal", "Exception")))
    assert answer == Stop("the task said that no retry can help (Fatal)")


def test_a_refusal_is_not_what_the_task_said():
    """A task that never ran said nothing."""
    answer = judge(error=Failure(type="ParametersError", message="m", fatal=True, classes=("ParametersError",)))
    assert answer == Stop("the task did not run: its parameters do not fit, and a retry would give it the same ones")
    answer = judge(error=Failure(type="PayloadError", message="m", fatal=True, classes=("PayloadError",)))
    assert answer == Stop("another attempt would fail the same way")


@pytest.mark.parametrize("name", ["ReadTimeout", "httpx.ReadTimeout", "OSError", "builtins.OSError"])
def test_errors_match_by_short_or_full_name_or_base(name):
    """`fail_on` and `retry_on` match the error's class or a base class, by short or full name."""
    assert judge(settings=RetrySettings(fail_on=(name,))) == Stop("ReadTimeout is in fail_on")
    assert isinstance(judge(settings=RetrySettings(retry_on=(name,))), Retry)


def test_retry_on_excludes_the_rest():
    """An error that `retry_on` does not name is final, and `fail_on` goes before `retry_on`."""
    assert judge(settings=RetrySettings(retry_on=("ValueError",))) == Stop("ReadTimeout is not in retry_on")
    both = RetrySettings(retry_on=("OSError",), fail_on=("ReadTimeout",))
    assert isinstance(judge(settings=both), Stop)


def test_retry_after_sets_the_delay():
    """RetryAfter overrides the policy's delay, within max_retries and if the policy grants a retry at all."""
    error = Failure(type="RetryAfter", message="m", retry_after_ms=7000)
    assert judge(error=error) == Retry(7000, "retry 1 of 2: the task asked for this delay")
    assert isinstance(judge(error=error, failures=3), Stop)
    assert isinstance(judge(NoRetry(), error=error), Stop)
    endless = Failure(type="RetryAfter", message="m", retry_after_ms=10**18)
    assert judge(error=endless) == Retry(LONGEST_MS, "retry 1 of 2: the task asked for this delay")


def test_max_elapsed():
    """No retry that would begin after `max_elapsed`, counted from the first dispatch."""
    settings = RetrySettings(delay_ms=100, jitter=0, max_elapsed_ms=1000)
    assert isinstance(judge(settings=settings, elapsed_ms=900), Retry)
    assert judge(settings=settings, elapsed_ms=901) == Stop("1.001 s would exceed max_elapsed of 1 s")


class Answering:
    """A policy that always gives one answer; an exception is raised."""

    def __init__(self, answer):
        self.answer = answer

    def decide(self, *_facts):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_raising_policy_is_a_decision():
    """A policy that raises, or answers nonsense, stops, and the reason says what it did."""
    settings = RetrySettings(policy="mine")
    assert judge(Answering(RuntimeError("no idea")), settings=settings) == Stop(
        "the policy 'mine' raised RuntimeError: no idea"
    )
    assert isinstance(judge(Answering(0.5)), Stop)
    assert isinstance(judge(Answering(Retry(1.5, "soon"))), Stop)
    answer = judge(Answering(Retry(-5, "yesterday")))
    assert isinstance(answer, Retry)
    assert answer.delay_ms == 0


def test_the_hash_of_an_attempt():
    """Each attempt has its own number in [0, 1), the same everywhere, evenly spread."""
    numbers = [attempt_hash("x", "n", attempt) for attempt in range(2000)]
    assert attempt_hash("x", "n", 1) == numbers[1] == pytest.approx(attempt_hash("x", "n", 1))
    assert all(0 <= number < 1 for number in numbers)
    assert len(set(numbers)) == 2000
    assert 0.45 < sum(numbers) / len(numbers) < 0.55
    assert attempt_hash("x", "n", 1) != attempt_hash("y", "n", 1) != attempt_hash("x", "m", 1)
