"""`wf test`: cases in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from wf_core.errors import DocumentError
from wf_orchestrator.case_command import test as command

ORDERS = """
name: orders
nodes:
  list: {task: http.request, params: {url: "https://shop.example/orders"}}
  price: {kind: map, items: "${{ nodes.list.output }}", task: shop.price, params: {order: "${{ item }}"},
          retry: {max_retries: 1, delay: 1h, max_delay: 1d, jitter: 0.0}}
  pay: {kind: wait, signal: paid, depends_on: [price]}
  approve: {kind: approval, depends_on: [pay]}
output: "${{ nodes.price.output }}"
"""
CASES = """
workflow: orders.yaml
tasks: {http.request: {returns: [1, 2]}}
cases:
  - name: all is well
    tasks: {shop.price: {returns: 5, takes: 1m}}
    nodes: {"price[1]": [{raises: {type: BusyError, message: later}}, {returns: 6}]}
    signals: {paid: true}
    approvals: {approve: yes}
    expect: {output: [5, 6], nodes: {list: COMPLETED}, outputs: {"price[0]": 5}, elapsed: 61m}
  - name: nobody pays
    tasks: {shop.price: {returns: 5}}
    expect: {status: RUNNING, nodes: {pay: WAITING}}
  - name: the shop is closed
    tasks: {shop.price: {raises: {type: ClosedError, message: the shop is closed}}}
    expect: {status: FAILED, error: {type: ClosedError, message: closed}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "orders.yaml").write_text(ORDERS)
    file = tmp_path / "orders.test.yaml"
    file.write_text(CASES)
    return file


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)


def test_cases_that_are_as_expected_pass(file: Path):
    """One row each."""
    result = invoke(file, "-o", "name")
    assert result.exception is None
    assert (result.return_value, result.output.split("\n")[:3]) == (
        0,
        ["all is well", "nobody pays", "the shop is closed"],
    )


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("output: [5, 6]", "output: [5, 7]", "the output is [5, 6], expected [5, 7]"),
        ("elapsed: 61m", "elapsed: 1m", "it took 1:00:00 of virtual time, expected at most 1m"),
        ("status: RUNNING", "status: COMPLETED", "the status is RUNNING, expected COMPLETED"),
        ("pay: WAITING", "payed: WAITING", "there is no node 'payed'; there are: list, price"),
        ("pay: WAITING", "pay: COMPLETED", "the status of 'pay' is 'WAITING', expected 'COMPLETED'"),
        ('"price[0]": 5', '"price[0]": 4', "the output of 'price[0]' is 5, expected 4"),
        ("type: ClosedError, message: closed", "type: OpenError", "the error is ClosedError: "),
    ],
)
def test_what_differs_is_said(file: Path, old: str, new: str, sentence: str):
    """In a sentence; the exit code is 1."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    result = invoke(file)
    assert (result.exception, result.return_value) == (None, 1)
    assert sentence in result.output + result.stderr


def test_a_wrong_file_names_every_problem(file: Path):
    """With pointers."""
    file.write_text("workflow: orders.yaml\ncases: [{nam: x}, {name: y, expect: {status: DONE}}]\n")
    error = invoke(file).exception
    assert isinstance(error, DocumentError)
    assert {p.pointer for p in error.problems} == {"/cases/0/name", "/cases/0/nam", "/cases/1/expect/status"}


@pytest.mark.parametrize(
    ("line", "pointer", "sentence"),
    [
        ("tasks: {a: {retruns: 1}}", "/cases/0/tasks/a/retruns", "did you mean 'returns'?"),
        ("tasks: {a: [{}, 5]}", "/cases/0/tasks/a/1", "must be an object with these keys: raises, returns, takes"),
        ("tasks: {a: {takes: long}}", "/cases/0/tasks/a/takes", "'long' is no duration"),
        ("expect: {stauts: FAILED}", "/cases/0/expect/stauts", "did you mean 'status'?"),
        ("signal: {}", "/cases/0/signal", "did you mean 'signals'?"),
    ],
)
def test_mistakes_in_a_file_come_with_a_remedy(file: Path, line: str, pointer: str, sentence: str):
    """In the words of the file, one problem a mistake."""
    file.write_text(f"workflow: orders.yaml\ncases: [{{name: y, {line}}}]\n")
    error = invoke(file).exception
    assert isinstance(error, DocumentError)
    assert [problem.pointer for problem in error.problems] == [pointer]
    assert sentence in error.problems[0].detail


def test_an_unknown_task_fails_its_case_only(file: Path):
    """The other cases still run."""
    file.write_text(file.read_text().replace("{shop.price: {returns: 5}}", "{}"))
    result = invoke(file)
    assert (result.exception, result.return_value) == (None, 1)
    assert "runs the task 'shop.price', which is neither installed nor given" in result.output + result.stderr
    assert result.output.count("passed") == 2
