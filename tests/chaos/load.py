"""The load: executions submitted at a steady rate, each command repeated under its key until it is answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from chaos.journal import Journal
from chaos.shapes import Shape, choose

RECENT_SECONDS = 15.0
"""A truncated file may have forgotten what was acknowledged so shortly before."""
_PAUSE_SECONDS = 0.3
_GIVE_UP_SECONDS = 240.0
_LATEST_ANSWER_SECONDS = 5.0
"""The API answers at latest so long after it accepted, when nobody applies what the log has."""
_AT_ONCE = 8


@dataclass(eq=False)
class Execution:
    """One execution as its client sees it. Times are Unix seconds of the acknowledgement, None before it."""

    number: int
    shape: Shape
    apart: bool
    """Created first, triggered later."""
    cancel_after: float | None
    id: str = ""
    created: float | None = None
    triggered: float | None = None
    cancelled: float | None = None
    surely_cancelled: bool = False
    """The answer said that it is CANCELLED, not only that it will be unless it ends before."""
    signal_pause: float = 0.0
    """Seconds before each signal of its shape."""
    signalled: dict[str, float] = field(default_factory=dict)
    """When each signal was acknowledged."""
    tries: int = 0

    @property
    def acknowledged(self) -> float:
        """The latest acknowledgement; 0 before the first."""
        return max(self.created or 0, self.triggered or 0, self.cancelled or 0, *self.signalled.values())


@dataclass
class Load:
    """A client of all APIs; `executions` are those that were begun, acknowledged or not."""

    urls: Sequence[str]
    journal: Journal
    chance: random.Random
    run_id: str
    executions: list[Execution] = field(default_factory=list)
    forgotten: dict[str, float] = field(default_factory=dict)
    """Executions that a truncated file forgot, and the seconds between acknowledgement and truncation."""
    forgetful: bool = False
    """A file with state and log was truncated: what was created may be gone when the next command comes."""

    def __post_init__(self) -> None:
        self.client = httpx.AsyncClient(timeout=10, limits=httpx.Limits(max_connections=200))

    async def run(self, count: int, seconds: float) -> None:
        """Submits `count` executions over `seconds`; returns when each command was answered."""
        times = sorted(self.chance.uniform(0, seconds) for _ in range(count))
        start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number, due in enumerate(times):
                await asyncio.sleep(max(0.0, start + due - time.monotonic()))
                cancelled = self.chance.random() < 0.06
                found = Execution(
                    number,
                    choose(self.chance),
                    apart=self.chance.random() < 0.15,
                    cancel_after=self.chance.uniform(0, 3) if cancelled else None,
                    signal_pause=self.chance.uniform(0, 2),
                )
                self.executions.append(found)
                group.create_task(self._live(found))

    async def _live(self, x: Execution) -> None:
        await self.create(x)
        if x.apart:
            await asyncio.sleep(0.2)
            await self.trigger(x)
        for name in x.shape.signals:
            await asyncio.sleep(x.signal_pause)
            await self.signal(x, name)
        if x.cancel_after is not None:
            await asyncio.sleep(x.cancel_after)
            await self.cancel(x)

    async def create(self, x: Execution) -> None:
        """Creates the execution, and starts it unless that comes apart. May be repeated."""
        trigger = "false" if x.apart else "true"
        body = {"workflow": x.shape.document, "labels": {"n": str(x.number)}}
        answer = await self._send(x, f"/workflow?trigger={trigger}", "create", body)
        if answer is not None and answer.status_code == 201:
            found = str(answer.json()["execution_id"])
            if x.id and found != x.id:
                self.journal.violation(f"execution {x.number} got the id {found}, it had {x.id}")
            x.id = found
            x.created = time.time()
        else:
            self._refused(x, "create", answer)

    async def trigger(self, x: Execution) -> None:
        """Starts an execution that was created apart. May be repeated."""
        answer = await self._command(x, f"/workflow/trigger/{x.id}", "trigger", {})
        if answer is not None and answer.status_code in (200, 202):
            x.triggered = time.time()
        else:
            self._refused(x, "trigger", answer)

    async def cancel(self, x: Execution) -> None:
        """Asks to cancel the execution. May be repeated."""
        answer = await self._command(x, f"/workflows/{x.id}/cancel", "cancel", {"reason": "chaos"})
        if answer is not None and answer.status_code in (200, 202):
            x.cancelled = time.time()
            x.surely_cancelled = answer.status_code == 200
        elif answer is None or answer.status_code != 409:  # 409: it had ended
            self._refused(x, "cancel", answer)

    async def signal(self, x: Execution, name: str) -> None:
        """Sends a signal to the execution. May be repeated."""
        answer = await self._command(x, f"/workflows/{x.id}/signals/{name}", f"signal-{name}", {"payload": name})
        if answer is not None and answer.status_code in (200, 202):
            x.signalled[name] = time.time()
        elif answer is None or answer.status_code != 409:  # 409: it had ended
            self._refused(x, f"signal {name}", answer)

    async def repeat_recent(self, truncated_at: float) -> None:
        """After a truncation of the one file that holds state and log: what it may have forgotten is sent again."""
        await asyncio.sleep(_LATEST_ANSWER_SECONDS)  # answers to what was accepted before
        recent = [x for x in self.executions if x.created and x.acknowledged > truncated_at - RECENT_SECONDS]
        gate = asyncio.Semaphore(_AT_ONCE)

        async def repeat(x: Execution) -> None:
            async with gate:
                created, triggered, cancelled = x.created or 0, x.triggered, x.cancelled
                signalled = tuple(x.signalled)
                answer = await self._ask("GET", f"/workflows/{x.id}", until=time.monotonic() + 60)
                if answer is not None and answer.status_code == 404:
                    self.forgotten[x.id] = truncated_at - created
                await self.create(x)
                if triggered is not None:
                    await self.trigger(x)
                for name in signalled:
                    await self.signal(x, name)
                if cancelled is not None:
                    await self.cancel(x)

        await asyncio.gather(*(repeat(x) for x in recent))

    async def get(self, path: str, **params: Any) -> Any:
        """The JSON behind a path, asked for until an API gives it. Raises LookupError for 404, TimeoutError."""
        answer = await self._ask("GET", path, until=time.monotonic() + 60, params=params)
        if answer is None:
            raise TimeoutError(f"no API answered GET {path}")
        if answer.status_code == 404:
            raise LookupError(path)
        return answer.raise_for_status().json()

    async def close(self) -> None:
        """Closes the connections."""
        await self.client.aclose()

    async def _command(self, x: Execution, path: str, verb: str, body: Any) -> httpx.Response | None:
        """Sends a command to an execution, which is created again when a truncated file forgot it meanwhile."""
        answer = await self._send(x, path, verb, body)
        if answer is not None and answer.status_code == 404 and self.forgetful:
            await self.create(x)
            answer = await self._send(x, path, verb, body)
        return answer

    async def _send(self, x: Execution, path: str, verb: str, body: Any) -> httpx.Response | None:
        headers = {"Idempotency-Key": f"{self.run_id}-{x.number}-{verb}"}
        until = time.monotonic() + _GIVE_UP_SECONDS
        return await self._ask("POST", path, until=until, x=x, headers=headers, json=body)

    async def _ask(
        self, method: str, path: str, *, until: float, x: Execution | None = None, **request: Any
    ) -> httpx.Response | None:
        """The first answer that is none of 5xx; None when there is none until then."""
        turn = self.chance.randrange(len(self.urls))
        while time.monotonic() < until:
            turn += 1
            if x is not None:
                x.tries += 1
            try:
                answer = await self.client.request(method, self.urls[turn % len(self.urls)] + path, **request)
            except httpx.TransportError as error:
                self.journal.note(f"API: {type(error).__name__}")
            else:
                if answer.status_code < 500:
                    return answer
                self.journal.note(f"API: {answer.status_code}")
                if answer.status_code != 503:
                    self.journal.violation(f"{method} {path} was answered {answer.status_code}: {answer.text}")
            await asyncio.sleep(_PAUSE_SECONDS)
        return None

    def _refused(self, x: Execution, verb: str, answer: httpx.Response | None) -> None:
        what = "never answered" if answer is None else f"answered {answer.status_code}: {answer.text}"
        self.journal.violation(f"execution {x.number} ({x.shape.name}, {x.id or 'no id'}): {verb} was {what}")
