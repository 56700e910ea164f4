"""The chaos driver's own parts: what chooses, what counts, what judges."""

from __future__ import annotations

import random
import signal
from contextlib import closing
from pathlib import Path

import pytest
from wf_testservers.cluster import Cluster, EngineProcess
from wf_testservers.process import Process

from chaos.faults import FAULTS, select
from chaos.journal import Journal
from chaos.logs import examine, last_words
from chaos.runs import read_runs
from chaos.scene import appended_file
from chaos.shapes import choose
from chaos.supervisor import Supervisor
from chaos.waiting import until
from wf_core.schema.validation import parse_document


def test_faults_are_chosen_by_name_and_by_what_the_log_can_suffer():
    """A name may end with `*`; Kafka's faults need Kafka, and losing its data has to be asked for."""
    assert set(select(log="redis")) == {name for name in FAULTS if not name.startswith("kafka")}
    assert set(FAULTS) - set(select(log="kafka")) == {"kafka-lose"}
    assert set(select(log="kafka", only=["kafka-*"], without=["kafka-pause"])) == {"kafka-kill"}
    assert "kafka-lose" in select(log="kafka", lose_log=True)
    with pytest.raises(ValueError, match="no fault is called nothing"):
        select(log="redis", only=["nothing"])


def test_every_shape_is_a_valid_document_and_follows_from_the_seed():
    """The same seed gives the same load."""
    chosen = [choose(random.Random(seed)) for seed in range(200)]
    assert [choose(random.Random(seed)).name for seed in range(200)] == [shape.name for shape in chosen]
    assert len({shape.name for shape in chosen}) == 14
    for shape in chosen:
        assert 3 <= len(parse_document(shape.document).nodes) <= 12


def test_runs_are_counted_where_they_happen(tmp_path: Path):
    """An attempt whose code started twice is found; silence counts only while an execution was open."""
    file = tmp_path / "runs.txt"
    lines = ["start 10.0 1 x/a/1", "end 11.0 1 x/a/1", "start 15.0 1 x/b/1", "start 16.0 2 x/b/1", "start 90 2 y/a/1"]
    file.write_text("\n".join(lines) + "\n")
    runs = read_runs(file)
    assert runs.doubled == {"x/b/1": [15.0, 16.0]}
    assert runs.extra == 1
    assert runs.longest_silence([(9.5, 17.0), (89.0, 91.0)]) == (4.0, 11.0)
    assert read_runs(tmp_path / "none").extra == 0


def test_a_traceback_in_a_log_is_a_violation_and_a_warning_is_not(tmp_path: Path):
    """What a process said last is found, too."""
    process = EngineProcess("worker", Process(["true"], tmp_path / "worker-1.log"), "worker-1")
    trace = '{"event": "failed", "level": "error", "exception": [{"exc_type": "E", "exc_value": "why", "frames": []}]}'
    process.process.log.write_text(f'{{"event": "slow", "level": "warning"}}\n{trace}\n{{"event": "stopped"}}\n')
    with closing(Journal(tmp_path / "journal.txt")) as journal:
        examine([process], journal)
    assert journal.notes == {"worker: slow": 1}
    assert len(journal.violations) == 1
    assert "worker: failed: E: why" in journal.violations[0]
    assert last_words(process) == "failed: E: why ()"


async def test_a_process_that_nobody_killed_is_a_violation_and_is_started_again(tmp_path: Path):
    """A fault is no accident, an accident is."""
    process = EngineProcess("worker", Process(["sleep", "60"], tmp_path / "worker-1.log"), "worker-1")
    with closing(Journal(tmp_path / "journal.txt")) as journal, Cluster({}, tmp_path, [process]) as cluster:
        supervisor = Supervisor(cluster, journal, random.Random(1))

        def is_back() -> bool:
            supervisor.look()
            return supervisor.running("worker") == [process]

        process.restart()
        process.kill()
        await until(is_back, 10)
        assert len(journal.violations) == 1
        assert f"exit code {-signal.SIGKILL}" in journal.violations[0]
        supervisor.kill(process)
        assert supervisor.running("worker") == []
        await until(is_back, 10)
        assert len(journal.violations) == 1
        assert journal.deaths == {"killed": 1}


def test_the_append_only_file_is_the_newest_increment(tmp_path: Path):
    """Redis 7 numbers them; Redis 6 has one file."""
    assert appended_file(tmp_path) == tmp_path / "appendonly.aof"
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    for number in (9, 10):
        (folder / f"appendonly.aof.{number}.incr.aof").touch()
    assert appended_file(tmp_path).name == "appendonly.aof.10.incr.aof"
