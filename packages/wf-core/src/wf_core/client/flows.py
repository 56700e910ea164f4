"""The operations of the client without any I/O.

An operation is a generator: it yields a `Call` and is sent the `Reply` (or the `Lost` that came instead), or it yields
a `Pause`. So the blocking and the awaiting client share everything but the few lines that send, receive and sleep.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from wf_core import payload
from wf_core.client.models import (
    Command,
    DeadLetter,
    Event,
    Execution,
    Node,
    NodeItem,
    Page,
    Results,
    Settled,
    Submitted,
    Summary,
    TaskItem,
    Validation,
    Why,
    Worker,
)
from wf_core.errors import Problem, UnavailableError, WfError

T = TypeVar("T")
Step = "Call | Pause"
Flow = Generator["Call | Pause", "Reply | Lost | None", T]

JSON = "application/json"
MOST_PAGES = 10_000
_MOST_TOLD = 5
_TRY_AGAIN = frozenset({429, 502, 503, 504})
_LONGEST_PAUSE = 10.0


class ApiError(WfError):
    """The caller must act: the server refused. `status` is HTTP's, `slug` the problem's kind, `problems` say where."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        self.slug = str(problem.get("type") or "").rpartition("/")[2]
        self.title = str(problem.get("title") or f"HTTP {status}")
        self.detail = str(problem.get("detail") or self.title)
        listed = problem.get("errors")
        self.problems = tuple(
            Problem(str(e.get("pointer") or ""), str(e.get("code") or ""), str(e.get("detail") or ""))
            for e in (listed if isinstance(listed, list) else [])
            if isinstance(e, Mapping)
        )
        told = self.problems[:_MOST_TOLD] if len(self.problems) > 1 else ()
        super().__init__(" ".join([f"{status} {self.detail}", *(f"{p.pointer or '/'}: {p.detail};" for p in told)]))


class ServerUnreachableError(UnavailableError):
    """The operator must act: no answer came from the server."""

    def __init__(self, server: str, reason: str) -> None:
        self.server = server
        self.reason = reason
        super().__init__(f"no answer from {server}: {reason}")


class BadAnswerError(WfError):
    """The operator must act: whatever answers at this address is no wf API server that this client understands."""


class StillRunningError(WfError):
    """The execution had not ended after the time that the caller gave it. It goes on."""

    def __init__(self, execution: Execution, seconds: float) -> None:
        self.execution = execution
        super().__init__(f"{execution.execution_id} is still {execution.status} after {seconds:g} s")


@dataclass(frozen=True, slots=True)
class Delivery:
    """How hard a client tries: `attempts` per request, `pause` seconds before the second one, then doubling."""

    attempts: int = 4
    pause: float = 0.2

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("a delivery needs at least one attempt")


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `repeatable` says that sending it twice does no harm."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered."""

    status: int
    body: bytes
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer came: `reason` says why. `sent` False: the request never left, so sending it again is always right."""

    server: str
    reason: str
    sent: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


def ask(call: Call, into: type[T], delivery: Delivery) -> Flow[T]:
    """Sends `call`, again where that is safe and may help, and returns its answer as `into`."""
    for attempt in range(1, delivery.attempts + 1):
        reply = yield call
        assert reply is not None  # noqa: S101 - the drivers answer each call
        last = attempt == delivery.attempts
        if isinstance(reply, Lost):
            if last or (reply.sent and not call.repeatable):
                raise ServerUnreachableError(reply.server, reply.reason)
        elif reply.status < 300:  # noqa: PLR2004 - HTTP's bound of success
            return _decode(reply.body, into, call)
        elif last or reply.status not in _TRY_AGAIN or not call.repeatable:
            raise _refusal(reply, call)
        asked = reply.retry_after if isinstance(reply, Reply) else None
        yield Pause(min(asked or delivery.pause * 2 ** (attempt - 1), _LONGEST_PAUSE))
    raise AssertionError("unreachable: the last attempt returns or raises")


def _decode(body: bytes, into: type[T], call: Call) -> T:
    try:
        return msgspec.json.decode(body, type=into, strict=True)
    except msgspec.MsgspecError as error:
        raise BadAnswerError(f"{call.method} {call.path} got an answer of another shape: {error}") from error


def _refusal(reply: Reply, call: Call) -> WfError:
    try:
        problem = msgspec.json.decode(reply.body)
    except msgspec.MsgspecError:
        problem = None
    if isinstance(problem, dict):
        return ApiError(reply.status, problem)
    return ApiError(reply.status, {"title": f"HTTP {reply.status} for {call.method} {call.path}"})


def _at(execution_id: str, *rest: str) -> str:
    return "/".join(("/workflows", *(quote(part, safe="") for part in (execution_id, *rest))))


def _values(document: Any) -> Any:
    """The JSON values of a document, which a builder has too."""
    return document.to_dict() if hasattr(document, "to_dict") else document


def _query(**named: Any) -> dict[str, str]:
    said = {name: value for name, value in named.items() if value is not None}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in said.items()}


def _post(path: str, body: Any, *, key: str | None = None, query: Mapping[str, str] | None = None) -> Call:
    """A POST that is safe to repeat: it always carries an Idempotency-Key."""
    headers = {"Content-Type": JSON, "Idempotency-Key": key or secrets.token_hex(16)}
    return Call("POST", path, query or {}, payload.encode(body, what="the request"), headers)


class Operations:
    """Every operation as a flow; one object per client."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def _ask(self, call: Call, into: type[T]) -> Flow[T]:
        return ask(call, into, self._delivery)

    def submit(  # noqa: PLR0913 - the envelope has so many fields, all by name
        self,
        document: Any,
        *,
        input: Any = None,  # noqa: A002 - the document's own word
        labels: Mapping[str, str] | None = None,
        trigger: bool = False,
        allow_unknown: bool = False,
        idempotency_key: str | None = None,
    ) -> Flow[Submitted]:
        """Creates an execution of `document` (JSON values, or a builder); with `trigger` it starts at once."""
        envelope: dict[str, Any] = {"workflow": _values(document)}
        if input is not None:
            envelope["input"] = input
        if labels:
            envelope["labels"] = dict(labels)
        query = _query(allow_unknown=True if allow_unknown else None, trigger=True if trigger else None)
        return self._ask(_post("/workflow", envelope, key=idempotency_key, query=query), Submitted)

    def trigger(self, execution_id: str, *, input: Any = None) -> Flow[Command]:  # noqa: A002 - the document's own word
        """Starts a PENDING execution; `input`, when given, replaces the envelope's."""
        body = {} if input is None else {"input": input}
        return self._ask(_post(f"/workflow/trigger/{quote(execution_id, safe='')}", body), Command)

    def cancel(self, execution_id: str, *, reason: str = "") -> Flow[Command]:
        """Cancels an execution that has not ended."""
        return self._ask(_post(_at(execution_id, "cancel"), {"reason": reason}), Command)

    def pause(self, execution_id: str, *, reason: str = "") -> Flow[Command]:
        """What runs of an execution finishes, nothing starts until it is resumed."""
        return self._ask(_post(_at(execution_id, "pause"), {"reason": reason}), Command)

    def resume(self, execution_id: str) -> Flow[Command]:
        """A paused execution goes on."""
        return self._ask(_post(_at(execution_id, "resume"), {}), Command)

    def retry(
        self,
        execution_id: str,
        *,
        nodes: Sequence[str] = (),
        input: Any = None,  # noqa: A002 - the document's own word
    ) -> Flow[Command]:
        """An execution that has ended goes on from its failed nodes and from `nodes`, with a new `input` if given."""
        body = {name: value for name, value in (("from", [*nodes] or None), ("input", input)) if value is not None}
        return self._ask(_post(_at(execution_id, "retry"), body), Command)

    def signal(self, execution_id: str, name: str, *, payload: Any = None) -> Flow[Command]:
        """Gives a signal to an execution; one that nobody waits for yet is kept."""
        return self._ask(_post(_at(execution_id, "signals", name), {"payload": payload}), Command)

    def approve(self, execution_id: str, node: str, *, answer: Any = None) -> Flow[Command]:
        """Answers the approval at the path `node`. Raises ApiError 422 when its schema refuses the answer."""
        return self._ask(_post(_at(execution_id, "approvals", node), {"answer": answer}), Command)

    def why(self, execution_id: str, node: str | None = None) -> Flow[Why]:
        """Why an execution, or one of its nodes, is where it is."""
        return self._ask(Call("GET", _at(execution_id, "why"), _query(node=node)), Why)

    def get(self, execution_id: str, *, nodes: bool = True) -> Flow[Execution]:
        """One execution."""
        return self._ask(Call("GET", _at(execution_id), _query(nodes=nodes)), Execution)

    def results(self, execution_id: str) -> Flow[Results]:
        """The outputs of an execution."""
        return self._ask(Call("GET", _at(execution_id, "results")), Results)

    def definition(self, execution_id: str) -> Flow[Any]:
        """The document of an execution."""
        return self._ask(Call("GET", _at(execution_id, "definition")), Any)

    def nodes(  # noqa: PLR0913 - one argument per filter, all by name
        self,
        execution_id: str,
        *,
        under: str | None = None,
        status: str | None = None,
        task: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Flow[Page[NodeItem]]:
        """A page of an execution's nodes: of the top level, or those inside the node or scope `under`."""
        query = _query(under=under, status=status, task=task, cursor=cursor, limit=limit)
        return self._ask(Call("GET", _at(execution_id, "nodes"), query), Page[NodeItem])

    def all_nodes(
        self, execution_id: str, *, under: str | None = None, status: str | None = None, task: str | None = None
    ) -> Flow[list[NodeItem]]:
        """All of these nodes, page by page."""
        found: list[NodeItem] = []
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page = yield from self.nodes(execution_id, under=under, status=status, task=task, cursor=cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    def node(self, execution_id: str, node: str) -> Flow[Node]:
        """One node with its data and attempts."""
        return self._ask(Call("GET", _at(execution_id, "nodes", node)), Node)

    def events(self, execution_id: str, *, after: str | None = None, limit: int | None = None) -> Flow[Page[Event]]:
        """A page of what happened to an execution, after the event `after` (its `seq`)."""
        query = _query(after=after, limit=limit)
        return self._ask(Call("GET", _at(execution_id, "events"), query), Page[Event])

    def list(  # noqa: PLR0913 - one argument per filter, all by name
        self,
        *,
        status: str | None = None,
        name: str | None = None,
        label: str | None = None,
        since: str | None = None,
        q: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Flow[Page[Summary]]:
        """A page of executions, newest first."""
        query = _query(status=status, name=name, label=label, since=since, q=q, cursor=cursor, limit=limit)
        return self._ask(Call("GET", "/workflows", query), Page[Summary])

    def wait(self, execution_id: str, *, timeout: float | None = None, poll: float = 2.0) -> Flow[Execution]:
        """Waits until the execution has ended and returns it.

        `timeout` in seconds, `poll` the longest pause between two looks. Raises StillRunningError after `timeout`.
        """
        waited, pause = 0.0, min(0.05, poll)
        while True:
            execution = yield from self.get(execution_id, nodes=False)
            if execution.ended:
                return (yield from self.get(execution_id))
            if timeout is not None and waited >= timeout:
                raise StillRunningError(execution, timeout)
            pause = pause if timeout is None else min(pause, timeout - waited)
            yield Pause(pause)
            waited += pause
            pause = min(pause * 1.5, poll)

    def run(self, document: Any, *, input: Any = None, timeout: float | None = None) -> Flow[Execution]:  # noqa: A002 - the document's own word
        """Submits, triggers and waits for the end."""
        submitted = yield from self.submit(document, input=input, trigger=True)
        return (yield from self.wait(submitted.execution_id, timeout=timeout))

    def validate(self, document: Any) -> Flow[Validation]:
        """Asks the server to check a document; creates nothing. Raises ApiError with every problem."""
        return self._ask(_post("/workflow/validate", _values(document)), Validation)

    def tasks(self) -> Flow[Sequence[TaskItem]]:
        """What the live workers can run."""
        return self._items("/tasks", TaskItem)

    def workers(self) -> Flow[Sequence[Worker]]:
        """The live workers."""
        return self._items("/workers", Worker)

    def dead_letters(self, *, cursor: str | None = None, limit: int | None = None) -> Flow[Page[DeadLetter]]:
        """A page of the records that nobody could use, newest first."""
        return self._ask(Call("GET", "/dead-letters", _query(cursor=cursor, limit=limit)), Page[DeadLetter])

    def dead_letter(self, dead_letter_id: int) -> Flow[DeadLetter]:
        """One dead letter."""
        return self._ask(Call("GET", f"/dead-letters/{dead_letter_id}"), DeadLetter)

    def send_dead_letter(
        self, dead_letter_id: int, *, record: Mapping[str, Any] | None = None, again: bool = False
    ) -> Flow[Settled]:
        """Sends a dead letter's record, or `record` in its place; `again` although it was dealt with before."""
        body = {} if record is None else {"record": dict(record)}
        query = _query(again=True if again else None)
        return self._ask(_post(f"/dead-letters/{dead_letter_id}/send", body, query=query), Settled)

    def discard_dead_letter(self, dead_letter_id: int) -> Flow[Settled]:
        """Marks a dead letter as of no use."""
        return self._ask(_post(f"/dead-letters/{dead_letter_id}/discard", {}), Settled)

    def _items(self, path: str, into: type[T]) -> Flow[Sequence[T]]:
        page = yield from self._ask(Call("GET", path), Page[into])  # type: ignore[valid-type]
        return page.items

    def ready(self) -> Flow[Any]:
        """Whether the server can take work. Raises ApiError 503 while Redis or the log is away."""
        return self._ask(Call("GET", "/readyz"), Any)
