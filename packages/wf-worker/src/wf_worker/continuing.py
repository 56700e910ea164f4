"""Continuations: a node that its worker begins by itself, as soon as the log has the result of the one before it.

No dispatch, no claim: the result names the node, and the fold that accepts it takes the node over as in flight and
claimed by this worker. Until then the token is *undecided*: Redis does not know it, and that is no reason to cancel it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from wf_core import ids
from wf_core.catalogue import Catalogue
from wf_core.continuing import next_of
from wf_core.states import AttemptStatus
from wf_core.wire import Begin, TaskMessage
from wf_worker.attempts import Attempt, AttemptRunner, Ended
from wf_worker.lanes import Lanes
from wf_worker.reports import Reports

YIELD_MS = 100
"""A tail that has run for so long leaves its slot to anyone who waits."""
_NEVER = float("-inf")
_MOST_BYTES = 512 * 1024
"""Of an output and the parameters of the node after it, which travel in one record."""
_MOST_STOPPED = 10_000
"""Executions that are remembered as stopped. One that is forgotten is told of again by the next fold."""


@dataclass(slots=True, eq=False)
class Begun:
    """A node that was begun here. `before` is the token of the attempt whose result begins it."""

    token: str
    message: TaskMessage
    begin: Begin
    before: str


class Continuing:
    """Runs attempts by `runner`, and goes on with their tails. Implements `AttemptRunner` itself.

    A node that was begun and waits for the log holds its slot, and counts as running. `may_begin` tells, by when this
    worker was last heard to hold an attempt, whether nobody can have given that up; `leaving` tells that it drains.
    `start(token, message, heard)` begins an attempt. `on_end` and `on_free` hear of those that were begun and never
    started.
    """

    def __init__(  # noqa: PLR0913 - the parts that it connects
        self,
        runner: AttemptRunner,
        reports: Reports,
        lanes: Lanes,
        now_ms: Callable[[], int],
        may_begin: Callable[[float], bool],
        leaving: Callable[[], bool],
        start: Callable[[str, TaskMessage, float], None],
        on_end: Callable[[Attempt, Ended], None],
        on_free: Callable[[], None],
    ) -> None:
        self._runner = runner
        self._reports = reports
        self._lanes = lanes
        self._now_ms = now_ms
        self._may_begin = may_begin
        self._leaving = leaving
        self._start = start
        self._on_end = on_end
        self._on_free = on_free
        self._undecided: dict[str, Begun] = {}
        """Begun here, and not known to be in flight; waiting, running or ended."""
        self._waiting: dict[str, Begun] = {}
        """Those of them that have not started."""
        self._heard: dict[str, float] = {}
        """When the claim or the last heartbeat was sent that named it and was answered, of what runs or waits."""
        self._since: dict[str, int] = {}
        """When the tail of what was begun here began."""
        self._stopped: dict[str, int] = {}
        """Executions of which nothing is to be begun here after what had started by then, in Unix ms."""
        self._started = asyncio.Event()
        self._started.set()

    # --- beginning

    def next_after(self, attempt: Attempt, ended: Ended) -> Begun | None:
        """What this worker begins now that an attempt ended; its slot is kept until `settle` says what becomes of it.

        None: the fold decides what comes next, as always.
        """
        since, heard = self._since.pop(attempt.token, attempt.started_at), self._heard.pop(attempt.token, _NEVER)
        message = attempt.message
        if message.then is None or ended.status is not AttemptStatus.COMPLETED:
            return None
        if self._leaving() or not self._may_begin(heard) or not self._comes_first(message, since):
            return None
        if attempt.started_at <= self._stopped.get(message.execution, 0):
            return None
        output = ended.output or b"null"
        if (found := next_of(message, output)) is None:
            return None
        following, begin = found
        if following.task not in self.catalogue.tasks or len(output) + len(begin.params) > _MOST_BYTES:
            return None
        name = ids.token(following.execution, following.node, following.attempt)
        begun = self._undecided[name] = self._waiting[name] = Begun(name, following, begin, attempt.token)
        self._since[name], self._heard[name] = since, heard
        self._started.clear()
        return begun

    def settle(self, begun: Begun, *, begins: bool) -> None:
        """The log has the result that begins it; or, without `begins`, has it only without that.

        A worker that was not heard lately may have been given up. Then, and when the attempt before it is not wanted
        any more, only a heartbeat that finds the node in flight starts it.
        """
        if self._waiting.get(begun.token) is not begun:
            return
        if not begins:
            self._drop(begun)
            self._on_free()
        elif self._may_begin(self._heard[begun.token]) and self._reports.holds(begun.before):
            self._go(begun)

    def undecided(self) -> dict[str, str]:
        """Tokens that were begun here and are not known to be in flight, each with the token before it."""
        for name in [name for name in self._undecided if not (self.runs(name) or self._reports.holds(name))]:
            del self._undecided[name]
        return {name: begun.before for name, begun in self._undecided.items()}

    def decided(self, tokens: Iterable[str]) -> None:
        """A heartbeat found these in flight and this worker's own: they are as any other."""
        for name in tokens:
            self._undecided.pop(name, None)
            if (begun := self._waiting.get(name)) is not None:
                self._go(begun)

    def stop_tails(self, execution: str) -> None:
        """An execution is paused or halts: what runs of it ends, and nothing is begun after it."""
        self._stopped[execution] = self._now_ms()
        while len(self._stopped) > _MOST_STOPPED:
            del self._stopped[next(iter(self._stopped))]

    def heard(self, tokens: Iterable[str], asked: float) -> None:
        """A heartbeat that was sent at `asked` named these, and was answered."""
        for name in tokens:
            if name in self._heard:
                self._heard[name] = asked

    def _comes_first(self, message: TaskMessage, since: int) -> bool:
        highest = self._lanes.highest(asyncio.get_running_loop().time())
        return highest is None or (highest <= message.priority and self._now_ms() - since < YIELD_MS)

    def _go(self, begun: Begun) -> None:
        self._leave(begun)
        self._start(begun.token, begun.message, self._heard[begun.token])

    def _drop(self, begun: Begun) -> None:
        self._leave(begun)
        for known in (self._undecided, self._since, self._heard):
            known.pop(begun.token, None)

    def _leave(self, begun: Begun) -> None:
        del self._waiting[begun.token]
        if not self._waiting:
            self._started.set()

    # --- as what runs attempts

    @property
    def catalogue(self) -> Catalogue:
        """What can run here."""
        return self._runner.catalogue

    @property
    def slots(self) -> int:
        """How many attempts run at once."""
        return self._runner.slots

    @property
    def free(self) -> int:
        """Slots that nothing holds."""
        return self._runner.free - len(self._waiting)

    def running(self) -> list[str]:
        """Tokens whose end was not reported yet."""
        return [*self._runner.running(), *self._waiting]

    def runs(self, token: str) -> bool:
        """Whether the end of this token was not reported yet."""
        return token in self._waiting or self._runner.runs(token)

    def progress(self) -> dict[str, bytes]:
        """The newest progress in JSON bytes, by token, of what runs and gave any."""
        return self._runner.progress()

    def run(self, token: str, message: TaskMessage, heard: float = _NEVER) -> None:
        """Begins an attempt; the caller saw a free slot. `heard`: when what made it this worker's own was asked."""
        self._heard[token] = heard
        self._runner.run(token, message)

    def cancel(self, token: str) -> bool:
        """Ends an attempt that is not wanted any more; one that waits never starts. False when it does not run here."""
        self._undecided.pop(token, None)
        if (begun := self._waiting.get(token)) is not None:
            self._drop(begun)
            self._on_free()
            return True
        return self._runner.cancel(token)

    async def idle(self) -> None:
        """Returns when every attempt was reported."""
        while self.running():
            await self._runner.idle()
            await self._started.wait()

    def hand_back(self) -> None:
        """Ends what still runs, and what waits."""
        for begun in list(self._waiting.values()):
            self._leave(begun)
            message = begun.message
            attempt = Attempt(-1, begun.token, message, "async", "", message.timeout_ms, self._now_ms())
            self._on_end(attempt, Ended(AttemptStatus.LOST, reason="drain"))
        self._runner.hand_back()
