"""Drivers by name: the only module that knows stevedore.

Entry points are listed without importing anything; a driver is imported when it is first asked for, and one that does
not import is reported and never stops another.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from stevedore import DriverManager
from stevedore.exception import NoMatches

from wf_core.errors import PluginError
from wf_core.plugins.entries import entries


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


def survey(group: str) -> tuple[dict[str, Plugin], dict[str, str]]:
    """The plugins of `group` by name, without importing any; and why names that two packages ship cannot be used."""
    found: dict[str, dict[str, Plugin]] = defaultdict(dict)
    for entry in entries(group):
        name, target = entry.point.name, entry.point.value
        plugin = Plugin(group, name, target, entry.distribution, entry.version)
        found[name].setdefault(f"{target} {entry.distribution}", plugin)
    usable = {name: next(iter(plugins.values())) for name, plugins in sorted(found.items()) if len(plugins) == 1}
    doubled = {
        name: f"{name!r} by {' and '.join(p.distribution for p in plugins.values())}"
        for name, plugins in sorted(found.items())
        if len(plugins) > 1
    }
    return usable, {name: _doubled(group, listed) for name, listed in doubled.items()}


def _doubled(group: str, listed: str) -> str:
    return f"the group {group} has one name twice: {listed}. Uninstall one of them."


def installed(group: str) -> dict[str, Plugin]:
    """The plugins of `group` by name, without importing any. Raises PluginError when two packages ship one name."""
    usable, doubled = survey(group)
    if doubled:
        raise PluginError(" ".join(doubled.values()))
    return usable


def load(group: str, name: str) -> Any:
    """The object that the plugin `name` points to. Raises PluginError when it is missing or does not import."""
    usable, doubled = survey(group)
    if name in doubled:
        raise PluginError(doubled[name])
    plugin = usable.get(name)
    if plugin is None:
        known = ", ".join(usable) or "none is installed"
        raise PluginError(f"no {name!r} in the group {group}; known: {known}")
    failures: list[BaseException] = []
    try:
        manager: DriverManager[Any] = DriverManager(
            namespace=group,
            name=name,
            invoke_on_load=False,
            on_load_failure_callback=lambda _manager, _entry, error: failures.append(error),
        )
    except Exception as error:
        cause = failures[0] if failures else error
        if isinstance(cause, NoMatches):
            raise PluginError(f"no {name!r} in the group {group}") from error
        raise _broken(plugin, cause) from cause
    if failures:
        raise _broken(plugin, failures[0]) from failures[0]
    return manager.driver


def _broken(plugin: Plugin, cause: BaseException) -> PluginError:
    shipped_by = plugin.package or plugin.target
    return PluginError(f"{plugin.name!r} of {shipped_by} does not import: {type(cause).__name__}: {cause}")
