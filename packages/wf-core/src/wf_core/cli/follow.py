"""Follows an execution: asks the server, keeps a view, shows it until the execution ends."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from wf_core.cli.console import duration
from wf_core.cli.view import RunView, error_line, new_view
from wf_core.client import ApiError, StillRunningError

if TYPE_CHECKING:
    from wf_core.cli.screen import Screen
    from wf_core.client import Client, Event, Execution, Failure
    from wf_core.graph import Graph

TICK = 0.2
"""Seconds between two looks: five redraws a second at most."""
_SLOW_TICK = 1.0
_PAGE = 500
_MOST_PAGES = 40
_MOST_CONTAINERS = 5
_MOST_INSIDE = 20
_MOST_TOLD = 10
"""Lines about what went wrong inside one container."""
_INSIDE = re.compile(r"[/\[#]")
_OPEN = "FAILED,RETRYING,RUNNING"
"""What of a container's inside stands on lines of its own."""
_LOSSES = {
    "dead": "the process that ran it ended",
    "crash": "the process that ran it ended",
    "orphan": "nobody claimed it",
    "drain": "it shuts down",
}
"""What the reasons of a loss mean to a reader."""


class Follower:
    """One execution that is being followed. What happened up to `since` is taken over and not told again."""

    def __init__(self, client: Client, execution_id: str, screen: Screen, since: datetime | None = None) -> None:
        self._client = client
        self._id = execution_id
        self._screen = screen
        self._since = since
        self._seen: str | None = None
        self._errors: dict[str, str] = {}
        self._told: Counter[str] = Counter()

    def follow(self, timeout: float | None = None) -> tuple[Execution, RunView]:
        """Shows the execution until it has ended. Raises StillRunningError after `timeout` seconds."""
        execution = self._client.get(self._id)
        view = new_view(execution, *outline(self._client.definition(self._id)))
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.05
        while True:
            changed = self._refresh(view, execution)
            if execution.ended:
                view.update_nodes(self._client.all_nodes(self._id))
                self._screen.finish(view, datetime.now(UTC))
                return execution, view
            self._screen.draw(view, datetime.now(UTC))
            if deadline is not None and timeout is not None and time.monotonic() >= deadline:
                raise StillRunningError(execution, timeout)
            pause = TICK if changed else min(pause * 1.3, _SLOW_TICK)
            time.sleep(pause)
            execution = self._client.get(self._id, nodes=not execution.nodes_omitted and execution.nodes is not None)

    def _refresh(self, view: RunView, execution: Execution) -> bool:
        """Brings the view up to date; whether something happened since the last time."""
        before = self._seen
        self._read_events(view)
        if execution.nodes is not None and not execution.nodes_omitted:
            view.update_summaries(execution.nodes)
        elif not execution.ended:
            # Too many to ask for each time: events tell of every change but the start of an attempt.
            view.update_running(self._client.nodes(self._id, status="RUNNING", limit=_PAGE).items)
        look_inside(self._client, view, execution)
        view.update(execution)
        return self._seen != before

    def _read_events(self, view: RunView) -> None:
        for _ in range(_MOST_PAGES):
            page = self._client.events(self._id, after=self._seen, limit=_PAGE)
            for event in page.items:
                view.apply(event)
                line = event_line(event, self._errors)
                if line is not None and (self._since is None or event.ts > self._since):
                    self._tell(event.node, line)
            if page.items:
                self._seen = page.items[-1].seq
            if len(page.items) < _PAGE:
                return

    def _tell(self, node: str | None, line: str) -> None:
        """Prints what went wrong; of what is inside one container, the first lines only."""
        container = _INSIDE.split(node or "", maxsplit=1)[0]
        if container == (node or ""):
            self._screen.note(line)
            return
        self._told[container] += 1
        if self._told[container] <= _MOST_TOLD:
            self._screen.note(line)
        elif self._told[container] == _MOST_TOLD + 1:
            self._screen.note(f"… and more inside {container}: wf nodes {self._id} --under {container} --status FAILED")


def look(client: Client, execution: Execution) -> RunView:
    """An execution that came with all of its nodes, as it stands now."""
    view = new_view(execution, *outline(client.definition(execution.execution_id)))
    view.update_summaries(execution.nodes or {})
    look_inside(client, view, execution)
    return view


def look_inside(client: Client, view: RunView, execution: Execution) -> None:
    """Takes over what stands open in the first containers that run."""
    for node in view.open_containers()[:_MOST_CONTAINERS]:
        if execution.nodes_omitted and not execution.ended:
            view.update_nodes([client.node(view.execution_id, node.name)])
        page = client.nodes(view.execution_id, under=node.name, status=_OPEN, limit=_MOST_INSIDE)
        view.update_inside(node.name, page.items)


class Outline(NamedTuple):
    """What a document draws: its tasks, the graph, and the kinds of the nodes that are no tasks."""

    tasks: dict[str, str]
    graph: Graph
    kinds: dict[str, str]


def outline(document: Any) -> Outline:
    """The outline of a document's top level; what stands in `finally` comes after everything else."""
    from wf_core.graph import Graph
    from wf_core.plan import compile_plan
    from wf_core.schema.validation import parse_document

    plan = compile_plan(parse_document(document))
    nodes, graph = plan.root.nodes, plan.root.graph
    if plan.final is not None:
        nodes += plan.final.nodes
        after, last = len(graph.names), max(graph.levels, default=-1) + 1
        late = plan.final.graph
        graph = Graph(
            graph.names + late.names,
            graph.upstream + tuple(tuple(at + after for at in them) for them in late.upstream),
            graph.downstream + tuple(tuple(at + after for at in them) for them in late.downstream),
            graph.levels + tuple(level + last for level in late.levels),
            graph.heights + late.heights,
        )
    kinds = {node.id: node.kind for node in nodes if node.kind != "task"}
    return Outline({node.id: node.task or node.kind for node in nodes}, graph, kinds)


def event_line(event: Event, errors: dict[str, str]) -> str | None:
    """A sentence about a retry or a lost worker, None for any other event.

    `errors` keeps each node's last error from the event that told it until the one that says what was decided.
    """
    data: dict[str, Any] = event.data if isinstance(event.data, dict) else {}
    node = event.node or ""
    if event.kind == "node.lost":
        return f"{node}: {_loss(event, data)} → {_after_loss(data)}"
    if event.kind == "node.retrying":
        errors[node] = _told(data)
    elif event.kind == "node.decided":
        what = f"{node}: attempt {event.attempt} failed, {errors.pop(node, 'it said nothing')}"
        delay = data.get("delay_ms")
        then = "gives up" if delay is None else f"tries again in {duration(delay / 1000)}"
        return f"{what} → {then} ({data.get('reason')})"
    return None


def _loss(event: Event, data: dict[str, Any]) -> str:
    who = f"worker {data['worker']}" if data.get("worker") else f"attempt {event.attempt}"
    silent, reason = data.get("silent_ms"), data.get("reason")
    why = f"silent {silent / 1000:.1f} s" if silent else data.get("detail") or _LOSSES.get(str(reason), reason)
    return f"{who} lost ({why})"


def _after_loss(data: dict[str, Any]) -> str:
    lost, limit = data.get("lost") or 0, data.get("limit") or 0
    return f"platform retry {lost}/{limit}" if lost <= limit else f"gives up (all {limit} platform retries are used)"


def _told(data: dict[str, Any]) -> str:
    message = str(data.get("message") or "").strip().split("\n", 1)[0]
    return f"{data.get('type')}: {message}" if message else str(data.get("type"))


def own_error(client: Client, execution: Execution, view: RunView) -> Failure | None:
    """What the node said in which the execution's failure began, where that lies inside a container."""
    if execution.error is None or execution.error.node is None or execution.error.node in view.index:
        return None
    try:
        return client.node(execution.execution_id, execution.error.node).error
    except ApiError:  # a retry has put other nodes in its place
        return None


def failure_lines(
    execution: Execution, view: RunView, hint: Callable[[str], str], own: Failure | None = None
) -> list[str]:
    """What to say about an execution that did not complete: the first failure and where to look.

    `own` is what the failed node itself said, where it lies inside a container: the execution's error is then that of
    the container.
    """
    lines = [f"{execution.name} {execution.status}{_after(execution)}"]
    if (error := execution.error) is None:
        return lines
    if error.node is None:
        return [*lines, f"  {error_line(error)}"]
    at = view.index.get(error.node)
    attempts = error.attempt or 1 if at is None else view.nodes[at].attempts
    times = "1 attempt" if attempts <= 1 else f"{attempts} attempts"
    return [*lines, f"  {error.node} failed after {times}: {error_line(own or error)}", f"  {hint(error.node)}"]


def _after(execution: Execution) -> str:
    if execution.ended_at is None or execution.started_at is None:
        return ""
    return f" after {duration((execution.ended_at - execution.started_at).total_seconds())}"


def output_text(value: Any) -> str:
    """A run's output for stdout."""
    return json.dumps(value, ensure_ascii=False, indent=2)
