"""Where a node stands inside which body: the insides of containers, as the machine holds them in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wf_core.states import ScopeState
from wf_core.store.codec import ScopeRecord

if TYPE_CHECKING:
    from wf_core.plan import Body, NodePlan
    from wf_core.wire import Failure

ROOT = ""
FINAL = "/finally"
"""Keys of the document's own bodies; no node's path holds them, since no id holds a slash."""
OUTSIDE = -1
"""The parent of the document's own bodies."""


@dataclass(slots=True)
class Scope:
    """One body being run: its nodes' cells lie from `base` on. See `wf_core.store.codec.ScopeRecord`."""

    key: str
    base: int
    body: Body
    parent: int = OUTSIDE
    """Index of the container."""
    number: int = 0
    """Of the item or pass."""
    state: ScopeState = ScopeState.OPEN
    left: int = 0
    """Nodes that have not ended."""
    halting: str = ""
    wanted: bytes = b""
    """One bit a node, while halting: the nodes that are still decided and run."""
    error: Failure | None = None
    """The first failure in it that counts."""
    floor: int = 0
    forgotten: int = 0
    era: int = 0
    keeps: bool = False
    """A container around it may be tried again: the attempts of its nodes stay in memory until then."""
    document: bytes = b""
    held: bool = False
    """Opened again by `retry`: nothing in it starts before its map has a place for it."""
    output: bytes | None = None
    """Of a scope that has ended, while its container needs it."""

    @property
    def end(self) -> int:
        """The index after its last cell."""
        return self.base + len(self.body.nodes)

    @property
    def is_open(self) -> bool:
        """Whether its nodes still count."""
        return self.state is ScopeState.OPEN

    def node(self, index: int) -> NodePlan:
        """What the document says about the node whose cell is `index`."""
        return self.body.nodes[index - self.base]

    def path(self, index: int) -> str:
        """The path of the node whose cell is `index`."""
        if self.body.single:
            return self.key
        node_id = self.body.nodes[index - self.base].id
        return node_id if self.parent == OUTSIDE else f"{self.key}/{node_id}"

    def is_wanted(self, index: int) -> bool:
        """Whether the node may start something new: always, save while halting."""
        if not self.halting:
            return True
        local = index - self.base
        return bool(self.wanted[local >> 3] >> (local & 7) & 1)

    def record(self) -> ScopeRecord:
        """As it is stored."""
        return ScopeRecord(
            base=self.base,
            parent=self.parent,
            number=self.number,
            state=self.state,
            halting=self.halting,
            wanted=self.wanted,
            error=self.error,
            floor=self.floor,
            forgotten=self.forgotten,
            era=self.era,
            document=self.document,
            held=self.held,
        )


@dataclass(slots=True)
class Progress:
    """How far a map is: items in all, opened, open now, failed, and numbers of those that wait for a place again."""

    total: int
    opened: int = 0
    open: int = 0
    failed: int = 0
    held: list[int] = field(default_factory=list)
