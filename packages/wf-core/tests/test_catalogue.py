"""What workers publish about their tasks."""

from __future__ import annotations

import msgspec
import pytest

from wf_core import task
from wf_core.catalogue import Catalogue, TaskInfo, decode, describe
from wf_core.errors import PluginError


@task("shop.price", executor="process", timeout="2s", needs_permission=True)
def price(count: int, name: str = "tea") -> float:
    """What it costs."""
    return float(count)


def test_describe():
    """A description holds who ships a task, its schemas, how it runs and its documentation."""
    info = describe(price, "wf-shop", "1.2")
    assert (info.name, info.shipped_by, info.executor, info.timeout_ms) == (
        "shop.price",
        "wf-shop 1.2",
        "process",
        2000,
    )
    assert info.needs_permission
    assert info.doc == "What it costs."
    assert info.params["required"] == ["count"]
    assert info.output == {"type": "number"}


def test_encoded_and_back():
    """A catalogue survives its encoding; equal contents have equal bytes and one hash, whatever their order."""
    first, second = describe(price), TaskInfo(name="b")
    one = Catalogue(tasks={"a": first, "b": second}, broken={"c": "it raises"}, refused=("d",))
    same = Catalogue(broken={"c": "it raises"}, tasks={"b": second, "a": first}, refused=("d",))
    assert decode(one.encode()) == one
    assert one.encode() == same.encode()
    assert one.hash == same.hash != Catalogue().hash
    assert len(one.hash) == 32


def test_fields_of_a_later_release():
    """Fields that this release does not know are ignored."""
    value = msgspec.json.decode(Catalogue(tasks={"a": TaskInfo(name="a")}).encode())
    value["tasks"]["a"]["colour"] = "red"
    value["later"] = 1
    assert decode(msgspec.json.encode(value)).tasks["a"] == TaskInfo(name="a")


def test_a_task_without_a_schema():
    """A task whose annotations cannot be read is no part of a catalogue."""

    def wrong(value: int) -> None: ...

    wrong.__annotations__["value"] = "NoSuchType"
    with pytest.raises(PluginError):
        describe(task("wrong")(wrong))
