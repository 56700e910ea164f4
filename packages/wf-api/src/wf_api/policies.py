"""The retry and scheduling policies that a document may name."""

from __future__ import annotations

from dataclasses import dataclass

from wf_core.plugins import drivers, groups


@dataclass(frozen=True, slots=True)
class Policies:
    """Names of the policies that are installed on this host."""

    retry: frozenset[str]
    scheduling: frozenset[str]


def installed_policies() -> Policies | None:
    """The policies of this host, without importing any; None on an API host that has no orchestrator.

    Raises PluginError when two packages ship one name.
    """
    retry = frozenset(drivers.installed(groups.RETRY_POLICIES))
    scheduling = frozenset(drivers.installed(groups.SCHEDULING_POLICIES))
    return Policies(retry, scheduling) if retry and scheduling else None
