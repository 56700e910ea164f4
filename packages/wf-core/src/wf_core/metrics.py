"""Counters and gauges of a service, rendered in Prometheus' text format. No global registry: `service.py` makes one."""

from __future__ import annotations

from collections import defaultdict

_Key = tuple[str, tuple[tuple[str, str], ...]]


class Counters:
    """Numbers by name and labels. `inc` adds (names end in `_total`), `set` replaces (gauges)."""

    def __init__(self) -> None:
        self._counters: defaultdict[_Key, float] = defaultdict(float)
        self._gauges: dict[_Key, float] = {}

    def inc(self, name: str, by: float = 1, **labels: str) -> None:
        """Adds `by` to the counter."""
        self._counters[name, tuple(sorted(labels.items()))] += by

    def set(self, name: str, value: float, **labels: str) -> None:
        """Sets the gauge."""
        self._gauges[name, tuple(sorted(labels.items()))] = value

    def get(self, name: str, **labels: str) -> float:
        """The value of a counter or gauge; 0 when it was never touched."""
        key = (name, tuple(sorted(labels.items())))
        return self._gauges.get(key, self._counters.get(key, 0.0))

    def total(self, name: str) -> float:
        """The sum of a counter over all labels."""
        return sum(value for (known, _), value in self._counters.items() if known == name)

    def render(self) -> str:
        """The text that Prometheus scrapes; every name is prefixed with `wf_`."""
        lines: list[str] = []
        for kind, values in (("counter", self._counters), ("gauge", self._gauges)):
            described: set[str] = set()
            for (name, labels), value in sorted(values.items()):
                if name not in described:
                    lines.append(f"# TYPE wf_{name} {kind}")
                    described.add(name)
                shown = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
                lines.append(f"wf_{name}{{{shown}}} {value:g}" if shown else f"wf_{name} {value:g}")
        return "\n".join((*lines, ""))


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
