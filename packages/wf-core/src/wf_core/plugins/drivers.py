"""Drivers by name: the only module that knows stevedore.

Entry points are listed without importing anything; a driver is imported when it is first asked for, and one that does
not import is reported and never stops another.
"""

from __future__ import annotations

import importlib.metadata
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from stevedore import DriverManager
from stevedore.exception import NoMatches

from wf_core.errors import PluginError


@dataclass(frozen=True, slots=True)
class Plugin:
    """An entry point: what it is called, where it points, and who ships it."""

    group: str
    name: str
    target: str
    distribution: str
    version: str

    @property
    def package(self) -> str:
        """Distribution and version, as shown to people."""
        return f"{self.distribution} {self.version}".strip()


def installed(group: str) -> dict[str, Plugin]:
    """The plugins of `group` by name, without importing any. Raises PluginError when two packages ship one name."""
    found: dict[str, dict[str, Plugin]] = defaultdict(dict)
    for entry in importlib.metadata.entry_points(group=group):
        distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else ("", "")
        plugin = Plugin(group, entry.name, entry.value, distribution, version)
        found[entry.name].setdefault(f"{entry.value} {distribution}", plugin)
    doubled = {name: plugins for name, plugins in found.items() if len(plugins) > 1}
    if doubled:
        listed = "; ".join(
            f"{name!r} by {' and '.join(p.distribution for p in plugins.values())}" for name, plugins in doubled.items()
        )
        raise PluginError(f"the group {group} has one name twice: {listed}. Uninstall one of them.")
    return {name: next(iter(plugins.values())) for name, plugins in sorted(found.items())}


def load(group: str, name: str) -> Any:
    """The object that the plugin `name` points to. Raises PluginError when it is missing or does not import."""
    plugin = installed(group).get(name)
    if plugin is None:
        known = ", ".join(installed(group)) or "none is installed"
        raise PluginError(f"no {name!r} in the group {group}; known: {known}")
    failures: list[BaseException] = []
    try:
        manager: DriverManager[Any] = DriverManager(
            namespace=group,
            name=name,
            invoke_on_load=False,
            on_load_failure_callback=lambda _manager, _entry, error: failures.append(error),
        )
    except NoMatches as error:
        raise PluginError(f"no {name!r} in the group {group}") from error
    except Exception as error:
        cause = failures[0] if failures else error
        raise PluginError(
            f"{name!r} of {plugin.package or plugin.target} does not import: {type(cause).__name__}: {cause}"
        ) from cause
    if failures:
        cause = failures[0]
        raise PluginError(
            f"{name!r} of {plugin.package or plugin.target} does not import: {type(cause).__name__}: {cause}"
        ) from cause
    return manager.driver
