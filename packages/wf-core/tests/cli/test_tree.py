"""The live tree: a pure function of what is known, the time and the size of the terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from wf_core.cli.tree import render
from wf_core.cli.view import NodeView, RunView
from wf_core.client import Failure

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
NOW = START + timedelta(seconds=41)
ID = "01k7zzzzzz0123456789abcdef00"


def at(seconds: float) -> datetime:
    """A time after the start."""
    return START + timedelta(seconds=seconds)


def node(name: str, task: str, level: int, status: str = "PENDING", **rest) -> NodeView:
    """A node; a completed one took a second."""
    rest.setdefault("upstream", ())
    if status == "COMPLETED":
        rest = {"started": at(0), "ended": at(1), "attempts": 1} | rest
    return NodeView(name, task, level, status=status, **rest)


def view(nodes: list[NodeView], status: str = "RUNNING") -> RunView:
    """An execution of these nodes."""
    return RunView(ID, "montage", status, nodes, started=START)


def text(run: RunView, width: int = 100, height: int = 40, **rest) -> list[str]:
    """The tree's lines."""
    return [line.text for line in render(run, NOW, width, height, **rest)]


@pytest.fixture
def montage() -> RunView:
    """A run in its middle: one group is done, one runs with a failure in it, one waits."""
    projects = [node(f"project_{n}", "project", 0, "COMPLETED") for n in range(6)]
    fits = [node(f"fit_{n}", "fit", 1, "COMPLETED", upstream=(n,)) for n in range(4)]
    fits += [
        node("fit_4", "fit", 1, "RUNNING", started=at(38.5), worker="w1", upstream=(4,)),
        node("fit_5", "fit", 1, "RETRYING", attempts=2, error=Failure(type="IOError", message="disk"), upstream=(5,)),
        node("fit_6", "fit", 1, "FAILED", attempts=4, error=Failure(type="TimeoutError", message="30 s\nmore")),
    ]
    return view([*projects, *fits, node("concat", "concat", 2, upstream=tuple(range(6, 13)))])


def test_golden_tree(montage):
    """Completed siblings fold into a line; what runs, retries or failed stands below its group; the rest waits."""
    assert text(montage) == [
        "● montage  01k7zzzzzz01…  RUNNING  11/14  ████████████░░░░  1 failed  1 retrying  00:41",
        "├─✔ project ×6        6/6  avg 1.0s",
        "├─◐ fit ×7            5/7  1 running  1 retrying  1 failed",
        "│ ├─✖ fit_6  FAILED after 4 attempts  TimeoutError: 30 s   (wf node 01k7zzzzzz01 fit_6)",
        "│ ├─↻ fit_5  waits to try again after attempt 2: IOError: disk",
        "│ └─◐ fit_4  2.5s  on w1",
        "└─○ concat      waits for 2 of 7",
    ]


def test_a_command_that_can_be_pasted():
    """An id with a space is quoted in the command that tells more of it."""
    run = view([node("fit 6", "fit", 0, "FAILED", error=Failure(type="E", message="m"))])
    assert any(line.endswith("(wf node 01k7zzzzzz01 'fit 6')") for line in text(run))


def test_ascii_tree(montage):
    """With --ascii the tree holds no character beyond ASCII."""
    lines = text(montage, ascii_only=True)
    assert all(line.isascii() for line in lines)
    assert lines[1] == "|-+ project x6        6/6  avg 1.0s"
    assert lines[-1] == "`-o concat      waits for 2 of 7"


def test_single_nodes_carry_their_own_names():
    """A node that is alone in its group stands on the group's line under its own name."""
    run = view([node("load", "core.echo", 0, "COMPLETED", attempts=2), node("save", "file.write", 1, "RUNNING")])
    assert text(run)[1:] == ["├─✔ load  1.0s  after 2 attempts", "└─◐ save  running"]


def test_failures_come_first_when_room_is_short(montage):
    """When not every open node has room, failures keep theirs."""
    lines = text(montage, height=5)
    assert [line for line in lines if "fit_" in line] == [
        "│ └─✖ fit_6  FAILED after 4 attempts  TimeoutError: 30 s   (wf node 01k7zzzzzz01 fit_6)"
    ]


@pytest.mark.parametrize("height", range(1, 30))
@pytest.mark.parametrize("width", [1, 20, 80])
def test_never_outgrows_the_terminal(height, width):
    """Whatever the graph's size, the tree is at most as high and as wide as it is told."""
    done = [node(f"d{n}", f"t{n}", n, "COMPLETED") for n in range(20)]
    busy = [node(f"b{n}", "busy", 20, "RUNNING", started=START, worker="w" * 50) for n in range(50)]
    rest = [node(f"r{n}", f"u{n}", 21 + n) for n in range(20)]
    lines = text(view([*done, *busy, *rest]), width=width, height=height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)


def test_what_happens_stays_in_sight_of_a_deep_graph():
    """In a graph deeper than the terminal, finished steps fold at the top and untouched ones at the bottom."""
    done = [node(f"d{n}", f"t{n}", n, "COMPLETED") for n in range(100)]
    now = [node("busy", "busy", 100, "RUNNING", started=at(40))]
    rest = [node(f"r{n}", f"u{n}", 101 + n) for n in range(100)]
    lines = text(view([*done, *now, *rest]), height=8)
    assert lines[1] == "├─✔ 100 steps done (100 nodes)"
    assert "busy" in lines[2]
    assert lines[-1] == "└─○ 96 more steps (0/96 nodes)"
    assert len(lines) == 8


def test_finished_run_shows_its_last_steps():
    """A run that ended and does not fit shows its last steps, folded above."""
    lines = text(view([node(f"d{n}", f"t{n}", n, "COMPLETED") for n in range(100)], "COMPLETED"), height=6)
    assert lines[1] == "├─✔ 96 steps done (96 nodes)"
    assert [line.split()[1] for line in lines[2:]] == ["d96", "d97", "d98", "d99"]


def test_no_node_at_all():
    """A view without nodes is a header."""
    assert text(view([])) == ["● montage  01k7zzzzzz01…  RUNNING  0/0  ░░░░░░░░░░░░░░░░  00:41"]


def test_containers_show_how_far_they_are():
    """A map or loop stands alone with its progress; what runs or failed inside stands below it, until it has ended."""
    inside = [
        node("price[7]/one", "shop.price", 0, "RUNNING", started=at(40), worker="w1", progress={"rows": 3}),
        node("price[2]/one", "shop.price", 0, "FAILED", error=Failure(type="E", message="m")),
    ]
    price = {"total": 100, "opened": 42, "ended": 40, "failed": 1, "pass": None}
    maps = [
        node("price", "map", 1, "WAITING", kind="map", attempts=1, progress=price, inside=inside),
        node("poll", "loop", 1, "WAITING", kind="loop", attempts=1, progress={"total": 5, "pass": 2}),
        node("done", "map", 1, "COMPLETED", kind="map", progress=price, inside=inside),
    ]
    run = view([node("load", "core.echo", 0, "COMPLETED"), *maps])
    run.totals = {"COMPLETED": 42, "FAILED": 1, "WAITING": 2, "RUNNING": 1}
    assert text(run) == [
        "● montage  01k7zzzzzz01…  RUNNING  43/46  ██████████████░░  1 failed  00:41",
        "├─✔ load   1.0s",
        "├─◐ price  40/100  1 failed",
        "│ ├─✖ price[2]/one  FAILED  E: m   (wf node 01k7zzzzzz01 'price[2]/one')",
        '│ └─◐ price[7]/one  1.0s  on w1  {"rows": 3}',
        "├─◐ poll   pass 3 of at most 5",
        "└─✔ done   1.0s",
    ]


def undone(name: str, status: str, **rest) -> NodeView:
    """A completed node that was undone, or is being."""
    undo = node(f"{name}~compensate", "", 0, status, **rest)
    return node(name, "book", 0, "COMPLETED", undo=undo)


def test_what_undid_a_node_stands_below_it():
    """Whatever became of it; in a group only what runs or failed has a line."""
    error = Failure(type="E", message="m")
    car = undone("car", "COMPLETED")
    car.task = "rent"
    run = view([car, undone("hotel", "FAILED", error=error), undone("flight", "COMPLETED")], "FAILED")
    run.totals = {"COMPLETED": 5, "FAILED": 1}
    assert text(run) == [
        "● montage  01k7zzzzzz01…  FAILED  6/6  ████████████████  1 failed  00:41",
        "├─✔ car      1.0s",
        "│ └─✔ car~compensate  1.0s",
        "└─✔ book ×2        2/2  1 compensation failed  avg 1.0s",
        "  └─✖ hotel~compensate  FAILED  E: m   (wf node 01k7zzzzzz01 'hotel~compensate')",
    ]


@pytest.mark.parametrize("status", ["FAILED", "RUNNING", "QUEUED", "CANCELLED"])
def test_what_could_not_be_undone_does_not_fold(status):
    """A step that completed and whose compensation failed, or has not ended, stays in sight of a deep graph."""
    first = undone("hotel", status)
    rest = [node(f"d{n}", f"t{n}", n + 1, "COMPLETED") for n in range(100)]
    assert text(view([first, *rest]), height=8)[1] == f"├─✔ hotel  1.0s  1 compensation {status.lower()}"


@pytest.mark.parametrize("height", range(1, 8))
def test_containers_never_outgrow_the_terminal(height):
    """However much stands open inside a container, the tree is at most as high as it is told."""
    inside = [node(f"m[{n}]", "t", 0, "RUNNING") for n in range(20)]
    maps = [
        node(f"m{n}", "map", n, "WAITING", kind="map", attempts=1, progress={"total": 20}, inside=inside)
        for n in range(5)
    ]
    assert len(text(view(maps), height=height)) <= height
