"""Values as they lie in Redis."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wf_core.states import AttemptClass, AttemptStatus, NodeStatus
from wf_core.store.codec import (
    MOST_ATTEMPTS,
    MOST_LOST,
    NODE_BYTES,
    AttemptRecord,
    HistoryLine,
    history_lines,
    pack_attempts,
    pack_failure,
    pack_history,
    pack_node,
    unpack_attempts,
    unpack_failure,
    unpack_nodes,
)
from wf_core.store.commands import pack_command, unpack_command
from wf_core.wire import Failure

cells = st.tuples(
    st.sampled_from(list(NodeStatus)),
    st.integers(0, MOST_ATTEMPTS),
    st.integers(0, MOST_LOST),
    st.integers(0, 2**48 - 1),
)
times = st.none() | st.integers(0, 2**48)
failures = st.builds(
    Failure,
    type=st.text(),
    message=st.text(),
    traceback=st.text(),
    classes=st.lists(st.text()).map(tuple),
    retry_after_ms=times,
    fatal=st.booleans(),
    node=st.none() | st.text(),
    attempt=st.none() | st.integers(0, 99),
)
attempts = st.builds(
    AttemptRecord,
    attempt=st.integers(1, MOST_ATTEMPTS),
    status=st.sampled_from(list(AttemptStatus)),
    class_=st.none() | st.sampled_from(list(AttemptClass)),
    worker=st.text(),
    package=st.text(),
    queued_at=times,
    started_at=times,
    ended_at=times,
    error=st.none() | failures,
    decision=st.text(),
    reason=st.text(),
)


@given(st.lists(cells))
def test_cells_come_back(nodes: list[tuple[NodeStatus, int, int, int]]):
    """A node is 10 bytes: status, attempt, lost, time."""
    data = b"".join(pack_node(*cell) for cell in nodes)
    assert len(data) == NODE_BYTES * len(nodes)
    assert unpack_nodes(data, len(nodes)) == nodes


@given(st.lists(cells, max_size=5), st.integers(0, 10))
def test_what_was_never_written_is_pending(nodes: list[tuple[NodeStatus, int, int, int]], count: int):
    """Cells beyond the end of the string are nodes that were never tried."""
    found = unpack_nodes(b"".join(pack_node(*cell) for cell in nodes), count)
    assert found == [*nodes[:count], *[(NodeStatus.PENDING, 0, 0, 0)] * (count - len(nodes))]


def test_codes_of_statuses_never_change():
    """Stored cells outlive a release."""
    assert [pack_node(status, 0, 0, 0)[0] for status in NodeStatus] == list(range(10))
    assert [status.value for status in NodeStatus] == [
        "PENDING",
        "QUEUED",
        "RUNNING",
        "RETRYING",
        "WAITING",
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "SKIPPED",
        "UPSTREAM_FAILED",
    ]


def test_numbers_stop_at_what_a_cell_holds():
    """A cell never fails to be written: that would stop the whole partition."""
    assert unpack_nodes(pack_node(NodeStatus.QUEUED, 70_000, 300, 5), 1) == [
        (NodeStatus.QUEUED, MOST_ATTEMPTS, MOST_LOST, 5)
    ]


@given(st.lists(attempts, max_size=4))
def test_attempts_come_back(records: list[AttemptRecord]):
    """Every attempt is kept with its worker, times, error, decision and reason."""
    assert unpack_attempts(pack_attempts(records)) == records


@given(failures)
def test_failures_come_back(failure: Failure):
    """The first failure of an execution is kept whole."""
    assert unpack_failure(pack_failure(failure)) == failure


def test_absent_fields_are_nothing():
    """A node without attempts and an execution without failure have no field."""
    assert unpack_attempts(None) == []
    assert unpack_failure(None) is None


@given(st.integers(0, 2**48), st.lists(st.binary()), st.text())
def test_commands_come_back(ts: int, records: list[bytes], request: str):
    """A command is appended again as the very same bytes."""
    command = unpack_command(pack_command(ts, records, request))
    assert (command.ts, list(command.record), command.request) == (ts, records, request)


QUEUED = ("node.queued", "a", 1, "QUEUED", 5, b"{}")
ENDED = ("execution.ended", "", 0, "COMPLETED", 6, b"")


def test_lines_of_the_history_come_back():
    """An entry holds several, each with its own place in the log."""
    fields = {b"lines": pack_history([(17, 1, QUEUED), (17, 2, QUEUED), (19, 1, ENDED)])}
    assert history_lines(b"19-1", fields) == [
        HistoryLine("17-1", *QUEUED),
        HistoryLine("17-2", *QUEUED),
        HistoryLine("19-1", *ENDED),
    ]


def test_lines_of_an_entry_that_got_another_id_are_counted_back_from_it():
    """They come after everything that was there, in their order."""
    fields = {b"lines": pack_history([(4, 1, QUEUED), (5, 1, ENDED)]), b"shifted": b"1"}
    assert [line.seq for line in history_lines(b"9-1003", fields)] == ["9-1002", "9-1003"]


def test_an_entry_of_the_release_before_holds_one_line():
    """In columns of its own, without those that are empty."""
    columns = {
        b"ts": b"5",
        b"kind": b"node.queued",
        b"node": b"a",
        b"attempt": b"1",
        b"status": b"QUEUED",
        b"data": b"{}",
    }
    assert history_lines(b"17-1", columns) == [HistoryLine("17-1", *QUEUED)]
    assert history_lines(b"17-2", {b"ts": b"5", b"kind": b"ended"}) == [HistoryLine("17-2", "ended", "", 0, "", 5, b"")]
