"""The package as its users meet it: found by entry point, checked by its annotations."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import pytest

from wf_core import Fatal
from wf_core.plugins import drivers, groups
from wf_core.plugins.hookspecs import Change
from wf_core.plugins.observers import Observers
from wf_core.policies import Retry, Stop
from wf_core.tasks import ParametersError
from wf_core.wire import Failure, RetrySettings


@dataclass
class Context:
    """As much of a TaskContext as the task uses."""

    execution_id: str = "01jd1kxa00ez58x47y27f1pjbj1z"
    node: str = "price"
    attempt: int = 1
    idempotency_key: str = "01jd1kxa00ez58x47y27f1pjbj1z/price"
    fence: int = 1
    cancelled: bool = False
    log: Any = field(default_factory=lambda: _Silent())  # noqa: PLW0108 - defined below

    def heartbeat(self, progress: Any = None) -> None:
        """Nobody listens in a unit test."""


class _Silent:
    def info(self, event: str, **fields: Any) -> None:
        """Drops the line."""


def test_everything_is_found_by_entry_point():
    """Installing the package is all it takes."""
    assert drivers.installed(groups.TASKS)["shop.price"].distribution == "wf-shop"
    assert drivers.load(groups.TASKS, "shop.price").name == "shop.price"
    assert "patient" in drivers.installed(groups.RETRY_POLICIES)
    assert "shop-ledger" in drivers.installed(groups.OBSERVERS)


async def test_the_task_prices_an_order():
    """Parameters arrive as JSON and are converted by the annotations."""
    task = drivers.load(groups.TASKS, "shop.price")
    bound = task.bind({"order": {"sku": "tea", "quantity": 3, "unit_price": "2.50"}, "currency": "USD"})
    result = await task.function(ctx=Context(), **bound)
    assert task.dump_output(result) == {
        "total": "8.10",
        "currency": "USD",
        "reference": "01jd1kxa00ez58x47y27f1pjbj1z/price",
    }


def test_wrong_parameters_name_every_problem():
    """Each wrong field has its place."""
    task = drivers.load(groups.TASKS, "shop.price")
    with pytest.raises(ParametersError) as caught:
        task.bind({"order": {"sku": "", "quantity": 0, "unit_price": 1}, "colour": "red"})
    assert {p.pointer for p in caught.value.problems} == {"/order/sku", "/order/quantity", "/colour"}


async def test_an_unknown_currency_is_not_retried():
    """Fatal forbids retries."""
    task = drivers.load(groups.TASKS, "shop.price")
    bound = task.bind({"order": {"sku": "tea", "quantity": 1, "unit_price": 1}, "currency": "XXX"})
    with pytest.raises(Fatal, match="no rate for 'XXX'"):
        await task.function(ctx=Context(), **bound)


def test_the_policy_waits_longer_each_time_and_knows_when_to_stop():
    """A policy is a pure function."""
    policy = drivers.load(groups.RETRY_POLICIES, "patient")()
    settings = RetrySettings(delay_ms=100, jitter=0.0)
    assert policy.decide(1, Failure(type="E", message="busy"), settings, 0.5) == Retry(100, "patient: failure 1")
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
