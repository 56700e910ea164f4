"""The package as its users meet it: found by entry point, run in workflows with a virtual clock."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest

from wf_core.plugins import drivers, groups
from wf_core.plugins.hookspecs import Change
from wf_core.plugins.observers import Observers
from wf_core.policies import Retry, Stop
from wf_core.wire import Failure, RetrySettings
from wf_orchestrator.testing import answers
from wf_orchestrator.testing.run import NodeRun


def pricing(**params: Any) -> dict[str, Any]:
    """A workflow of one node that asks for a price."""
    return {"nodes": {"price": {"task": "shop.price", "params": params}}}


def test_everything_is_found_by_entry_point():
    """Installing the package is all it takes."""
    assert drivers.installed(groups.TASKS)["shop.price"].distribution == "wf-shop"
    assert drivers.load(groups.TASKS, "shop.price").name == "shop.price"
    assert "patient" in drivers.installed(groups.RETRY_POLICIES)
    assert "shop-ledger" in drivers.installed(groups.OBSERVERS)


def test_the_task_prices_an_order(run_workflow: Any):
    """Parameters arrive as JSON and are converted by the annotations."""
    run = run_workflow(pricing(order={"sku": "tea", "quantity": 3, "unit_price": "2.50"}, currency="USD"))
    assert run.status == "COMPLETED"
    assert run.output == {"total": "8.10", "currency": "USD", "reference": f"{run.execution_id}/price"}


def failed(run: Any) -> NodeRun:
    """The node that failed at its first attempt, and was not tried again."""
    node: NodeRun = run.node("price")
    assert (node.status, len(node.attempts)) == ("FAILED", 1)
    return node


def test_wrong_parameters_name_every_problem(run_workflow: Any):
    """Each wrong field has its place."""
    node = failed(run_workflow(pricing(order={"sku": "", "quantity": 0, "unit_price": 1}, colour="red")))
    assert node.error is not None
    assert node.error.type == "ParametersError"
    assert all(place in node.error.message for place in ("/order/sku", "/order/quantity", "/colour"))


def test_an_unknown_currency_is_not_retried(run_workflow: Any):
    """Fatal forbids retries."""
    node = failed(run_workflow(pricing(order={"sku": "tea", "quantity": 1, "unit_price": 1}, currency="XXX")))
    assert node.error is not None
    assert (node.error.type, "no rate for 'XXX'" in node.error.message) == ("Fatal", True)


def test_the_policy_waits_longer_each_time(run_workflow: Any):
    """In a workflow that names it; the clock is virtual."""
    retry = {"policy": "patient", "max_retries": 5, "delay": "1h", "max_delay": "1d", "jitter": 0.0}
    document = {"nodes": {"price": {"task": "shop.price", "retry": retry}}}
    busy, closed = ConnectionError("busy"), ConnectionError("shop closed")
    run = run_workflow(document, tasks={"shop.price": answers(busy, busy, 5)})
    assert (run.output, run.elapsed) == (5, timedelta(hours=3))
    run = run_workflow(document, tasks={"shop.price": answers(busy, closed)})
    assert [attempt.reason for attempt in run.node("price").attempts][-1] == "the shop is closed"


def test_the_policy_is_a_pure_function():
    """It returns a decision and does nothing."""
    policy = drivers.load(groups.RETRY_POLICIES, "patient")()
    settings = RetrySettings(delay_ms=100, jitter=0.0)
    assert policy.decide(3, Failure(type="E", message="busy"), settings, 0.5) == Retry(300, "patient: failure 3")
    assert policy.decide(1, Failure(type="E", message="shop closed"), settings, 0.5) == Stop("the shop is closed")


def test_the_observer_is_told_of_failures(caplog: pytest.LogCaptureFixture):
    """The engine calls it through its hooks."""
    observers = Observers()
    observers.load()
    change = Change("01jd", "orders", "", 0, "FAILED", 0, {})
    with caplog.at_level(logging.WARNING, logger="wf_shop.observers"):
        observers.call("wf_execution_changed", changes=[change])
    assert "orders 01jd failed" in caplog.text
