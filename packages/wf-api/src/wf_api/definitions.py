"""Registered definitions: named documents of which every version is kept. They live in Redis only, not in the log."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from wf_api.bounded import ANSWER_SECONDS
from wf_api.envelope import Envelope
from wf_api.intake import checked, problems_in
from wf_api.pinning import UNKNOWN, Own, pin, unknown_sentence
from wf_api.problems import ProblemError, of_document, unavailable
from wf_core.definitions import Reference, wrong_name
from wf_core.errors import DocumentError, Problem
from wf_core.store.keys import InstallationKeys
from wf_core.store.reads.definitions import (
    MOST_VERSIONS,
    DefinitionView,
    StoredVersion,
    StoredVersions,
    pack_versions,
    read_definition,
    read_versions,
)

if TYPE_CHECKING:
    from wf_api.body import Body
    from wf_api.context import ApiContext

_TRIES = 20
"""Of a change while others change the same definition."""


class Change(NamedTuple):
    """What a definition becomes, and the document that is added to it, or dropped where there are no bytes."""

    versions: tuple[StoredVersion, ...]
    document_hash: str
    document: bytes = b""


class Registered(NamedTuple):
    """A definition was registered. `is_new` False: this document was the newest already."""

    version: StoredVersion
    is_new: bool


async def register(context: ApiContext, name: str, body: Body, *, allow_unknown: bool) -> Registered:
    """Makes the document in `body` the newest version of the definition `name`.

    `allow_unknown` accepts tasks, policies and definitions that are not known yet. Raises the problems 400 and 422 with
    all that is wrong, 409 when the document's `version` is registered with another document, and 503.
    """
    envelope = Envelope(await context.compute(len(body.data), body.load))
    with problems_in(body, ""):
        taken = await checked(context, envelope, len(body.data), allow_unknown=allow_unknown)
        _check_name(name, taken.read.document.name)
        version = StoredVersion(taken.read.hash, taken.read.document.version, context.clock.now_ms())
        await pin(context, taken.read.canonical, own=Own(name, version, taken.read.canonical), lenient=allow_unknown)
    packed = await asyncio.to_thread(zlib.compress, taken.read.canonical)
    before = await _change(context, name, lambda known: _added(name, known, version, packed))
    newest = before.find(None)
    if newest is not None and newest.hash == version.hash:
        return Registered(newest, is_new=False)
    return Registered(version, is_new=True)


async def remove(context: ApiContext, name: str, version: str | None) -> int:
    """Removes a definition, or only the `version` of it that is given; the number of versions that are gone.

    Executions keep the documents that they were created with. Raises the problems 404 and 503.
    """
    before = await _change(context, name, lambda known: _removed(name, known, version))
    return len(before.items) if version is None else 1


async def definition(
    context: ApiContext, reference: Reference, *, name_at: str | None, version_at: str = ""
) -> DefinitionView:
    """A registered definition. `name_at` and `version_at` point to where a body names it and its version.

    Raises the problem 422 where the body names what is not there, else 404.
    """
    redis, namespace = context.redis, context.settings.namespace
    async with asyncio.timeout(ANSWER_SECONDS):
        found = await read_definition(redis, namespace, reference.name, reference.version)
        if found is not None:
            return found
        (versions,) = await read_versions(redis, namespace, [reference.name])
        detail = _sentence(await unknown_sentence(context, reference, versions))
    pointer = (version_at or name_at) if versions.items else name_at
    if pointer is None:
        raise ProblemError("unknown-definition", detail)
    raise of_document(DocumentError([Problem(pointer, UNKNOWN, detail)]))


async def _change(context: ApiContext, name: str, change: Callable[[StoredVersions], Change | None]) -> StoredVersions:
    """Changes a definition, again and again until nobody else did so meanwhile; the versions that were there before."""
    keys = InstallationKeys(context.settings.namespace)
    async with asyncio.timeout(ANSWER_SECONDS):
        for _ in range(_TRIES):
            (known,) = await read_versions(context.redis, context.settings.namespace, [name])
            wanted = change(known)
            if wanted is None:
                return known
            versions = pack_versions(wanted.versions) if wanted.versions else b""
            if await context.scripts.define(
                keys, name, known.packed, versions, document_hash=wanted.document_hash, document=wanted.document
            ):
                return known
    raise unavailable("Others change this definition all the time; try again.")


def _added(name: str, known: StoredVersions, version: StoredVersion, packed: bytes) -> Change | None:
    newest = known.find(None)
    if newest is not None and newest.hash == version.hash:
        return None
    others = tuple(item for item in known.items if item.hash != version.hash)
    if version.version is not None and any(item.version == version.version for item in others):
        detail = f"Version {version.version!r} of {name!r} is registered with another document; give this one another."
        raise ProblemError("version-taken", detail)
    if len(others) >= MOST_VERSIONS:
        detail = f"{name!r} has {MOST_VERSIONS:,} versions, the most that are kept; delete those that nobody needs."
        raise ProblemError("version-taken", detail)
    return Change((*others, version), version.hash, packed)


def _removed(name: str, known: StoredVersions, version: str | None) -> Change:
    gone = known.find(version)
    if gone is None:
        what = "definition has this name" if version is None or not known.items else f"version of {name!r} is this"
        raise ProblemError("unknown-definition", f"No {what}; GET /definitions lists what is registered.")
    left = () if version is None else tuple(item for item in known.items if item.hash != gone.hash)
    return Change(left, gone.hash)


def _check_name(name: str, document_name: str) -> None:
    """Raises DocumentError for a name that no definition may have, and for a document of another name."""
    problem = wrong_name(name)
    if problem is not None:
        raise DocumentError([Problem("/name", "bad_text", problem)])
    if document_name != name:
        detail = f"the document is registered under its name: PUT it to /definitions/ followed by {document_name!r}"
        raise DocumentError([Problem("/name", "other_name", detail)])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith("?") else ".")
