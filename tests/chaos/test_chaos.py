"""The chaos driver for half a minute on each log (`tox -e chaos`: ten); `chaos.oracle` says what must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from wf_testservers.kafka import choose

from chaos.driver import Options, run


@pytest.mark.timeout(300)
@pytest.mark.parametrize("log", ["redis", "kafka"])
async def test_nothing_is_lost_and_nothing_happens_twice(log: Literal["redis", "kafka"], tmp_path: Path):
    """Whatever is killed, hung, cut off or told twice: all that was accepted ends right, once, and leaves nothing."""
    if log == "kafka" and choose()[0] != "apache":
        pytest.skip("faults of Kafka need an Apache Kafka of our own")
    outcome = await run(Options(log, minutes=0.5, executions=90, every=1.5, seed=11), tmp_path, echo=None)
    assert not outcome.violations, f"{outcome.text}\n{(tmp_path / 'journal.txt').read_text()}"
    assert sum(outcome.figures["executions ended"].values()) == 90
    assert outcome.figures["faults in all"] > 5
