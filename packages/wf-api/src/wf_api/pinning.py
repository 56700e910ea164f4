"""The definitions that a document runs, and that those run: found once, at creation, and pinned by their hashes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wf_api.bounded import ANSWER_SECONDS
from wf_core import payload
from wf_core.definitions import Reference, definitions_in
from wf_core.errors import DocumentError, Problem
from wf_core.graph import find_cycle
from wf_core.store.reads.definitions import (
    StoredVersion,
    StoredVersions,
    list_names,
    read_definition_documents,
    read_versions,
)
from wf_core.suggest import did_you_mean

if TYPE_CHECKING:
    from wf_api.context import ApiContext

UNKNOWN = "unknown_definition"
"""The code of the problem."""
MOST_DEFINITIONS = 500
MOST_BYTES = 16 * 2**20
"""Of the documents that one execution pins, before compression."""
_MOST_NAMES = 2000
_MOST_SHOWN = 10
_MOST_HINTS = 20


@dataclass(frozen=True, slots=True)
class Pinned:
    """What an execution pins: `name` or `name@version` → hash, and hash → canonical document."""

    hashes: Mapping[str, str] = field(default_factory=dict)
    documents: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Own:
    """The definition that is about to be registered: it is looked at as if it already were the newest."""

    name: str
    version: StoredVersion
    canonical: bytes


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a definition is named: under which definition (None: the document itself), and where in the document."""

    user: Reference | None
    pointer: str

    def says(self, what: str) -> str:
        """`what` as a sentence of the document's author."""
        return (
            what if self.user is None else f"the definition {self.user.key!r}, which this node runs, needs it: {what}"
        )


@dataclass(slots=True)
class _Search:
    """What is known so far. `places` has the first place of each reference, in the order of discovery."""

    own: Own | None
    places: dict[Reference, _Place] = field(default_factory=dict)
    found: dict[Reference, StoredVersion] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    names: list[tuple[Reference, Reference]] = field(default_factory=list)
    """Which definition names which."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def root(self) -> Reference | None:
        """The document itself, when it is to become a definition."""
        return None if self.own is None else Reference(self.own.name)

    def look_into(self, user: Reference | None, canonical: bytes) -> list[Reference]:
        """The references in a document that are new. `user` is None for the document that is looked at."""
        fresh = []
        for reference, pointer in _references(canonical).items():
            if (named_by := user or self.root) is not None:
                self.names.append((named_by, reference))
            if reference not in self.places:
                self.places[reference] = _Place(user, pointer if user is None else self.places[user].pointer)
                fresh.append(reference)
        return fresh

    def refuse(self, reference: Reference, code: str, detail: str) -> None:
        """A problem of whoever names `reference`."""
        place = self.places[reference]
        self.problems.append(Problem(place.pointer, code, place.says(detail)))

    @property
    def is_too_large(self) -> bool:
        """Whether there are more definitions, or more bytes in them, than one execution may pin."""
        return len(self.places) > MOST_DEFINITIONS or sum(map(len, self.documents.values())) > MOST_BYTES


async def pin(context: ApiContext, canonical: bytes, *, own: Own | None = None, lenient: bool = False) -> Pinned:
    """The definitions that a canonical document names, with those that they name.

    Raises DocumentError for unknown ones, unless `lenient`, for a definition that contains itself, and for too many.
    """
    search = _Search(own)
    fresh = search.look_into(None, canonical)
    async with asyncio.timeout(ANSWER_SECONDS):
        while fresh:
            fresh = await _next(context, search, fresh)
            if search.is_too_large:
                detail = (
                    f"the definitions that it runs, and those that they run, are more than {MOST_DEFINITIONS} or have "
                    f"more than {MOST_BYTES:,} bytes together; split the workflow"
                )
                raise DocumentError([Problem("", "too_large", detail)])
    problems = [p for p in search.problems if not (lenient and p.code == UNKNOWN)] + _circles(search)
    if problems:
        raise DocumentError(problems)
    return Pinned({reference.key: version.hash for reference, version in search.found.items()}, search.documents)


async def _next(context: ApiContext, search: _Search, wanted: Sequence[Reference]) -> list[Reference]:
    """Finds the `wanted` definitions; those that they name and that nobody looked for yet."""
    redis, namespace = context.redis, context.settings.namespace
    stored = await read_versions(redis, namespace, [reference.name for reference in wanted])
    for reference, versions in zip(wanted, stored, strict=True):
        version = _with(search.own, reference, versions).find(reference.version)
        if version is not None:
            search.found[reference] = version
        else:
            hint = len(search.problems) < _MOST_HINTS
            search.refuse(reference, UNKNOWN, await unknown_sentence(context, reference, versions, hint=hint))
    missing = {
        search.found[reference].hash: reference
        for reference in wanted
        if reference in search.found and search.found[reference].hash not in search.documents
    }
    if search.own is not None and missing.pop(search.own.version.hash, None) is not None:
        search.documents[search.own.version.hash] = search.own.canonical
    pairs = [(reference.name, document_hash) for document_hash, reference in missing.items()]
    for (_, document_hash), document in zip(
        pairs, await read_definition_documents(redis, namespace, pairs), strict=True
    ):
        if document is not None:
            search.documents[document_hash] = document
        else:  # it was deleted between the two reads
            search.refuse(missing[document_hash], UNKNOWN, "it was deleted just now")
    known = [r for r in wanted if r in search.found and search.found[r].hash in search.documents]
    return [new for one in known for new in search.look_into(one, search.documents[search.found[one].hash])]


def _with(own: Own | None, reference: Reference, versions: StoredVersions) -> StoredVersions:
    if own is None or own.name != reference.name:
        return versions
    return StoredVersions((*versions.items, own.version), versions.packed)


async def unknown_sentence(
    context: ApiContext, reference: Reference, versions: StoredVersions, *, hint: bool = True
) -> str:
    """That there is no such definition, or no such version of it, with what there is; `hint`: with the nearest name."""
    if versions.items:
        newest = [item.version or item.hash for item in reversed(versions.items)][:_MOST_SHOWN]
        return f"the definition {reference.name!r} has no version {reference.version!r}; it has {', '.join(newest)}"
    names = await list_names(context.redis, context.settings.namespace, _MOST_NAMES) if hint else []
    near = did_you_mean(reference.name, names) or "; PUT /definitions/{name} registers one"
    return f"no definition {reference.name!r} is registered{near}"


def _circles(search: _Search) -> list[Problem]:
    """The problem that a definition contains itself, through whatever others."""
    listed = list(dict.fromkeys([*([search.root] if search.root else []), *search.places]))
    index_of = {_identity(search, reference): number for number, reference in reversed(list(enumerate(listed)))}
    users: dict[int, set[int]] = {}
    for user, reference in search.names:
        users.setdefault(index_of[_identity(search, reference)], set()).add(index_of[_identity(search, user)])
    circle = find_cycle([reference.key for reference in listed], users)
    if circle is None:
        return []
    pointer = next(place.pointer for reference, place in search.places.items() if reference.key in circle)
    return [Problem(pointer, "cycle", f"a definition contains itself: {' → '.join([*circle, circle[0]])}")]


def _identity(search: _Search, reference: Reference) -> tuple[str, str]:
    """What a reference stands for: `a` and `a@2` may be the same document."""
    if search.own is not None and reference == search.root:
        return reference.name, search.own.version.hash
    version = search.found.get(reference)
    return reference.name, version.hash if version else f"?{reference.version}"


def _references(canonical: bytes) -> Mapping[Reference, str]:
    return definitions_in(payload.decode(canonical)) if b'"workflow"' in canonical else {}
