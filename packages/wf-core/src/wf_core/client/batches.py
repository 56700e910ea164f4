"""Many executions of one document, as flows: a batch is one request, all or none; more inputs are several batches."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from wf_core import payload
from wf_core.client.definitions import DefinitionOperations
from wf_core.client.flows import Flow, _post, _query, _values
from wf_core.client.models import Batch, Submitted

MOST_INPUTS = 1000
"""Executions of one batch."""
_BATCH_BYTES = 4 * 2**20
"""Bytes of inputs in one batch, below what a server takes in one request; a longer input goes alone."""


class Part(NamedTuple):
    """The inputs of one batch and its idempotency key. `first` is the place of the first among all inputs."""

    first: int
    inputs: list[Any]
    key: str


def parts_of(inputs: Iterable[Any], key: str | None = None) -> Iterator[Part]:
    """The batches that `inputs` make. Under the same `key` the same inputs make the same ones, with the same keys.

    Raises PayloadError for an input that is no JSON.
    """
    base, number, first, size = key or secrets.token_hex(16), 0, 0, 0
    waiting: list[Any] = []
    for value in inputs:
        own = len(payload.encode(value, what="the input"))
        if waiting and (len(waiting) == MOST_INPUTS or size + own > _BATCH_BYTES):
            yield Part(first, waiting, _key_of(base, number))
            number, first, size, waiting = number + 1, first + len(waiting), 0, []
        waiting.append(value)
        size += own
    if waiting:
        yield Part(first, waiting, _key_of(base, number))


def _key_of(base: str, number: int) -> str:
    return base if number == 0 else hashlib.sha256(f"{base} {number}".encode()).hexdigest()


class BatchOperations(DefinitionOperations):
    """All operations."""

    def submit_batch(  # noqa: PLR0913 - the envelope has so many fields, all by name
        self,
        document: Any,
        inputs: Iterable[Any],
        *,
        labels: Mapping[str, str] | None = None,
        trigger: bool = False,
        allow_unknown: bool = False,
        idempotency_key: str | None = None,
    ) -> Flow[Batch]:
        """Creates an execution for each of up to 1,000 inputs, all or none; with `trigger` they start at once.

        `document` are JSON values, a builder, or the name of a registered definition (`name` or `name@version`). Raises
        ApiError 422 with what is wrong with any input, at `/inputs/<its place>`.
        """
        envelope: dict[str, Any] = {"workflow": _values(document), "inputs": list(inputs)}
        if labels:
            envelope["labels"] = dict(labels)
        query = _query(allow_unknown=True if allow_unknown else None, trigger=True if trigger else None)
        return self._ask(_post("/workflow/batch", envelope, key=idempotency_key, query=query), Batch)

    def submit_many(  # noqa: PLR0913 - the envelope has so many fields, all by name
        self,
        document: Any,
        inputs: Iterable[Any],
        *,
        labels: Mapping[str, str] | None = None,
        trigger: bool = False,
        allow_unknown: bool = False,
        idempotency_key: str | None = None,
    ) -> Flow[list[Submitted]]:
        """Creates an execution for each input, in as many batches as it takes: each is all or none, not all together.

        Repeated under the same key with the same inputs it creates what is missing. Raises as `submit_batch`.
        """
        made: list[Submitted] = []
        for part in parts_of(inputs, idempotency_key):
            batch = yield from self.submit_batch(
                document,
                part.inputs,
                labels=labels,
                trigger=trigger,
                allow_unknown=allow_unknown,
                idempotency_key=part.key,
            )
            made += batch.executions
        return made
