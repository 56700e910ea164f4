"""The input that an execution starts with: checked against its document's schema when it is triggered."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from wf_api.intake import Limits, encode_inputs
from wf_api.problems import unavailable
from wf_core import payload, wire
from wf_core.ids import partition_of
from wf_core.schema.inputs import Inputs
from wf_core.store.reads import read_document

if TYPE_CHECKING:
    from wf_api.context import ApiContext
    from wf_api.heads import Head


async def input_at_trigger(context: ApiContext, execution_id: str, head: Head, given: Any) -> bytes | None:
    """JSON of the input that replaces the one of the creation; None when that one stays as it is.

    Raises the problem 422 when the input that it would start with is wrong or lacks something.
    """
    inputs = await _inputs(context, execution_id, head)
    value = payload.decode(head.input) if given is None else given
    limit = context.settings.max_payload_bytes
    (chosen,) = encode_inputs(inputs, [("/input", value)], Limits(limit, limit))
    return None if chosen == head.input else chosen


async def _inputs(context: ApiContext, execution_id: str, head: Head) -> Inputs:
    """What the execution's document takes as input."""
    known = context.inputs.get(head.document)
    if known is None:
        known = Inputs(payload.decode(await document_of(context, execution_id, head)).get("input"))
        context.inputs.put(head.document, known)
    return known


async def document_of(context: ApiContext, execution_id: str, head: Head) -> bytes:
    """The canonical document of an execution, from the store or, while it is not folded, from the accepted command."""
    parts = [record for record in map(wire.decode_event, head.pending) if isinstance(record, wire.Document)]
    if parts:
        return zlib.decompress(b"".join(part.data for part in parts))
    partition = partition_of(execution_id)
    canonical = await read_document(context.redis, context.settings.namespace, partition, head.document)
    if canonical is None:  # Redis was rolled back, and the orchestrator has not read the log again yet
        raise unavailable("The document of this execution is not there yet.", execution_id=execution_id)
    return canonical
