"""A client that costs next to nothing, for workloads in which the client would otherwise be what is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True)
class Answer:
    """Status and body of a response."""

    status: int
    body: bytes

    def json(self) -> object:
        """The body's value. Raises RuntimeError when the request was refused."""
        if self.status >= 400:  # noqa: PLR2004 - where HTTP's errors begin
            raise RuntimeError(f"HTTP {self.status}: {self.body[:300].decode(errors='replace')}")
        return msgspec.json.decode(self.body)


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    """The bytes of one request."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}", *headers]
    if body:
        lines.append("content-type: application/json")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def ask(port: int, requests: Sequence[bytes], connections: int) -> list[Answer]:
    """Answers in the order of the requests; each connection sends its next one when the last was answered."""
    answers: list[Answer | None] = [None] * len(requests)
    left = iter(enumerate(requests))
    await asyncio.gather(*(_talk(port, left, answers) for _ in range(min(connections, len(requests)))))
    return [answer for answer in answers if answer is not None]


async def _talk(port: int, left: Iterator[tuple[int, bytes]], answers: list[Answer | None]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for number, data in left:
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            answers[number] = Answer(int(head[9:12]), await reader.readexactly(_length(head.split(b"\r\n"))))
    finally:
        writer.close()


def _length(lines: Iterable[bytes]) -> int:
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
