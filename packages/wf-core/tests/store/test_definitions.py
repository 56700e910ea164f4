"""DEFINE, one test an answer, and the reads of what it wrote."""

from __future__ import annotations

import zlib

import pytest
from redis.asyncio import Redis

from wf_core.store import reads
from wf_core.store.keys import InstallationKeys
from wf_core.store.reads.definitions import (
    StoredVersion,
    StoredVersions,
    pack_versions,
    read_definition_documents,
    read_versions,
)
from wf_core.store.scripts import Scripts

ONE = StoredVersion("h1", "1", 1_800_000_000_000)
TWO = StoredVersion("h2", None, 1_800_000_001_000)


@pytest.fixture
def install(namespace: str) -> InstallationKeys:
    return InstallationKeys(namespace)


async def define(
    scripts: Scripts, keys: InstallationKeys, name: str, *versions: StoredVersion, known: bytes = b""
) -> bool:
    """Registers the versions, of which the last one is new; its document is its hash in JSON."""
    newest = versions[-1].hash
    document = zlib.compress(f'"{newest}"'.encode())
    return await scripts.define(keys, name, known, pack_versions(versions), document_hash=newest, document=document)


async def test_one_registers(scripts: Scripts, install: InstallationKeys, namespace: str, redis: Redis) -> None:
    """1: the versions and the document are there, and the name is listed."""
    assert await define(scripts, install, "pair", ONE)
    (found,) = await read_versions(redis, namespace, ["pair"])
    assert found.items == (ONE,)
    assert await define(scripts, install, "pair", ONE, TWO, known=found.packed)
    view = await reads.read_definition(redis, namespace, "pair")
    assert view is not None
    assert (view.version, view.hash, bytes(view.document)) == (None, "h2", b'"h2"')
    assert [version.hash for version in view.versions] == ["h2", "h1"]


async def test_one_again_after_a_lost_reply(scripts: Scripts, install: InstallationKeys) -> None:
    """1 again for the very same call: the reply to the first was lost."""
    assert await define(scripts, install, "pair", ONE)
    assert await define(scripts, install, "pair", ONE)


async def test_zero_when_others_were_faster(
    scripts: Scripts, install: InstallationKeys, namespace: str, redis: Redis
) -> None:
    """0: the versions are not those that were read; nothing is written."""
    assert await define(scripts, install, "pair", ONE)
    assert not await define(scripts, install, "pair", TWO)
    (found,) = await read_versions(redis, namespace, ["pair"])
    assert found.items == (ONE,)
    assert await read_definition_documents(redis, namespace, [("pair", "h2")]) == [None]


async def test_removal(scripts: Scripts, install: InstallationKeys, namespace: str, redis: Redis) -> None:
    """Without a document that one is dropped; without versions the whole definition, with its name."""
    await define(scripts, install, "pair", ONE)
    both = pack_versions([ONE, TWO])
    await define(scripts, install, "pair", ONE, TWO, known=pack_versions([ONE]))
    assert await scripts.define(install, "pair", both, pack_versions([TWO]), document_hash="h1")
    assert await read_definition_documents(redis, namespace, [("pair", "h1"), ("pair", "h2")]) == [None, b'"h2"']
    assert await scripts.define(install, "pair", pack_versions([TWO]), b"", document_hash="h2")
    assert not await redis.exists(install.definition("pair"), install.definition_names)
    assert await scripts.define(install, "pair", pack_versions([TWO]), b"", document_hash="h2"), "a lost reply"


def test_a_version_is_named_by_its_own_name_first() -> None:
    """`version` is the document's own, else a hash; none is the newest."""
    odd = StoredVersion("h3", "h1", 1)
    versions = StoredVersions((ONE, TWO, odd))
    assert versions.find(None) is odd
    assert versions.find("1") is ONE
    assert versions.find("h2") is TWO
    assert versions.find("h1") is odd
    assert versions.find("9") is None
    assert StoredVersions().find(None) is None


async def test_list(scripts: Scripts, install: InstallationKeys, namespace: str, redis: Redis) -> None:
    """By name, in pages; a definition that is removed between two pages is left out, and nothing is seen twice."""
    for name in ("b", "a", "c", "d"):
        await define(scripts, install, name, ONE)
    page = await reads.list_definitions(redis, namespace, limit=2)
    assert [item.name for item in page.items] == ["a", "b"]
    await scripts.define(install, "c", pack_versions([ONE]), b"", document_hash="h1")
    page = await reads.list_definitions(redis, namespace, limit=2, cursor=page.next_cursor)
    assert [item.name for item in page.items] == ["d"]
    assert page.next_cursor is None
    assert await reads.read_definition(redis, namespace, "c") is None
