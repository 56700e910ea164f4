"""The `task` decorator: how a function becomes a task, and how its parameters and output are checked."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from wf_core import Fatal, RetryAfter, TaskContext, task
from wf_core.errors import PayloadError, PluginError
from wf_core.payload import encode
from wf_core.tasks import HeartbeatTimeoutError, ParametersError


class Order(BaseModel):
    """Something to buy."""

    item: str
    count: int = 1


@dataclass
class Point:
    """A pair."""

    x: int
    y: int


@task("shop.price", timeout="30s")
async def price(ctx: TaskContext, order: Order, factor: Annotated[float, Field(gt=0)] = 1.5) -> Point:
    """What an order costs.

    In points.
    """
    return Point(order.count, round(factor))


@task("any.thing")
def anything(value, **rest: Any):
    return value, rest


def test_executor_follows_the_function():
    """An async function runs on the loop, a plain one in a thread, unless a process is asked for."""
    assert price.executor == "async"
    assert anything.executor == "thread"
    assert task("p", executor="process")(lambda: None).executor == "process"
    with pytest.raises(PluginError, match="needs an async function"):
        task("x", executor="async")(lambda: None)


def test_timeout_is_a_duration():
    """`timeout` is written as in documents, and kept in milliseconds."""
    assert price.timeout_ms == 30_000
    assert task("t", timeout=1.5)(lambda: None).timeout_ms == 1500
    assert anything.timeout_ms is None


def test_schema_of_parameters():
    """The JSON Schema names every parameter but the context, with its default and its limits."""
    schema = price.parameters_schema()
    assert set(schema["properties"]) == {"order", "factor"}
    assert schema["required"] == ["order"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["factor"]["exclusiveMinimum"] == 0
    assert price.output_schema()["properties"].keys() == {"x", "y"}


def test_bind_converts():
    """Parameters become what the annotations say; defaults count; the context is not among them."""
    assert price.context_parameter == "ctx"
    assert price.bind({"order": {"item": "tea"}}) == {"order": Order(item="tea"), "factor": 1.5}


def test_bind_takes_anything_without_annotations():
    """Without an annotation any value fits; `**rest` takes any name."""
    assert anything.bind({"value": [1], "p_value": 2, "model_config": 3}) == {
        "value": [1],
        "p_value": 2,
        "model_config": 3,
    }


def test_bind_reports_every_problem():
    """All that is wrong is reported at once, each with a JSON pointer."""
    with pytest.raises(ParametersError) as caught:
        price.bind({"order": {"count": "many"}, "factor": 0, "a/b": 1})
    assert {p.pointer for p in caught.value.problems} == {"/order/item", "/order/count", "/factor", "/a~1b"}
    assert "shop.price" in str(caught.value)


def test_parameters_may_have_any_name():
    """Names that a model reserves are fine as parameters."""

    @task("odd")
    async def odd(model_fields: int, schema: int, self: int, copy: int = 4) -> int:
        return model_fields + schema + self + copy

    assert odd.bind({"model_fields": 1, "schema": 2, "self": 3}) == {
        "model_fields": 1,
        "schema": 2,
        "self": 3,
        "copy": 4,
    }


def test_dump_output():
    """Models, dataclasses and times become JSON values, whether annotated or not."""
    assert price.dump_output(Point(1, 2)) == {"x": 1, "y": 2}
    assert anything.dump_output({"at": datetime(2026, 1, 2, tzinfo=UTC), "of": Order(item="tea")}) == {
        "at": "2026-01-02T00:00:00Z",
        "of": {"item": "tea", "count": 1},
    }
    assert anything.dump_output(2**100) == 2**100


def test_no_number_becomes_null():
    """NaN and the infinities of an output are refused; they do not silently turn into null."""

    def read() -> dict[str, Any]:
        return {}

    for value in (math.nan, {"deep": [math.inf]}):
        with pytest.raises(PayloadError, match="not JSON"):
            encode(anything.dump_output(value))
    with pytest.raises(PayloadError, match="not JSON"):
        encode(task("read")(read).dump_output({"deep": -math.inf}))


def test_output_type_without_a_schema():
    """A return type that has no schema allows what its value allows."""

    class Opaque:
        pass

    def give():
        return [1, 2]

    give.__annotations__["return"] = Opaque
    it = task("opaque")(give)
    assert it.output_schema() == {}
    assert it.dump_output([1, 2]) == [1, 2]


def test_annotations_that_give_no_schema():
    """Annotations that no schema expresses, or that name nothing, are an error of the plugin that names the task."""

    def callback(then: Callable[[], None]) -> None: ...

    def unknown(value: Any) -> None: ...

    unknown.__annotations__["value"] = "NoSuchType"
    with pytest.raises(PluginError, match=r"bad\.callback"):
        task("bad.callback")(callback).parameters_schema()
    with pytest.raises(PluginError, match=r"bad\.unknown"):
        task("bad.unknown")(unknown).parameters_schema()


def test_calling_a_task_calls_its_function():
    """In tests a task is called like its function."""
    assert anything(1, a=2) == (1, {"a": 2})
    assert price.doc == "What an order costs.\n\nIn points."
    assert inspect.iscoroutinefunction(price.function)


def test_errors_of_tasks():
    """Fatal and RetryAfter are plain exceptions; RetryAfter knows its seconds."""
    assert RetryAfter(2.5).seconds == 2.5
    assert "2.5 s" in str(RetryAfter(2.5))
    assert "soon" in str(RetryAfter("soon"))  # type: ignore[arg-type]  # what it is worth is judged by the worker
    assert issubclass(Fatal, Exception)
    assert issubclass(HeartbeatTimeoutError, TimeoutError)
