"""Twice is once: what an `Idempotency-Key` makes of ids, and how two requests are told apart."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wf_api.problems import ProblemError
from wf_core.ids import derived_execution_ids, new_execution_id

HEADER = "Idempotency-Key"
_KEY = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The key of a request, or None when it has none. It lasts as long as the executions that it made."""

    key: str | None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Idempotency:
        """The key in the headers. Raises the problem 400 when it is no text of 1 to 255 visible ASCII characters."""
        key = headers.get(HEADER)
        if key is not None and not _KEY.fullmatch(key):
            raise ProblemError("bad-request", f"{HEADER} takes 1 to 255 visible ASCII characters.")
        return cls(key)

    def execution_ids(self, partitions: int, now_ms: int, count: int) -> tuple[str, ...]:
        """The ids of `count` executions, in one partition after the other: always the same for a key, else new ones."""
        if self.key is not None:
            return derived_execution_ids(self.key, partitions, count)
        first = uuid.uuid4().int % partitions
        return tuple(new_execution_id((first + index) % partitions, now_ms) for index in range(count))

    def command_id(self, execution_id: str, verb: str) -> str:
        """The command's id, by which an execution knows copies of it."""
        if self.key is None:
            return uuid.uuid4().hex
        return _hash(f"{execution_id}/{verb}/{self.key}".encode())


def request_hash(verb: str, *parts: Any) -> str:
    """A hash of what a request asks for. `parts` are JSON values that were checked, so spacing does not count."""
    return _hash(json.dumps([verb, *parts], sort_keys=True, separators=(",", ":")).encode())


def conflict() -> ProblemError:
    """409: the key came with another body before."""
    detail = f"This {HEADER} was used for another request, of other contents; send this one under another {HEADER}."
    return ProblemError("idempotency-conflict", detail)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
