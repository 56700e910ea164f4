"""Registered definitions: their versions, newest last, and their documents. DEFINE writes what is read here."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from wf_core.store.keys import InstallationKeys
from wf_core.store.reads.views import moment

MOST_VERSIONS = 1000
"""Of one definition."""


class StoredVersion(msgspec.Struct, frozen=True, array_like=True):
    """One version of a definition: the hash of its document, the document's own `version`, Unix ms of its PUT."""

    hash: str
    version: str | None
    ts: int


class StoredVersions(msgspec.Struct, frozen=True):
    """All versions of a definition, newest last, and the bytes that DEFINE compares; none of a name unknown."""

    items: tuple[StoredVersion, ...] = ()
    packed: bytes = b""

    def find(self, version: str | None) -> StoredVersion | None:
        """The newest version, or the one that `version` names: its document's own `version`, else its hash."""
        if version is None:
            return self.items[-1] if self.items else None
        found = next((item for item in self.items if item.version == version), None)
        return found or next((item for item in self.items if item.hash == version), None)


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a definition."""

    version: str | None
    hash: str
    created_at: datetime | None


class DefinitionSummary(VersionView, frozen=True, kw_only=True):
    """A definition in a list: its newest version, and how many there are."""

    name: str
    versions: int


class DefinitionView(VersionView, frozen=True, kw_only=True):
    """One version of a definition with its document, and all its versions, newest first."""

    name: str
    document: msgspec.Raw
    versions: list[VersionView]


class DefinitionPage(msgspec.Struct, frozen=True, kw_only=True):
    """Definitions by name."""

    items: list[DefinitionSummary]
    next_cursor: str | None


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(tuple[StoredVersion, ...])


def pack_versions(items: Sequence[StoredVersion]) -> bytes:
    """Field `versions` of a definition."""
    return _encode(tuple(items))


def document_field(document_hash: str) -> str:
    """The field that holds a document of a definition."""
    return f"d:{document_hash}"


async def read_versions(redis: Redis, namespace: str, names: Sequence[str]) -> list[StoredVersions]:
    """The versions of each of the definitions. One round trip."""
    keys = InstallationKeys(namespace)
    async with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hget(keys.definition(name), "versions")
        packed: list[bytes | None] = await pipe.execute()
    return [StoredVersions(_decoder.decode(one), one) if one else StoredVersions() for one in packed]


async def read_definition_documents(
    redis: Redis, namespace: str, wanted: Sequence[tuple[str, str]]
) -> list[bytes | None]:
    """The canonical document of each `(name, hash)`; None for one that is not registered (any more). One round trip."""
    keys = InstallationKeys(namespace)
    async with redis.pipeline(transaction=False) as pipe:
        for name, document_hash in wanted:
            pipe.hget(keys.definition(name), document_field(document_hash))
        found: list[bytes | None] = await pipe.execute()
    return [None if data is None else zlib.decompress(data) for data in found]


async def read_definition(redis: Redis, namespace: str, name: str, version: str | None = None) -> DefinitionView | None:
    """A version of a definition, the newest unless `version` names one. Two round trips."""
    (versions,) = await read_versions(redis, namespace, [name])
    found = versions.find(version)
    if found is None:
        return None
    (document,) = await read_definition_documents(redis, namespace, [(name, found.hash)])
    if document is None:  # it was deleted between the two
        return None
    return DefinitionView(
        name=name,
        version=found.version,
        hash=found.hash,
        created_at=moment(found.ts),
        document=msgspec.Raw(document),
        versions=[
            VersionView(version=item.version, hash=item.hash, created_at=moment(item.ts))
            for item in reversed(versions.items)
        ],
    )


async def list_definitions(
    redis: Redis, namespace: str, *, cursor: str | None = None, limit: int = 50
) -> DefinitionPage:
    """A page of definitions by name. `cursor` is the last name that was seen. Two round trips."""
    keys = InstallationKeys(namespace)
    after = "-" if cursor is None else f"({cursor}"
    reply = await cast("Any", redis.zrangebylex(keys.definition_names, after, "+", start=0, num=limit + 1))
    names = [name.decode() for name in reply]
    shown = names[:limit]
    found = await read_versions(redis, namespace, shown)
    items = [
        DefinitionSummary(
            name=name,
            version=newest.version,
            hash=newest.hash,
            created_at=moment(newest.ts),
            versions=len(versions.items),
        )
        for name, versions in zip(shown, found, strict=True)
        if (newest := versions.find(None)) is not None
    ]
    return DefinitionPage(items=items, next_cursor=shown[-1] if len(names) > limit else None)


async def list_names(redis: Redis, namespace: str, most: int) -> list[str]:
    """The first `most` names of definitions, for suggestions."""
    keys = InstallationKeys(namespace)
    reply = await cast("Any", redis.zrangebylex(keys.definition_names, "-", "+", start=0, num=most))
    return [name.decode() for name in reply]
