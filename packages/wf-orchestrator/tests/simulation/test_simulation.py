"""The protocol around the real machine, under faults between any two steps. See docs/architecture.md."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from simulation.run import run
from simulation.world import Violation

SEEDS = int(os.environ.get("WF_SIMULATION_SEEDS", "500"))
pytestmark = pytest.mark.timeout(1800 + SEEDS)

CASES = {
    "Redis forgets": {"rollbacks": True},
    "no data is lost": {"rollbacks": False},
    "the log is lost whole": {"rollbacks": True, "log_loss": True},
}


@pytest.mark.parametrize("case", CASES)
def test_every_seed_keeps_the_promises(case: str):
    """State is the fold of the log at every write, every execution ends, nothing is left, nothing runs twice."""
    stats: Counter[str] = Counter()
    for seed in range(SEEDS // len(CASES) + 1):
        stats += run(seed, **CASES[case]).stats
    assert stats["ran"] > 10 * SEEDS // len(CASES)
    for fault in ("kills", "pauses", "requests lost", "replies lost", "appends late", "acknowledgements lost"):
        assert stats[fault], f"the seeds never tried: {fault}"
    if case == "no data is lost":
        assert stats["ran twice"] == 0


MUTANTS = {
    "offset apart": CASES["Redis forgets"],
    "no offset check, no nonce": CASES["Redis forgets"],
    "no outbox": CASES["Redis forgets"],
    "produce first": CASES["Redis forgets"],
    "no sweep": CASES["Redis forgets"],
    "no claim": CASES["no data is lost"],
    "no resend": CASES["the log is lost whole"],
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_rule_is_caught(mutant: str):
    """Without the rule some seed breaks a promise: the simulation can fail."""
    for seed in range(100):
        try:
            run(seed, mutant, **MUTANTS[mutant])
        except (Violation, KeyError, ValueError):
            return
    pytest.fail(f"100 seeds passed without the rule: {mutant}")


@pytest.mark.parametrize("mutant", ["trim first", "commit first"])
def test_a_sweep_repairs_what_a_broken_order_lost(mutant: str):
    """Trimming before sending, or committing before claiming, loses messages; the orphan sweep finds them."""
    stats: Counter[str] = Counter()
    for seed in range(15):
        stats += run(seed, mutant).stats
    assert stats["lost orphan"] > 0
