"""Retry and scheduling policies by name: loaded when the service starts, a broken one reported and left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import structlog

from wf_core.errors import PluginError
from wf_core.plugins import drivers, groups
from wf_core.policies import RetryPolicy, SchedulingPolicy

log = structlog.get_logger(__name__)
_Policy = TypeVar("_Policy")


class PolicyBook:
    """What documents may name. Construct it from dicts in tests, or with `load`."""

    def __init__(self, retry: dict[str, RetryPolicy], scheduling: dict[str, SchedulingPolicy]) -> None:
        self._retry = retry
        self._scheduling = scheduling

    @classmethod
    def load(cls) -> PolicyBook:
        """Every policy that is installed and imports. Raises PluginError when two packages ship one name."""
        return cls(_load(groups.RETRY_POLICIES), _load(groups.SCHEDULING_POLICIES))

    def retry(self, name: str) -> RetryPolicy:
        """Raises PluginError, naming what there is, when this orchestrator has no such policy."""
        return _find(self._retry, name, groups.RETRY_POLICIES)

    def scheduling(self, name: str) -> SchedulingPolicy:
        """Raises PluginError, naming what there is, when this orchestrator has no such policy."""
        return _find(self._scheduling, name, groups.SCHEDULING_POLICIES)


def _find(policies: dict[str, _Policy], name: str, group: str) -> _Policy:
    try:
        return policies[name]
    except KeyError:
        known = ", ".join(sorted(policies)) or "none"
        raise PluginError(f"this orchestrator has no {name!r} in the group {group}; it has: {known}") from None


def _load(group: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, plugin in drivers.installed(group).items():
        try:
            factory: Callable[[], Any] = drivers.load(group, name)
            found[name] = factory()
        except Exception as error:  # noqa: BLE001 - a plugin's constructor may raise anything; one must not stop another
            reason = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            log.error("policy left out", group=group, policy=name, package=plugin.package, error=reason)
    return found
