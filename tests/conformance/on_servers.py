"""Runs cases through the API: real orchestrator, real workers, real logs; many at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from conformance.cases import Case, Step
from conformance.in_process import checked
from conformance.seen import NodeSeen, Seen
from wf_core.durations import parse_duration_ms

AT_ONCE = 24
LONGEST_SECONDS = 40.0
"""From the submission of a case to its end."""
_ENDED = ("COMPLETED", "FAILED", "CANCELLED")
_CONTAINERS = ("map", "loop", "dynamic")
_LOOK_SECONDS = 0.05


async def run_cases(url: str, cases: Iterable[Case]) -> dict[str, Seen]:
    """What the engine behind `url` makes of the cases, by id."""
    limit = asyncio.Semaphore(AT_ONCE)
    pool = httpx.Limits(max_connections=2 * AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=pool) as client:
        chosen = list(cases)
        for case in chosen:
            await _register(client, case)

        async def one(case: Case) -> tuple[str, Seen]:
            async with limit:
                return case.id, await _one(client, case)

        return dict(await asyncio.gather(*(one(case) for case in chosen)))


async def _register(client: httpx.AsyncClient, case: Case) -> None:
    for name, versions in case.definitions.items():
        for document in versions:
            answer = await client.put(f"/definitions/{name}", json=document)
            assert answer.status_code in (200, 201), f"{case.id}: {answer.text}"


async def _one(client: httpx.AsyncClient, case: Case) -> Seen:
    try:
        return await _Run(client, case).run()
    except (httpx.HTTPError, AssertionError, KeyError, ValueError) as error:
        return Seen(surprises=[f"{type(error).__name__}: {error}"])


class _Run:
    def __init__(self, client: httpx.AsyncClient, case: Case) -> None:
        self._client = client
        self._case = case
        self._until = time.monotonic() + LONGEST_SECONDS
        self._path = ""
        self._surprises: list[str] = []

    async def run(self) -> Seen:
        before = [await self._earlier(first=n == 0) for n in range(self._case.given.get("before", 0))]
        answer = await self._submit()
        if answer.status_code in (400, 422):
            return Seen(refused=[problem["pointer"] for problem in answer.json()["errors"]])
        assert answer.status_code == 201, answer.text
        execution_id = answer.json()["execution_id"]
        self._path = f"/workflows/{execution_id}"
        early = [step for step in self._case.steps if step.at == "created"]
        await self._take_all(early)
        if self._case.given.get("trigger", True):
            (await self._client.post(f"/workflow/trigger/{execution_id}")).raise_for_status()
        await self._take_all(step for step in self._case.steps if step.at != "created")
        if not await self._comes(self._ended):
            self._surprises.append(f"it has not ended after {LONGEST_SECONDS:g} s")
        seen = await see(self._client, self._path, self._case.expect)
        seen.surprises = self._surprises
        seen.before = [await see(self._client, await _at_rest(self._client, path), {}) for path in before]
        return seen

    async def _earlier(self, *, first: bool) -> str:
        """Starts an execution of the same document; returns once it runs, the first one with its node `a`."""
        answer = (
            await self._client.post("/workflow?trigger=true", json=self._case.given["workflow"])
        ).raise_for_status()
        self._path = f"/workflows/{answer.json()['execution_id']}"
        await self._comes(self._moment({"node": "a", "is": "RUNNING"} if first else {"execution": "RUNNING"}))
        return self._path

    async def _submit(self) -> httpx.Response:
        given = self._case.given
        if "text" in given:
            headers = {"content-type": "application/json"}
            return await self._client.post("/workflow", content=given["text"], headers=headers)
        body = {"workflow": given["workflow"], "input": given["input"]} if "input" in given else given["workflow"]
        return await self._client.post("/workflow", json=body)

    async def _take_all(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if not await self._comes(self._moment(step.at)):
                self._surprises.append(f"the moment never came: {step}")
                return
            await asyncio.sleep(parse_duration_ms(step.after) / 1000 if step.after else 0)
            await self._take(step)

    async def _comes(self, holds: Callable[[], Any]) -> bool:
        """Waits for a moment; false once it can no longer come."""
        while not await holds():
            if time.monotonic() > self._until or await self._ended():
                return bool(await holds())
            await asyncio.sleep(_LOOK_SECONDS)
        return True

    async def _ended(self) -> bool:
        return (await self._view(self._path, nodes="false"))["status"] in _ENDED

    def _moment(self, moment: Any) -> Callable[[], Any]:
        async def holds() -> bool:
            if moment == "created":
                return True
            if moment == "ended":
                return await self._ended()
            if "execution" in moment:
                found = await self._view(self._path, nodes="false")
                return bool(found["status"] == moment["execution"])
            node = await _detail(self._client, self._path, moment.get("node") or moment["child"])
            if node is None or "node" in moment:
                return node is not None and node["status"] == moment["is"]
            child = node["child"]
            return bool(child and (await self._view(f"/workflows/{child['execution_id']}"))["status"] == moment["is"])

        return holds

    async def _take(self, step: Step) -> None:
        if step.verb == "check":
            self._surprises += checked(step, await see(self._client, self._path, {}))
            return
        path, body = _request(step)
        if step.verb == "trigger":
            path = f"/workflow/trigger/{self._path.rpartition('/')[2]}"
        else:
            path = f"{self._path}/{path}"
        answer = await self._client.post(path, json=body)
        if answer.status_code != step.answers:
            text = answer.text[:300]
            self._surprises.append(f"{step} was answered {answer.status_code} {text}, expected {step.answers}")

    async def _view(self, path: str, **params: str) -> dict[str, Any]:
        answer = (await self._client.get(path, params=params)).raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def _request(step: Step) -> tuple[str, dict[str, Any]]:
    given = dict(step.arguments)
    if step.verb == "signal":
        return f"signals/{quote(given['name'], safe='')}", {"payload": given.get("payload")}
    if step.verb == "approve":
        return f"approvals/{quote(given['node'], safe='')}", {"answer": given["answer"]}
    return step.verb, given


async def see(client: httpx.AsyncClient, path: str, expect: Any) -> Seen:
    """The execution at `path` with all its nodes, and those that a case names besides."""
    view = (await client.get(path, params={"nodes": "false"})).raise_for_status().json()
    seen = Seen(view["status"], view["output"], view["error"])
    async for name in _names(client, path):
        await _look(client, path, name, seen)
    for name in _named(expect):
        if name not in seen.nodes:
            await _look(client, path, name, seen)
    return seen


async def _names(client: httpx.AsyncClient, path: str) -> AsyncIterator[str]:
    async for item in _pages(client, path, {}):
        yield item["node"]
        if item["kind"] in _CONTAINERS and item["attempts"]:
            async for inner in _pages(client, path, {"under": item["node"]}):
                yield inner["node"]


async def _pages(client: httpx.AsyncClient, path: str, params: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    cursor: str | None = ""
    while cursor is not None:
        asked = params | ({"cursor": cursor} if cursor else {}) | {"limit": 200}
        answer = await client.get(f"{path}/nodes", params=asked)
        if answer.status_code == 404 and params:  # nothing was opened inside
            return
        page = answer.raise_for_status().json()
        for item in page["items"]:
            yield item
        cursor = page["next_cursor"]


def _named(expect: Any) -> list[str]:
    found = [path for key in ("nodes", "attempts", "outputs") for path in expect.get(key, ())]
    return found + list(expect.get("absent", ()))


async def _look(client: httpx.AsyncClient, path: str, name: str, seen: Seen) -> None:
    node = await _detail(client, path, name)
    if node is None:
        return
    child = node["child"]
    seen.nodes[name] = NodeSeen(
        status=node["status"],
        attempts=node["attempts"],
        output=node["output"],
        error=node["error"],
        started=_ms(node["started_at"]),
        ended=_ms(node["ended_at"]),
        tries=[(_ms(a["started_at"]), _ms(a["ended_at"])) for a in node["history"]],
        child=await _see_child(client, child["execution_id"]) if child else None,
    )
    undone = node.get("compensation")
    if undone and undone["attempts"]:
        await _look(client, path, undone["node"], seen)


async def _see_child(client: httpx.AsyncClient, execution_id: str) -> Seen | None:
    """A child execution; None for one that could not be created."""
    path = f"/workflows/{execution_id}"
    if (await client.get(path, params={"nodes": "false"})).status_code == 404:
        return None
    return await see(client, await _at_rest(client, path), {})


async def _at_rest(client: httpx.AsyncClient, path: str) -> str:
    """An execution that may end a little later than the one that is looked at."""
    for _ in range(100):
        view = (await client.get(path, params={"nodes": "false"})).raise_for_status().json()
        if view["status"] in _ENDED:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    return path


async def _detail(client: httpx.AsyncClient, path: str, name: str) -> dict[str, Any] | None:
    answer = await client.get(f"{path}/nodes/{quote(name, safe='')}")
    if answer.status_code == 404:
        return None
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def _ms(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp() * 1000
