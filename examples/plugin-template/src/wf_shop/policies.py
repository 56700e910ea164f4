"""A retry policy: chosen in a document by `retry: {policy: patient}`."""

from __future__ import annotations

from wf_core.policies import Retry, Stop
from wf_core.wire import Failure, RetrySettings


class Patient:
    """Waits `delay` times the number of failures; stops at once when the shop is closed."""

    def decide(self, failures: int, error: Failure, settings: RetrySettings, u: float) -> Retry | Stop:
        """See wf_core.policies.RetryPolicy. `u` in [0, 1) spreads the attempts of many nodes."""
        if "closed" in error.message:
            return Stop("the shop is closed")
        delay = min(settings.delay_ms * failures, settings.max_delay_ms)
        return Retry(round(delay * (1 + settings.jitter * u)), f"patient: failure {failures}")
