"""What a retry or scheduling policy is: found by entry point, named in documents, called by orchestrators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wf_core.wire import Failure, RetrySettings


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after `delay_ms`."""

    delay_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Give up."""

    reason: str


class RetryPolicy(Protocol):
    """An entry point of `wf.retry_policies`; constructed without arguments.

    Returns a decision and does nothing. Its verdict becomes a record, so a later version may decide otherwise without
    changing the past; a policy that raises is a `Stop` with the error as its reason.
    """

    def decide(self, failures: int, error: Failure, settings: RetrySettings, u: float) -> Retry | Stop:
        """Judges the newest failure: `failures` counts those so far, `u` in [0, 1) is the attempt's own hash."""
        ...


@dataclass(frozen=True, slots=True)
class ReadyNode:
    """A node that waits in the outbox."""

    node: str
    index: int
    priority: int
    level: int
    """Edges on the longest path from a root."""
    height: int
    """Edges on the longest path to a leaf; inside a map, a loop or the like, plus that of the container."""


class SchedulingPolicy(Protocol):
    """An entry point of `wf.scheduling_policies`; constructed without arguments.

    Asked with all the nodes of one execution that are ready and wait for the same queue, whenever one of them is to be
    sent and others have joined since; of a large fan-out that may be thousands. Of `fifo`, the default, only with what
    becomes ready together.

    A policy that gives each node a place of its own, whatever else waits, should have a method `key(node)` as well,
    which gives the tuple of whole numbers that `order` sorts by: it is then asked once for each node, and not for all
    of them again. A class with an `order` of its own does not inherit a `key`.
    """

    def order(self, ready: Sequence[ReadyNode]) -> Sequence[ReadyNode]:
        """All of `ready`, first to be sent first. Between executions priority decides, then age."""
        ...
