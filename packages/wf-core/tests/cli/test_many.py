"""`wf submit --each`: an execution for each line of a file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

WORKFLOW = """
name: backfill
input: {type: object, required: [day], properties: {day: {type: string}}, additionalProperties: false}
nodes: {a: {task: core.echo, params: {value: "${{ input.day }}"}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a workflow that takes a day."""
    (tmp_path / "backfill.yaml").write_text(WORKFLOW)
    return tmp_path


@pytest.fixture
def submit(wf, dev, folder) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `wf submit backfill.yaml` with the shared server."""

    def run(*arguments: str, **rest) -> subprocess.CompletedProcess[str]:
        return wf("submit", "backfill.yaml", *arguments, WF_SERVER=dev.url, **rest)

    return run


def days(count: int) -> str:
    """So many lines, with a blank one at the end."""
    return "".join(json.dumps({"day": f"day {number}"}) + "\n" for number in range(count)) + "\n"


def test_ids_in_the_order_of_the_lines(submit, wf, dev, folder):
    """An id a line on stdout, in order; each execution has its own input. The same key makes nothing twice."""
    (folder / "days.jsonl").write_text(days(3))
    done = submit("--each", "days.jsonl", "--trigger", "--key", "three", "--label", "many=three")
    assert done.returncode == 0, done.stderr
    assert "3 executions, RUNNING" in done.stderr
    ids = done.stdout.split()
    assert [wf("watch", i, WF_SERVER=dev.url).returncode for i in ids] == [0, 0, 0]
    outputs = [json.loads(wf("results", i, "-o", "json", WF_SERVER=dev.url).stdout)["output"] for i in ids]
    assert outputs == ["day 0", "day 1", "day 2"]
    again = submit("--each", "-", "--trigger", "--key", "three", "--label", "many=three", stdin=days(3))
    assert again.stdout.split() == ids
    other = submit("--each", "-", "--trigger", "--key", "three", "--label", "many=three", stdin=days(2))
    assert other.returncode == 2
    assert "This --key was used for another request, of other contents" in other.stderr
    assert "under another --key" in other.stderr
    listed = json.loads(wf("ls", "--label", "many=three", "-o", "json", WF_SERVER=dev.url).stdout)
    assert len(listed) == 3


def test_more_than_a_batch_holds(submit):
    """More than 1,000 lines are several batches; JSON is one list of all."""
    done = submit("--each", "-", "-o", "json", stdin=days(1200))
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert len({one["execution_id"] for one in made}) == 1200
    assert {one["status"] for one in made} == {"PENDING"}


def test_wrong_lines_are_named_and_nothing_is_sent(wf, folder):
    """What is no JSON and what the schema refuses is told at once, by file and line, before a server is asked."""
    (folder / "days.jsonl").write_text(f'{days(2)}{{"day": 1}}\nNaN\n{{"day": "x", "day": "y"}}\n{{"dya": "x"}}\n')
    done = wf("submit", "backfill.yaml", "--each", "days.jsonl", "--server", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert done.stdout == ""
    first, *lines = done.stderr.splitlines()
    assert first == "error: 4 lines are wrong, and nothing was sent"
    assert [line.split(": ")[0] for line in lines] == [
        "  days.jsonl:4",
        "  days.jsonl:5",
        "  days.jsonl:6",
        "  days.jsonl:7",
        "  days.jsonl:7",
    ]
    assert "'day' is missing" in done.stderr


def test_what_the_server_refuses_has_its_line_too(submit):
    """An input that only the server can judge is named by its line; what was accepted before is said with the key."""
    too_long = json.dumps({"day": "x" * 300_000})
    done = submit("--each", "-", stdin=f"{days(1100)}{too_long}\n")
    assert done.returncode == 2
    assert len(done.stdout.split()) == 1000
    assert "1,000 executions were created; the same command with --key" in done.stderr
    assert "a line is wrong, and of this batch nothing was accepted" in done.stderr
    assert "  stdin:1102: the input is 300," in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("backfill.yaml", "--each", "-", "--input", "day=x"), "--each and --input"),
        (("-", "--each", "-"), "cannot both be read from stdin"),
        (("backfill.yaml", "--each", "-"), "holds no line"),
        (("backfill.yaml", "--each", "nowhere.jsonl"), "does not exist"),
    ],
)
def test_arguments_that_do_not_go_together(wf, folder, arguments, says):
    """Usage errors exit 2 before anything is sent."""
    done = wf("submit", *arguments, "--server", "http://127.0.0.1:1", folder=folder)
    assert done.returncode == 2
    assert says in done.stderr
