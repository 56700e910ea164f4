"""The bench's own arithmetic: its figures end up in docs/performance.md."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest
from bench import document, report
from bench.__main__ import DOCUMENT, ROWS, options
from bench.lean import ask, request
from bench.peers import PEERS, packages
from bench.peers.common import family, measured
from bench.rows import STEP_MS, WORKFLOWS, Row, Samples
from bench.systems import figures_of_peer
from bench.workloads import Timing

CHAIN = Row("chain", "chain", STEP_MS, 50, targets=(0.3, 1.0))
MANY = Row("many", "many", WORKFLOWS, 100, targets=(100, None))


def samples(size: int, *seconds: float) -> Samples:
    return Samples(size, [Timing(s, s * 2) for s in seconds])


def test_a_cell_is_the_median_of_all_rounds() -> None:
    """Values of all rounds count alike, each at the size that it was measured with."""
    cell = report.cells(CHAIN, {"redis": {"chain": [samples(50, 0.050, 0.100), samples(50, 0.150)]}})["redis"]
    assert (cell.median, min(cell.values), max(cell.values)) == pytest.approx((2.0, 1.0, 3.0))


def test_a_row_from_the_request_shows_the_longer_time() -> None:
    row = Row("chain", "chain", STEP_MS, 50, source="request")
    assert report.cells(row, {"redis": {"chain": [samples(50, 0.050)]}})["redis"].median == pytest.approx(2.0)


def test_peers_stand_beside_figures_from_the_request() -> None:
    """Their clocks begin with the call, so that of this engine does too where there is a choice."""
    rows = [CHAIN, Row("chain", "from the request", STEP_MS, 50, source="request"), MANY]
    assert report.comparable(rows) == rows[1:]


def test_what_is_hidden_nowhere() -> None:
    """A smaller size, a round that failed and a peer that is missing are named with the reason."""
    results = {
        "redis": {"chain": [samples(50, 0.05)]},
        "Slow": {"chain": [samples(10, 0.05), Samples(50, failed="it fell over")]},
        "Broken": {"chain": [Samples(50, failed="it never stood")]},
    }
    shown = report.markdown([CHAIN], results, {"Absent": "it cannot be installed"})
    for words in ("size 10", "1 of 2 rounds failed: it fell over", "it never stood", "it cannot be installed"):
        assert words in shown


@pytest.mark.parametrize(("row", "base", "other", "times"), [(CHAIN, 2.0, 6.0, 3.0), (MANY, 300.0, 100.0, 3.0)])
def test_times_better(row: Row, base: float, other: float, times: float) -> None:
    """Above 1 this engine is better, whether more is better or less."""
    assert report.times_better(row, base, other) == pytest.approx(times)


def test_targets_say_whether_they_were_met() -> None:
    results = {
        "redis": {"chain": [samples(50, 0.010)], "many": [samples(100, 2.0)]},
        "kafka": {"chain": [samples(50, 0.100)]},
        "Peer": {"chain": [samples(50, 0.050)], "many": [samples(100, 4.0)]},
    }
    chain, many = report.targets([CHAIN, MANY], results).splitlines()[2:]
    assert [part.strip() for part in chain.split("|")[3:9]] == [
        "0.2",
        "≤ 0.3, met",
        "2",
        "≤ 1, missed",
        "1 (Peer)",
        "5× / 0.5×",
    ]
    assert "≥ 100, missed" in many
    assert "25 (Peer) | 2× / –" in many


def test_figures_of_a_peer() -> None:
    found = figures_of_peer({"chain": {"size": 5, "values": [1.5], "note": "slow"}, "fib10": {"failed": "no"}})
    assert found == {"chain": Samples(5, [Timing(1.5, 1.5)], note="slow"), "fib10": Samples(0, failed="no")}


def test_measured_warms_up_with_a_tenth() -> None:
    """What is kept was measured at the whole size; the first run was smaller and is not kept."""
    sizes: list[int] = []
    kept = measured(lambda size: sizes.append(size) or size, 50)
    assert sizes[0] == 5
    assert set(kept) == {50}
    assert 1 <= len(kept) < len(sizes)


def test_every_peer_names_its_packages() -> None:
    """All scripts but the one for bare Python carry their requirements, bounded above."""
    for name, peer in PEERS.items():
        wanted = packages(peer.path.read_text(encoding="utf-8"))
        assert bool(wanted) == (name != report.BARE)
        assert all("<" in one for one in wanted)


def test_selection() -> None:
    """Naming a log or a peer leaves out all that was not named; naming none means all but the slowest peers."""
    everything, one = options([]), options(["--log", "redis", "--only", "chain"])
    assert everything.log == list(report.OURS)
    assert set(PEERS) - set(everything.peer) == {"Dagster"}
    assert (one.log, one.peer, one.only) == (["redis"], None, ["chain"])


def test_rows_of_one_measurement_agree() -> None:
    """Rows that show the same measurement have the same size."""
    assert len({row.key for row in ROWS}) == len({(row.key, row.size) for row in ROWS})


def test_the_document_keeps_what_is_outside_its_markers() -> None:
    before = "head\n\n<!-- bench -->\nold\n<!-- /bench -->\n\ntail\n"
    once = document.with_part(before, "new")
    assert once == "head\n\n<!-- bench -->\n\nnew\n\n<!-- /bench -->\n\ntail\n"
    assert document.with_part(once, "new") == once
    with pytest.raises(ValueError, match="has no"):
        document.with_part("nothing", "new")


def test_the_document_can_be_written() -> None:
    """It has the markers between which the tables go."""
    assert "\nnew tables\n" in document.with_part(DOCUMENT.read_text(encoding="utf-8"), "new tables")


async def test_answers_come_in_the_order_of_the_requests() -> None:
    """Whichever connection was quicker; what the server refused raises when it is read."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split()[1].decode()
            await asyncio.sleep(0.01 if path == "/0" else 0)
            status, body = (404, b"{}") if path == "/3" else (200, path[1:].encode())
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        answers = await ask(port, [request("GET", f"/{n}") for n in range(4)], 2)
    assert [answer.json() for answer in answers[:3]] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="HTTP 404"):
        answers[3].json()


def test_family() -> None:
    """A process and its descendants, to add up what they hold."""
    with subprocess.Popen(["sleep", "60"]) as child:
        found = family(os.getpid())
        child.kill()
    assert {os.getpid(), child.pid} <= found
