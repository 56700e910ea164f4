"""Counters and gauges of a service, and their exposition to Prometheus. No global registry: `service.py` makes one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import structlog

from wf_core.errors import SetupError
from wf_core.settings import Settings

if TYPE_CHECKING:
    # Imported where numbers are shown: it brings an HTTP server with it, and most processes serve none.
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

log = structlog.get_logger(__name__)

_Key = tuple[str, tuple[tuple[str, str], ...]]


class Counters:
    """Numbers by name and labels. `inc` adds (names end in `_total`), `set` replaces (gauges).

    `meanings` says in a sentence what the number of a name is. Every name gets the prefix `wf_` when it is shown.
    """

    def __init__(self, meanings: Mapping[str, str] = MappingProxyType({})) -> None:
        self._meanings = meanings
        self._counters: defaultdict[_Key, float] = defaultdict(float)
        self._gauges: dict[_Key, float] = {}

    @cached_property
    def registry(self) -> CollectorRegistry:
        """These numbers, and memory, processor time and open files of the process."""
        from prometheus_client import CollectorRegistry, ProcessCollector

        registry = CollectorRegistry()
        registry.register(self)  # it asks for `collect` alone
        ProcessCollector(registry=registry)
        return registry

    def inc(self, name: str, by: float = 1, **labels: str) -> None:
        """Adds `by` to the counter."""
        self._counters[name, tuple(sorted(labels.items()))] += by

    def set(self, name: str, value: float, **labels: str) -> None:
        """Sets the gauge."""
        self._gauges[name, tuple(sorted(labels.items()))] = value

    def replace(self, name: str, label: str, values: Mapping[str, float]) -> None:
        """Sets the gauge for these values of its one label; those that it had besides are shown no more."""
        for known in [key for key in self._gauges if key[0] == name]:
            del self._gauges[known]
        for text, value in values.items():
            self.set(name, value, **{label: text})

    def get(self, name: str, **labels: str) -> float:
        """The value of a counter or gauge; 0 when it was never touched."""
        key = (name, tuple(sorted(labels.items())))
        return self._gauges.get(key, self._counters.get(key, 0.0))

    def total(self, name: str) -> float:
        """The sum of a counter over all labels."""
        return sum(value for (known, _), value in self._counters.items() if known == name)

    def collect(self) -> Iterator[Metric]:
        """All numbers as prometheus_client wants them. It asks from a thread of its own, so it gets copies."""
        from prometheus_client.metrics_core import Metric

        for kind, values in (("counter", self._counters.copy()), ("gauge", self._gauges.copy())):
            families: dict[str, Metric] = {}
            for (name, labels), value in sorted(values.items()):
                shown = f"wf_{name}"
                if name not in families:
                    families[name] = Metric(shown.removesuffix("_total"), self._meanings.get(name, ""), kind)
                families[name].add_sample(shown, dict(labels), value)
            yield from families.values()

    def render(self) -> str:
        """The text that Prometheus scrapes."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry).decode()


@contextlib.asynccontextmanager
async def serve_metrics(settings: Settings, counters: Counters) -> AsyncIterator[None]:
    """Serves `/metrics` on `metrics_port`, unless that is 0, in a thread that waits nearly always.

    Raises SetupError when the address cannot be listened on.
    """
    if not settings.metrics_port:
        yield
        return
    from prometheus_client import start_http_server

    address = f"{settings.metrics_host}:{settings.metrics_port}"
    try:
        server, thread = start_http_server(settings.metrics_port, settings.metrics_host, counters.registry)
    except (OSError, OverflowError) as error:
        raise SetupError(
            f"APP_METRICS_HOST and APP_METRICS_PORT: cannot listen on {address}: {error}; "
            "each process on a host needs a port of its own"
        ) from error
    log.info("metrics are served", url=f"http://{address}/metrics")
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
