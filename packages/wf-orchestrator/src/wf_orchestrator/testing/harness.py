"""Runs a workflow in this process, step by step: the real machine, a virtual clock, tasks or stubs, faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from wf_core import ids, payload, wire
from wf_core.durations import parse_duration_ms
from wf_core.errors import WfError
from wf_core.plan import rules_of
from wf_core.schema.validation import canonical_bytes, validate_input
from wf_core.states import NodeStatus
from wf_core.tasks import Task
from wf_core.wire import FrozenSettings
from wf_orchestrator.policy_book import PolicyBook
from wf_orchestrator.testing.documents import check_answer, read_document
from wf_orchestrator.testing.faults import Fault, Restart
from wf_orchestrator.testing.listening import Approvals, restart_at
from wf_orchestrator.testing.run import Run, run_of
from wf_orchestrator.testing.stubs import Tasks
from wf_orchestrator.testing.workers import Workers
from wf_orchestrator.testing.world import World

MOST_RECORDS = 100_000
START = datetime(2026, 1, 1, tzinfo=UTC)
"""When the virtual clock begins."""


class CommandRefusedError(WfError):
    """The author of a test must act: the execution's state does not allow a command (409 over REST)."""


class Harness:
    """One execution of a document, with its children, in a world of its own. It has started, save with `trigger=False`.

    document: JSON values, YAML text, the path of a file, or a builder. tasks: task name → `@task` function, or what
    answers in its place: a value, an exception, a function of `(params, ctx)`, `stub(…)`, `answers(…)`; or a list of
    `@task` functions; what is not given is found among the installed packages. nodes: the same by node path, and
    stronger; both name only what documents have (UnknownStubError). signals: name → payload, sent at once. approvals:
    node path → answer, given when it is asked for. definitions: name → document, of `workflow` nodes. slots: attempts
    that run at once. settings: retries and limits that come from `APP_*` variables otherwise. policies: those of the
    installed packages unless given.
    """

    def __init__(  # noqa: PLR0913 - all of it by name, each with a default
        self,
        document: Any,
        *,
        tasks: Mapping[str, Any] | Iterable[Task] | None = None,
        nodes: Mapping[str, Any] | None = None,
        input: Any = None,  # noqa: A002 - the document's own word
        faults: Sequence[Fault | Restart] = (),
        signals: Mapping[str, Any] | None = None,
        approvals: Mapping[str, Any] | None = None,
        definitions: Mapping[str, Any] | None = None,
        slots: int | None = None,
        settings: FrozenSettings | None = None,
        policies: PolicyBook | None = None,
        start: datetime = START,
        most_records: int = MOST_RECORDS,
        trigger: bool = True,
    ) -> None:
        self.document = read_document(document)
        self.execution_id = ids.derived_execution_id(f"test {self.document.name}", 1)
        self._settings = settings or FrozenSettings()
        self.world = World(policies or _installed_policies(), round(start.timestamp() * 1000), most_records)
        attempts = [fault for fault in faults if isinstance(fault, Fault)]
        stubs = Tasks(tasks, nodes)
        self._workers = Workers(self.world, stubs, attempts, slots, self._settings)
        self.world.listeners += [restart_at(self.world, f) for f in faults if isinstance(f, Restart)]
        self.world.listeners.append(Approvals(self.world, self.execution_id, approvals or {}))
        self._commands = 0
        for name, definition in (definitions or {}).items():
            self._define(name, definition)
        self._create(input)
        stubs.check(self.world.plans.values())
        if trigger:
            self.trigger()
        for name, value in (signals or {}).items():
            self.signal(name, value)

    def _define(self, name: str, definition: Any) -> None:
        self.world.definitions[name] = self.world.keep(canonical_bytes(read_document(definition))).hash

    def _create(self, given: Any) -> None:
        plan = self.world.keep(canonical_bytes(self.document))
        created = self._record(
            wire.Created,
            document=plan.hash,
            name=self.document.name,
            version=self.document.version,
            labels=dict(self.document.labels or {}),
            input=self._input(given),
            settings=self._settings,
            rules=rules_of(self.document),
            definitions=dict(self.world.definitions),
        )
        self.world.append(created)

    def trigger(self, input: Any = None) -> None:  # noqa: A002 - the document's own word
        """Starts the execution, with another input if given. Raises CommandRefusedError unless it is PENDING."""
        self._command(wire.Triggered, "trigger", input=None if input is None else self._input(input))

    # -- looking

    @property
    def run(self) -> Run:
        """The execution as it stands now."""
        return run_of(self.world, self.execution_id, self._workers.dispatched, self._workers.is_running)

    @property
    def status(self) -> str:
        """Where the execution stands."""
        return str(self.world.status(self.execution_id))

    @property
    def now(self) -> datetime:
        """The virtual time."""
        return datetime.fromtimestamp(self.world.now_ms / 1000, UTC)

    # -- letting time pass

    def step(self) -> bool:
        """Does the next thing that is due, however far away; whether there was any."""
        due_ms = self.world.agenda.next_due_ms()
        if due_ms is None:
            return False
        self.world.now_ms = max(self.world.now_ms, due_ms)
        self.world.agenda.pop()()
        return True

    def run_until_idle(self) -> Run:
        """Lets time pass until nothing is left to happen by itself: it has ended, or waits for someone."""
        while not self.world.agenda.is_idle():
            self.step()
        return self.run

    def advance(self, duration: str | float = 0) -> Run:
        """Lets so much time pass, with everything that is due in it."""
        until_ms = self.world.now_ms + parse_duration_ms(duration)
        while (due_ms := self.world.agenda.next_due_ms()) is not None and due_ms <= until_ms:
            self.step()
        self.world.now_ms = until_ms
        return self.run

    def at(self, duration: str | float, action: Callable[[Harness], Any]) -> None:
        """Plans `action` for so much later: `harness.at("2h", lambda h: h.cancel())`."""
        self._commands += 1
        due_ms = self.world.now_ms + parse_duration_ms(duration)
        self.world.agenda.set(f"plan {self._commands}", due_ms, lambda: action(self))

    def restart(self) -> None:
        """The orchestrator loses its memory and loads what it had stored."""
        self.world.restart()

    # -- commands

    def signal(self, name: str, value: Any = None) -> None:
        """Sends a signal. Raises CommandRefusedError when the execution has ended."""
        self._command(wire.Signalled, f"signal {name!r}", name=name, payload=payload.encode(value, what="the payload"))

    def approve(self, path: str, answer: Any = None, *, by: str = "test") -> None:
        """Answers the approval at `path`.

        Raises CommandRefusedError when it does not wait for an answer, DocumentError when its schema refuses this one.
        """
        x = self.world.executions[self.execution_id]
        index = x.index_of(path)
        if index is None or x.node(index).kind != "approval" or x.cells[index].status is not NodeStatus.WAITING:
            raise CommandRefusedError(f"approve {path!r} is not possible: only an approval that is WAITING is answered")
        spec: Any = x.node(index).spec
        if spec.schema is not None:
            check_answer(spec.schema, answer)
        encoded = payload.encode(answer, what="the answer")
        self._command(
            wire.Answered, f"approve {path!r}", node=path, attempt=x.cells[index].attempt, answer=encoded, by=by
        )

    def pause(self, reason: str = "") -> None:
        """Starts nothing more. Raises CommandRefusedError unless the execution is RUNNING or PAUSED."""
        self._command(wire.Paused, "pause", reason=reason)

    def resume(self) -> None:
        """Goes on. Raises CommandRefusedError unless the execution is PAUSED."""
        self._command(wire.Resumed, "resume")

    def cancel(self, reason: str = "") -> None:
        """Ends the execution at once. Raises CommandRefusedError when it has ended."""
        self._command(wire.Cancelled, "cancel", reason=reason)

    def retry(self, *, from_: Sequence[str] = (), input: Any = None) -> None:  # noqa: A002 - the document's own word
        """Starts an execution that has ended again: from its failed nodes, or from those of `from_`."""
        encoded = None if input is None else self._input(input)
        self._command(wire.Retried, "retry", nodes=tuple(from_), input=encoded)

    def _input(self, given: Any) -> bytes:
        return payload.encode(validate_input(self.document, given), what="the input")

    def _command(self, kind: type[Any], what: str, **values: Any) -> None:
        command = self._record(kind, **values)
        self.world.append(command)
        x = self.world.executions[self.execution_id]
        if not any(command_id == command.id for command_id, _ in (*x.commands, *x.signalled)):
            raise CommandRefusedError(f"{what} is not possible: the execution is {x.status}")

    def _record(self, kind: type[Any], **values: Any) -> Any:
        self._commands += 1
        return self.world.record(kind, self.execution_id, id=f"command-{self._commands}", **values)


@cache
def _installed_policies() -> PolicyBook:
    """Looking through all installed packages takes longer than a run."""
    return PolicyBook.load()


def run(document: Any, **options: Any) -> Run:
    """Runs a document until nothing is left to happen; see `Harness` for the options.

    What waits for a signal or an answer that nobody gives is returned as it stands.
    """
    return Harness(document, **options).run_until_idle()
