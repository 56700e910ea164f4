"""What an owner holds in memory of one leased partition. All of it can be thrown away: Redis and the log have it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from wf_core.store.keys import PartitionKeys
from wf_orchestrator.machine.state import PartitionState
from wf_orchestrator.outbox import Outbox
from wf_orchestrator.positions import SentMessages
from wf_orchestrator.timers import Timers
from wf_orchestrator.watch import Watch


@dataclass(slots=True, eq=False)
class Partition:
    """One leased partition. `lock` is held while a batch is folded and written, and while the lease is renewed."""

    number: int
    keys: PartitionKeys
    nonce: str
    incarnation: str
    """Of the log that `offset` belongs to."""
    generation: int
    offset: int
    """The next record to fold; the one that Redis stores, unless an APPLY is under way."""
    catch_up: int
    """The log's end as of the lease: from there on the partition is live."""
    state: PartitionState
    last: str = ""
    """Digest of the record before `offset`; "" when nobody knows it."""
    unchecked: bool = False
    """The record before `offset` was not read again since the lease: it tells whether the log is still the same."""
    live: bool = False
    """Redis knows that this owner has caught up: claims are answered, the outbox is sent."""
    closed: bool = False
    """Let go: whoever still holds this object stops."""
    outbox: Outbox = field(default_factory=Outbox)
    timers: Timers = field(default_factory=Timers)
    watch: Watch = field(default_factory=Watch)
    sent: SentMessages = field(default_factory=SentMessages)
    begun: set[str] = field(default_factory=set)
    """Tokens in flight that their workers began by themselves: no message of theirs is anywhere."""
    begun_known: bool = False
    """Those of earlier owners are among them."""
    documents: set[str] = field(default_factory=set)
    """Hashes of documents that Redis holds whole for this partition."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    flushing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def caught_up(self) -> bool:
        """Whether everything that was in the log at the lease is folded."""
        return self.offset >= self.catch_up

    @property
    def position(self) -> int:
        """Where reading goes on: one record early as long as that one is to be looked at."""
        return self.offset - 1 if self.unchecked else self.offset

    def close(self) -> None:
        """Marks the partition as let go and wakes its outbox task, which ends."""
        self.closed = True
        self.live = False
        self.outbox.wake.set()
