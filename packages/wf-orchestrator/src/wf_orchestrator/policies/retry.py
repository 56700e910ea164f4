"""The built-in retry policies.

With n the failures so far and u the attempt's own number in [0, 1):

| policy | delay before the next attempt |
|---|---|
| `exponential` | `jittered(min(delay × base^(n−1), max_delay))` |
| `fixed` | `jittered(delay)`; `max_delay` does not apply, the delay is what the document says |
| `none` | none: the first failure is final |

`jittered(d) = d × (1 + jitter × (2u − 1))`: a jitter of 0.1 spreads a delay evenly over 90 % to 110 % of it. The jitter
comes after the cap, so a capped delay may exceed `max_delay` by that share. Delays are whole milliseconds.
"""

from __future__ import annotations

import math

from wf_core.policies import Retry, Stop
from wf_core.wire import Failure, RetrySettings


class Exponential:
    """Each delay is `base` times the one before, up to `max_delay`."""

    def decide(self, failures: int, error: Failure, settings: RetrySettings, u: float) -> Retry | Stop:
        """Never stops by itself; limits are checked by the verdict."""
        del error
        delay = min(_grown(settings, failures), float(settings.max_delay_ms))
        return Retry(_jittered(delay, settings.jitter, u), "exponential backoff")


class Fixed:
    """Every delay is the same."""

    def decide(self, failures: int, error: Failure, settings: RetrySettings, u: float) -> Retry | Stop:
        """Never stops by itself; limits are checked by the verdict."""
        del failures, error
        return Retry(_jittered(float(settings.delay_ms), settings.jitter, u), "fixed delay")


class NoRetry:
    """No second attempt."""

    def decide(self, failures: int, error: Failure, settings: RetrySettings, u: float) -> Retry | Stop:
        """Always stops."""
        del failures, error, settings, u
        return Stop("the policy `none` never tries again")


def _grown(settings: RetrySettings, failures: int) -> float:
    try:
        return settings.delay_ms * math.pow(settings.base, failures - 1)
    except OverflowError:
        return math.inf


def _jittered(delay_ms: float, jitter: float, u: float) -> int:
    return max(0, round(delay_ms * (1 + jitter * (2 * u - 1))))
