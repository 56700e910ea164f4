"""Why an execution or a node is where it is: a sentence for each cause. Pure: what is known comes in whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from wf_core.states import ExecutionStatus, NodeStatus, ScopeState
from wf_core.store.codec import AttemptRecord, unpack_attempts
from wf_core.store.reads.layout import Place
from wf_core.store.reads.nodes import is_open
from wf_core.store.reads.why import waits
from wf_core.store.reads.why.known import Known, QueueState, Sentences, few, told
from wf_core.store.reads.why.survey import BAD, Survey


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One cause: what kind of cause it is, the node that it is about (None: the execution), and the sentence."""

    code: str
    node: str | None = None
    sentence: str


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: where the execution stands, which node was asked about, and the causes, nearest first."""

    execution_id: str
    status: ExecutionStatus
    node: str | None
    causes: list[Reason]


def explain(known: Known, nodes: Sequence[Place], asked: Place | None) -> Why:
    """The sentences about the execution (where nobody asked about one node) and about these nodes."""
    snapshot = known.survey.snapshot
    overall = [Reason(code=code, sentence=sentence) for code, sentence in _of_execution(known, asked)]
    each = [
        Reason(code=code, node=place.path, sentence=sentence)
        for place in nodes
        for code, sentence in _NODE[known.survey.status(place)](known, place)
    ]
    about_to = Reason(code="about_to_start", sentence="Nothing is waited for: what follows is about to be decided.")
    return Why(
        execution_id=snapshot.execution_id,
        status=snapshot.execution.status,
        node=asked.path if asked else None,
        causes=[*overall, *each] or [about_to],
    )


def _of_execution(known: Known, asked: Place | None) -> Sentences:
    execution = known.survey.snapshot.execution
    if asked is None or execution.status in (ExecutionStatus.PENDING, ExecutionStatus.PAUSED):
        yield from _EXECUTION[execution.status](known)
    if known.hold is not None:
        held = f"it is held by {few(known.hold.holders)}" if known.hold.holders else "its holder is being asked"
        yield "concurrency", f"The execution waits for the concurrency key {known.hold.key!r}; {held}."
    if asked is None and execution.ending:
        yield "ending", f"The execution will be {execution.ending}; its compensations and `finally` run before that."
    elif asked is None and execution.halting and execution.status is ExecutionStatus.RUNNING:
        yield "halting", f"The execution failed and starts only clean-up: {told(execution.error)}."


def _untriggered(_known: Known) -> Sentences:
    yield "not_triggered", "The execution was never triggered: `wf trigger` or POST /workflow/trigger starts it."


def _running(_known: Known) -> Sentences:
    yield from ()


def _paused(known: Known) -> Sentences:
    event = known.event("execution.paused")
    reason = f", {event.data['reason']!r}" if event and event.data.get("reason") else ""
    since = f" {known.since(event.ts)}" if event else ""
    yield "paused", f"The execution is paused{since}{reason}: nothing starts until it is resumed."


def _completed(_known: Known) -> Sentences:
    yield "completed", "The execution has completed."


def _failed(known: Known) -> Sentences:
    error = known.survey.snapshot.execution.error
    where, own = "", None
    if error and error.node:
        where = f" at {error.node!r}, attempt {error.attempt}"
        history = unpack_attempts(known.fields.get(f"a:{error.node}"))
        own = next((one.error for one in history if one.attempt == error.attempt), None)
    yield "failed", f"The execution failed{where}: {told(own or error)}."


def _cancelled(known: Known) -> Sentences:
    event = known.event("execution.cancelling", "execution.retried")
    error = known.survey.snapshot.execution.error
    if event is not None and event.kind == "execution.cancelling":
        reason = event.data.get("reason")
    else:  # nobody has asked for it since the last retry
        reason = told(error) if error else ""
    yield "cancelled", f"The execution was cancelled{f': {reason}' if reason else ''}."


_EXECUTION: dict[ExecutionStatus, Callable[[Known], Sentences]] = {
    ExecutionStatus.PENDING: _untriggered,
    ExecutionStatus.RUNNING: _running,
    ExecutionStatus.PAUSED: _paused,
    ExecutionStatus.COMPLETED: _completed,
    ExecutionStatus.FAILED: _failed,
    ExecutionStatus.CANCELLED: _cancelled,
}


def _pending(known: Known, place: Place) -> Sentences:
    survey = known.survey
    waits = [f"{one.path} ({survey.status(one)})" for one in survey.upstream(place)
             if not survey.status(one).is_terminal]  # fmt: skip
    if waits:
        yield "upstream", f"{place.path} waits for {few(waits)} to end."
    elif survey.in_finally(place):
        yield "finally", f"{place.path} stands in `finally`: it starts when everything else has ended."
    elif survey.snapshot.execution.status is ExecutionStatus.RUNNING and known.hold is None:
        yield "about_to_start", f"Nothing keeps {place.path} from starting: it is about to be decided."


def _queued(known: Known, place: Place) -> Sentences:
    task, queue = place.table.tasks[place.local], place.table.queues[place.local]
    state = known.queues.get(queue, QueueState(0))
    able = [(worker, free) for worker, free, tasks in state.workers if task in tasks]
    depth = f"{state.depth} attempt{'' if state.depth == 1 else 's'} in it"
    if not state.workers:
        yield "no_worker", f"{place.path} is in the queue {queue!r} ({depth}), which no live worker takes from."
    elif not able:
        some = few([worker for worker, *_ in state.workers])
        lack = f"which no live worker of the queue {queue!r} has ({some})"
        yield "no_worker", f"{place.path} needs the task {task!r}, {lack}."
    elif not any(free for _, free in able):
        some = few([worker for worker, _ in able])
        yield "queue_full", f"{place.path} is in the queue {queue!r} ({depth}): all slots of {some} are taken."
    else:
        yield "queued", f"{place.path} is in the queue {queue!r} ({depth}) and about to be taken."


def _runs(known: Known, place: Place) -> Sentences:
    _, attempt, _, since = known.survey.snapshot.cell(place)
    claim = known.survey.snapshot.claim(place.path, attempt)
    who = f" on {claim.worker}" if claim else ""
    said = f"; it reported {claim.progress.decode()[:100]}" if claim and claim.progress else ""
    yield "running", f"{place.path} runs{who} {known.since(since)}, attempt {attempt - place.floor}{said}."


def _retrying(known: Known, place: Place) -> Sentences:
    due, last = known.due("retry", place), _last(known, place)
    why = f": attempt {last.attempt} failed with {told(last.error)}" if last else ""
    rule = f"; {last.reason}" if last and last.reason else ""
    when = f"is tried again {known.when(due)}" if due is not None else "failed, and its retry policy is being asked"
    yield "retrying", f"{place.path} {when}{why}{rule}."


def _failure(known: Known, place: Place) -> Sentences:
    last, survey = _last(known, place), known.survey
    attempts = survey.snapshot.cell(place)[1] - place.floor
    times = f" after {attempts} attempts" if attempts > 1 else ""
    child = _child(known, place)
    inner = f" in its child execution {child} (`wf why {child}`)" if child else ""
    reason = f" ({last.reason})" if last and last.reason else ""
    failed = [scope for scope in survey.layout.items_of(place.at) if scope.state is ScopeState.FAILED]
    began = next((scope.error.node for scope in failed if scope.error and scope.error.node), None)
    where = f", which began at {began}" if began and began != place.path else ""
    yield "failed", f"{place.path} failed{times}{inner}{where}: {told(last.error if last else None)}{reason}."


def _skip(known: Known, place: Place) -> Sentences:
    survey, event = known.survey, known.event("node.skipped", node=place.path)
    planned = survey.planned(place.path)
    if event is not None and event.data.get("reason"):
        yield "skipped", f"{place.path} was skipped: {event.data['reason']}."
        return
    switches = [planned.body.nodes[at].id for at in planned.node.switches] if planned else []
    chose = [name for name in switches if (one := survey.sibling(place, name)) and _is_done(survey, one)]
    skipped = [one.path for one in survey.upstream(place) if survey.status(one) is NodeStatus.SKIPPED]
    if planned is not None and planned.node.join == "caught":
        caught = few([planned.body.nodes[at].id for at in planned.node.catchers])
        yield "not_caught", f"{place.path} was skipped: it runs only when a failure of {caught} is caught by it."
    elif chose:
        yield "switch", f"{place.path} was skipped: the switch {few(chose)} did not choose it."
    elif skipped:
        yield "upstream_skipped", f"{place.path} was skipped, since {few(skipped)} was skipped before it."
    elif planned is not None and planned.node.when is not None:
        yield "guard", f"{place.path} was skipped: its guard `when` ({planned.node.when.text}) did not hold."
    else:
        yield "skipped", f"{place.path} was skipped: its join rule said no, or an `end` came first."


def _upstream_failed(known: Known, place: Place) -> Sentences:
    survey = known.survey
    broken = [f"{one.path} ({survey.status(one)})" for one in survey.upstream(place) if survey.status(one) in BAD]
    planned = survey.planned(place.path)
    rule = f"; its join is {planned.node.join}" if planned and isinstance(planned.node.join, str) else ""
    yield "upstream_failed", f"{place.path} can never start because of {few(broken) or 'a failure before it'}{rule}."


def _dropped(known: Known, place: Place) -> Sentences:
    event, last = known.event("node.cancelled", node=place.path), _last(known, place)
    reason = event.data.get("reason") if event else last.reason if last else ""
    if not reason:
        error = known.survey.snapshot.execution.error
        reason = f"the execution stopped after {told(error)}" if error else "the execution was cancelled"
    yield "cancelled", f"{place.path} was cancelled: {reason}."


def _done(known: Known, place: Place) -> Sentences:
    cached = known.event("node.cached", node=place.path)
    yield "completed", f"{place.path} has completed{' with an output from the cache' if cached else ''}."


def _waiting(known: Known, place: Place) -> Sentences:
    if is_open(place, known.survey.snapshot.cell(place), known.attempts(place)):
        yield from waits.of_open(known, place)
    else:
        yield from waits.of_held(known, place)


_NODE: dict[NodeStatus, Callable[[Known, Place], Sentences]] = {
    NodeStatus.PENDING: _pending,
    NodeStatus.QUEUED: _queued,
    NodeStatus.RUNNING: _runs,
    NodeStatus.RETRYING: _retrying,
    NodeStatus.WAITING: _waiting,
    NodeStatus.COMPLETED: _done,
    NodeStatus.FAILED: _failure,
    NodeStatus.CANCELLED: _dropped,
    NodeStatus.SKIPPED: _skip,
    NodeStatus.UPSTREAM_FAILED: _upstream_failed,
}


def _is_done(survey: Survey, place: Place) -> bool:
    return survey.status(place) is NodeStatus.COMPLETED


def _last(known: Known, place: Place) -> AttemptRecord | None:
    return next(reversed(known.attempts(place)), None)


def _child(known: Known, place: Place) -> str | None:
    data = known.fields.get(f"ch:{place.path}")
    return msgspec.json.decode(data, type=str) if data else None
