"""Which cell is whose: paths of nodes in an execution whose containers have opened scopes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from wf_core.ids import COMPENSATION
from wf_core.states import ScopeState
from wf_core.store.codec import ScopeRecord
from wf_core.store.reads.documents import NodeTable, node_table
from wf_core.suggest import nearest

_KEY = re.compile(rf"(?P<container>.*)(?:\[\d+\]|#\d+|(?P<undo>{COMPENSATION}))", re.DOTALL)
"""Keys of scopes. That of a dynamic node is its path."""
_PASS = re.compile(r"\[(\d+)\]$")
"""How passes of a loop are mistaken for items of a map."""
_LAST = 2**63
"""Where a compensation stands among the scopes of its node: after all items."""

Order = tuple[int, ...]
"""`(index in the body, number of the scope inside it, index in that body, …)`: nodes in depth-first order."""


class Place(NamedTuple):
    """A node and its cell: `at` counts all cells, `local` those of its body; attempts count from `floor`."""

    path: str
    at: int
    table: NodeTable
    local: int
    order: Order
    floor: int = 0

    @property
    def kind(self) -> str:
        """The node's kind."""
        return self.table.kinds[self.local]


class UnknownNodeError(LookupError):
    """The execution has no node at this path, or not at present. `nearest` are known paths that look like it."""

    def __init__(self, path: str, nearest: Sequence[str]) -> None:
        self.path = path
        self.nearest = tuple(nearest)
        super().__init__(f"there is no node {path!r}")


class Layout:
    """The nodes of an execution: those of its document, and those in the scopes that count."""

    def __init__(self, root: NodeTable, scopes: Mapping[str, ScopeRecord]) -> None:
        self.root = root
        self.scopes = {
            key: scope for key, scope in scopes.items() if scope.state is not ScopeState.DORMANT and scope.parent >= 0
        }
        self._bodies: dict[str, NodeTable | None] = {}

    @cached_property
    def _by_parent(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = defaultdict(list)
        for key, scope in self.scopes.items():
            found[scope.parent].append(key)
        for keys in found.values():
            keys.sort(key=self._number)
        return found

    def inside(self, index: int) -> list[str]:
        """Keys of the scopes inside the node with this cell, in order; its compensation comes last."""
        return self._by_parent.get(index, [])

    def items_of(self, index: int) -> list[ScopeRecord]:
        """The items or passes of a container, in order."""
        return [self.scopes[key] for key in self.inside(index) if self._number(key) != _LAST]

    def top(self, index: int) -> Place:
        """The node of the document, or of its `finally`, at this index."""
        return Place(self.root.names[index], index, self.root, index, (index,))

    def outer(self, start: Order = ()) -> Iterator[Place]:
        """The nodes of the top level from `start` on, each followed by its compensation where that has begun."""
        for index in range(start[0] if start else 0, len(self.root.names)):
            place = self.top(index)
            if place.order >= start:
                yield place
            undo = self.find(place.path + COMPENSATION) if index in self.root.undoing else None
            if undo is not None and undo.order >= start:
                yield undo

    @property
    def outer_size(self) -> int:
        """How many places `outer` gives."""
        begun = (self.find(self.root.names[index] + COMPENSATION) for index in self.root.undoing)
        return len(self.root.names) + sum(undo is not None for undo in begun)

    def find(self, path: str) -> Place | None:
        """The node at a path; None when there is none, or not (any more, or yet)."""
        local = self.root.index.get(path)
        if local is not None:
            return self.top(local)
        scope = self.scopes.get(path)
        if scope is not None and not scope.document:
            alone = self.body(path)
            return self._place(path, alone, 0, self._order(path)) if alone and alone.single else None
        key, slash, name = path.rpartition("/")
        table = self.body(key) if slash else None
        local = None if table is None or table.single else table.index.get(name)
        return None if table is None or local is None else self._place(key, table, local, self._order(key))

    def place(self, path: str) -> Place:
        """The node at a path. Raises UnknownNodeError."""
        place = self.find(path)
        if place is None:
            raise UnknownNodeError(path, self._suggestions(path))
        return place

    def described(self, document: Mapping[str, Any], path: str) -> Mapping[str, Any]:
        """What `document`, the execution's own, says about the node at a path; {} when there is none."""
        if path in self.root.index:
            nodes = document["nodes"]
            said: Mapping[str, Any] = nodes[path] if path in nodes else document["finally"][path]
            return said
        if path in self.scopes and not self.scopes[path].document:
            container, undo = self.container_of(path)
            said = self.described(document, container)
            return said.get("compensate", {}) if undo else said
        key, slash, name = path.rpartition("/")
        scope = self.scopes.get(key) if slash else None
        if scope is None:
            return {}
        grown = msgspec.json.decode(scope.document) if scope.document else None
        said = grown if grown is not None else self.described(document, self.container_of(key)[0])
        inner: Mapping[str, Any] = said.get("nodes", {}).get(name, {})
        return inner

    def body(self, key: str) -> NodeTable | None:
        """The nodes inside a scope; None when it does not count."""
        if key not in self._bodies:
            self._bodies[key] = self._read(key)
        return self._bodies[key]

    def walk(self, under: str, start: Order = ()) -> Iterator[Place]:
        """Every node inside a container or a scope, at any depth, depth first, from `start` on.

        Raises UnknownNodeError when there is neither at `under`.
        """
        stack: list[tuple[str, Order] | Place] = [
            (key, self._order(key)) for key in reversed(self._scopes_under(under))
        ]
        while stack:
            item = stack.pop()
            order = item.order if isinstance(item, Place) else item[1]
            if order < start[: len(order)]:
                continue
            if isinstance(item, Place):
                if order >= start:
                    yield item
                stack += [(key, (*order, self._number(key))) for key in reversed(self.inside(item.at))]
            else:
                stack += reversed(self._places(*item))

    def _suggestions(self, path: str) -> list[str]:
        inside = self.body(path)
        if inside is not None:  # an item or a pass: what can be asked about are the nodes in it
            return [f"{path}/{name}" for name in inside.names[:1]]
        key, slash, name = path.rpartition("/")
        if slash and key not in self.scopes and (twin := _PASS.sub(r"#\1", key)) in self.scopes:
            key = twin
        table = self.body(key) if slash else None
        if table is not None and not table.single:
            return [f"{key}/{near}" for near in nearest(name, table.names) or ([name] if name in table.index else [])]
        return nearest(path, [*self.root.names, *self.scopes])

    def _scopes_under(self, under: str) -> Sequence[str]:
        if self.body(under) is not None:
            return [under]
        return self.inside(self.place(under).at)

    def _read(self, key: str) -> NodeTable | None:
        scope = self.scopes.get(key)
        path, undo = self.container_of(key) if scope else ("", False)
        container = self.find(path)
        if scope is None or container is None:
            return None
        if scope.document:
            return node_table(scope.document)
        bodies = container.table.undoing if undo else container.table.inner
        return bodies.get(container.local)

    def container_of(self, key: str) -> tuple[str, bool]:
        """The path of the node that a scope is in, and whether the scope is its compensation."""
        named = None if self.scopes[key].document else _KEY.fullmatch(key)
        return (named["container"], bool(named["undo"])) if named else (key, False)

    def places(self, key: str) -> list[Place]:
        """The nodes directly inside a scope."""
        return self._places(key, self._order(key))

    def _places(self, key: str, order: Order) -> list[Place]:
        table = self.body(key)
        return [self._place(key, table, local, order) for local in range(len(table.names))] if table else []

    def _place(self, key: str, table: NodeTable, local: int, order: Order) -> Place:
        path = key if table.single else f"{key}/{table.names[local]}"
        scope = self.scopes[key]
        return Place(path, scope.base + local, table, local, (*order, local), scope.floor)

    def _order(self, key: str) -> Order:
        container = self.find(self.container_of(key)[0])
        return (*(container.order if container else ()), self._number(key))

    def _number(self, key: str) -> int:
        scope = self.scopes[key]
        return _LAST if key.endswith(COMPENSATION) and not scope.document else scope.number
