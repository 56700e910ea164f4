"""Retry policies: the documented formulas."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wf_core.policies import Retry, Stop
from wf_core.wire import Failure, RetrySettings
from wf_orchestrator.policies.retry import Exponential, Fixed, NoRetry

ERROR = Failure(type="Oops", message="m")
PLAIN = RetrySettings(delay_ms=1000, base=2.0, max_delay_ms=60_000, jitter=0.0)


@pytest.mark.parametrize(
    ("failures", "delay"), [(1, 1000), (2, 2000), (3, 4000), (6, 32_000), (7, 60_000), (100, 60_000), (100_000, 60_000)]
)
def test_exponential(failures, delay):
    """The delay is delay × base^(n−1), capped, for however many failures."""
    assert Exponential().decide(failures, ERROR, PLAIN, 0.5) == Retry(delay, "exponential backoff")


@pytest.mark.parametrize(("u", "delay"), [(0.0, 900), (0.25, 950), (0.5, 1000), (0.75, 1050)])
def test_jitter(u, delay):
    """A jitter of 0.1 spreads the delay evenly from 90 % to 110 %."""
    settings = RetrySettings(delay_ms=1000, jitter=0.1)
    for policy in (Exponential(), Fixed()):
        answer = policy.decide(1, ERROR, settings, u)
        assert isinstance(answer, Retry)
        assert answer.delay_ms == delay


def test_jitter_comes_after_the_cap():
    """A capped delay is jittered too."""
    answer = Exponential().decide(50, ERROR, RetrySettings(delay_ms=1000, max_delay_ms=2000, jitter=0.5), 0.0)
    assert answer == Retry(1000, "exponential backoff")


def test_fixed_is_not_capped():
    """`fixed` waits as long as the document says, each time."""
    settings = RetrySettings(delay_ms=300_000, max_delay_ms=1000, jitter=0)
    assert {Fixed().decide(n, ERROR, settings, 0.9) for n in range(1, 9)} == {Retry(300_000, "fixed delay")}


def test_none():
    """`none` never tries again."""
    assert isinstance(NoRetry().decide(1, ERROR, PLAIN, 0.5), Stop)


@given(
    failures=st.integers(1, 10**6),
    delay=st.integers(0, 10**9),
    base=st.floats(1, 10),
    cap=st.integers(0, 10**9),
    jitter=st.floats(0, 1),
    u=st.floats(0, 1, exclude_max=True),
)
def test_delays_are_whole_and_bounded(failures, delay, base, cap, jitter, u):
    """No settings make the delay negative, fractional, or longer than the cap and its jitter."""
    settings = RetrySettings(delay_ms=delay, base=base, max_delay_ms=cap, jitter=jitter)
    answer = Exponential().decide(failures, ERROR, settings, u)
    assert isinstance(answer, Retry)
    assert isinstance(answer.delay_ms, int)
    assert 0 <= answer.delay_ms <= cap * (1 + jitter) + 1
