"""Numbers of a service, as Prometheus gets them."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from wf_core.errors import SetupError
from wf_core.metrics import Counters, serve_metrics
from wf_core.settings import Settings


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def own(text: str) -> list[str]:
    """The lines about numbers of ours."""
    return [line for line in text.splitlines() if "wf_" in line]


def serving() -> list[str]:
    """The threads that serve."""
    return [thread.name for thread in threading.enumerate() if "serve_forever" in thread.name]


def get(port: int) -> tuple[str, str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.headers["content-type"], answer.read().decode()


def test_counters_render_as_prometheus_text():
    """Counters add, gauges replace, labels are sorted and escaped, and a number says what it means if it is known."""
    counters = Counters({"apply_total": "Batches."})
    counters.inc("apply_total", answer="OK")
    counters.inc("apply_total", 2, answer='"')
    counters.set("partitions_owned", 4)
    assert counters.total("apply_total") == 3
    assert own(counters.render()) == [
        "# HELP wf_apply_total Batches.",
        "# TYPE wf_apply_total counter",
        r'wf_apply_total{answer="\""} 2.0',
        'wf_apply_total{answer="OK"} 1.0',
        "# HELP wf_partitions_owned ",
        "# TYPE wf_partitions_owned gauge",
        "wf_partitions_owned 4.0",
    ]


def test_a_label_that_is_gone_is_not_shown_for_ever():
    """A gauge by queue shows the queues of the moment."""
    counters = Counters()
    counters.set("waiting", 9)
    counters.replace("outbox", "queue", {"a": 1, "b": 2})
    counters.replace("outbox", "queue", {"b": 3})
    assert counters.get("outbox", queue="a") == 0
    assert own(counters.render())[2] == 'wf_outbox{queue="b"} 3.0'
    assert counters.get("waiting") == 9


async def test_metrics_are_served(port):
    """A scraper gets the standard text, with the numbers of the process; nothing of it stays when the service ends."""
    counters = Counters()
    counters.inc("events_total", 7)
    async with serve_metrics(Settings(metrics_port=port), counters):
        assert serving()
        kind, text = await asyncio.to_thread(get, port)
    assert kind.startswith("text/plain; version=")
    found = {family.name: family.samples[0].value for family in text_string_to_metric_families(text)}
    assert found["wf_events"] == 7
    assert found["process_resident_memory_bytes"] > 0
    with pytest.raises(urllib.error.URLError):
        await asyncio.to_thread(get, port)
    assert not serving()


async def test_no_port_serves_nothing():
    """Port 0, the default, listens nowhere."""
    async with serve_metrics(Settings(), Counters()):
        assert not serving()


async def test_a_port_in_use_is_a_clear_error(port):
    """The variable is named: someone has to choose another port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(SetupError, match=f"APP_METRICS_PORT: cannot listen on 127.0.0.1:{port}"):
            async with serve_metrics(Settings(metrics_port=port), Counters()):
                pass


async def test_a_host_that_is_not_ours_is_a_clear_error(port):
    """As is an address of another machine."""
    with pytest.raises(SetupError, match="APP_METRICS_HOST"):
        async with serve_metrics(Settings(metrics_host="192.0.2.1", metrics_port=port), Counters()):
            pass
