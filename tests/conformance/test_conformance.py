"""Each case on real servers, on both logs, and in the harness, with equal results."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from conformance.cases import Case, all_cases
from conformance.conftest import in_harness
from conformance.expectations import differences
from conformance.seen import Seen

pytestmark = pytest.mark.timeout(300)
CASES = [pytest.param(case, id=case.id) for case in all_cases()]
IN_HARNESS = [pytest.param(case, id=case.id) for case in all_cases() if case.only != "api"]


@pytest.mark.parametrize("case", CASES)
def test_on_servers(case: Case, observed: Mapping[str, Seen]):
    """The API, an orchestrator and a worker do what the case expects."""
    assert differences(case.expect, observed[case.id]) == []


@pytest.mark.parametrize("case", IN_HARNESS)
def test_in_harness(case: Case):
    """So does the harness, in no time."""
    assert differences(case.expect, in_harness(case.id)) == []


@pytest.mark.parametrize("case", IN_HARNESS)
def test_same_in_harness_and_on_servers(case: Case, observed: Mapping[str, Seen]):
    """Statuses, outputs and attempts of every node are the same."""
    varies = case.expect.get("varies", ())
    assert in_harness(case.id).facts(varies) == observed[case.id].facts(varies)
