"""The engine as separate processes, started and killed as an operator (or an accident) would."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from wf_testservers.process import Process, free_port

_READY_SECONDS = 30.0
_STOP_SECONDS = 20.0


@dataclass
class EngineProcess:
    """One `wf api`, `wf orchestrator` or `wf worker`."""

    kind: str
    process: Process
    name: str = ""
    port: int = 0
    """Where an API listens, over restarts too."""

    def restart(self) -> None:
        """Starts it again as it was started before. It must have ended."""
        self.process.start(ready=lambda: True)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.running


@dataclass
class Cluster:
    """Processes that share one installation; `environment` holds its APP_* variables."""

    environment: Mapping[str, str]
    directory: Path
    processes: list[EngineProcess] = field(default_factory=list)
    port: int = 0

    def start(self, kind: str, *arguments: str, **environment: str) -> EngineProcess:
        """Starts one service; its log goes to a file in `directory`."""
        port = free_port() if kind == "api" else 0
        if port:
            self.port = port
            arguments = ("--port", str(port), *arguments)
        command = [sys.executable, "-m", "wf_core.cli", kind, *arguments]
        name = f"{kind}-{len(self.processes)}"
        process = Process(command, self.directory / f"{name}.log", {**self.environment, **environment})
        found = EngineProcess(kind, process, name, port)
        found.process.start(ready=lambda: True)  # `ready` below asks the API
        self.processes.append(found)
        return found

    @property
    def url(self) -> str:
        """Where the newest API listens."""
        return f"http://127.0.0.1:{self.port}"

    def of(self, kind: str) -> list[EngineProcess]:
        """The live processes of one kind."""
        return [p for p in self.processes if p.kind == kind and p.alive]

    async def ready(self, *, workers: int, seconds: float = _READY_SECONDS, supervised: bool = False) -> None:
        """Waits until the API is ready and so many workers are live. Raises RuntimeError with the logs when not.

        At once when a process has ended, unless they are `supervised`: somebody starts them again.
        """
        deadline = time.monotonic() + seconds
        async with httpx.AsyncClient(base_url=self.url, timeout=2) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.HTTPError):
                    answer = await client.get("/readyz")
                    live = await client.get("/workers")
                    if answer.status_code == 200 and len(live.json()["items"]) >= workers:
                        return
                if not supervised and any(not p.alive for p in self.processes):
                    break
                await asyncio.sleep(0.05)
        raise RuntimeError(f"the engine was not ready after {seconds:g} s:\n{self.logs()}")

    def logs(self, characters: int = 1500) -> str:
        """The end of each process's log."""
        return "\n".join(f"--- {p.kind} {p.process.pid}\n{p.process.tail(characters)}" for p in self.processes)

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL to what does not leave."""
        for p in self.processes:
            p.process.stop(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


async def wait_for_end(client: httpx.AsyncClient, ids: list[str], seconds: float) -> dict[str, dict[str, Any]]:
    """The ended executions by id. Raises TimeoutError naming those that have not ended."""
    deadline = time.monotonic() + seconds
    ended: dict[str, dict[str, Any]] = {}
    while len(ended) < len(ids):
        for execution_id in ids:
            if execution_id in ended:
                continue
            view = (await client.get(f"/workflows/{execution_id}")).raise_for_status().json()
            if view["status"] in ("COMPLETED", "FAILED", "CANCELLED"):
                ended[execution_id] = view
            elif time.monotonic() > deadline:
                open_ones = [i for i in ids if i not in ended]
                raise TimeoutError(f"{len(open_ones)} of {len(ids)} have not ended, first {open_ones[0]}: {view}")
        await asyncio.sleep(0.1)
    return ended
