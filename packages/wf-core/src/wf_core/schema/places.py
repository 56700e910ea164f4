"""Bodies as expressions see them: which nodes can be named from where, and the edges that naming them makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Reader = int | None
"""Index of the node that names another one; None: nobody waits for what is named, such as an output."""


@dataclass(slots=True)
class Place:
    """A body, seen from inside: its nodes, then those of the body around it, and so on outward."""

    index_of: Mapping[str, int]
    outer: Place | None = None
    container: Reader = None
    """Index in `outer` of the node that holds this body; it waits for what is named in here. None: nothing waits."""
    upstream: dict[int, set[int]] = field(default_factory=dict)
    """For each node those that it waits for."""
    read: set[int] = field(default_factory=set)
    """Nodes whose output or error is read."""

    def find(self, node_id: str, reader: Reader) -> tuple[Place, int, Reader] | None:
        """The body that holds a node, its index there, and which node of that body waits for it when `reader` names it.

        None when no body from here outward has a node of that id.
        """
        place: Place | None = self
        while place is not None:
            index = place.index_of.get(node_id)
            if index is not None:
                return place, index, reader
            reader = place.container
            place = place.outer
        return None

    def wait(self, waiting: Reader, index: int) -> None:
        """Adds the edge by which `waiting` comes after `index`; a node that names itself makes none."""
        if waiting is not None and waiting != index:
            self.upstream.setdefault(waiting, set()).add(index)

    def use(self, node_id: str, part: str, reader: Reader) -> None:
        """Notes that `reader` names `nodes.<node_id>.<part>`. Unknown ids are passed over."""
        found = self.find(node_id, reader)
        if found is None:
            return
        place, index, waiting = found
        place.wait(waiting, index)
        if part != "status":
            place.read.add(index)

    def name(self, index: int) -> str:
        """The id of one of its nodes. Looks through them all: for messages only."""
        return next(node_id for node_id, at in self.index_of.items() if at == index)

    def visible(self) -> list[str]:
        """The ids that can be named from here."""
        ids: list[str] = []
        place: Place | None = self
        while place is not None:
            ids += place.index_of
            place = place.outer
        return ids
