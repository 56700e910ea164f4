"""Compiled plans by document hash, shared by all partitions: a document is compiled once, not once per execution."""

from __future__ import annotations

import asyncio
import zlib
from collections import OrderedDict
from collections.abc import Mapping

import msgspec
import structlog

from wf_core.errors import WfError
from wf_core.plan import Plan, load_plan

log = structlog.get_logger(__name__)

MOST_NODES = 500_000
"""Nodes of all plans that are kept; one plan is kept however large it is."""
_IN_THREAD = 256 * 1024
"""Documents longer than this are compiled beside the event loop, so that leases are renewed meanwhile."""
_LONGEST = 512 * 2**20
"""A decompressed document that is longer is none that the API let in."""


class Plans:
    """An LRU of plans."""

    def __init__(self, most_nodes: int = MOST_NODES) -> None:
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._nodes = 0
        self._most_nodes = most_nodes

    def get(self, document_hash: str) -> Plan | None:
        """The plan, if it is here."""
        plan = self._plans.get(document_hash)
        if plan is not None:
            self._plans.move_to_end(document_hash)
        return plan

    async def compile(self, document_hash: str, parts: Mapping[int, bytes]) -> Plan | None:
        """The plan of a compressed document's parts; None (logged) when they hold no document."""
        data = b"".join(parts[part] for part in sorted(parts))
        try:
            if len(data) > _IN_THREAD:
                plan = await asyncio.to_thread(_load, data, document_hash)
            else:
                plan = _load(data, document_hash)
        except (WfError, ValueError, KeyError, msgspec.MsgspecError, zlib.error) as error:
            log.error("a document does not compile", document=document_hash, error=str(error))
            return None
        self._keep(document_hash, plan)
        return plan

    def _keep(self, document_hash: str, plan: Plan) -> None:
        if document_hash not in self._plans:
            self._plans[document_hash] = plan
            self._nodes += len(plan.nodes)
        while self._nodes > self._most_nodes and len(self._plans) > 1:
            _, dropped = self._plans.popitem(last=False)
            self._nodes -= len(dropped.nodes)


def decompress(data: bytes) -> bytes:
    """The canonical JSON of a document's joined parts. Raises ValueError when it is longer than any that was let in."""
    stream = zlib.decompressobj()
    canonical = stream.decompress(data, _LONGEST)
    if stream.unconsumed_tail:
        raise ValueError(f"the document is longer than {_LONGEST:,} bytes")
    return canonical


def _load(data: bytes, document_hash: str) -> Plan:
    return load_plan(decompress(data), document_hash)
