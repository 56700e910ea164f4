"""The three forms of Redis: one server, a master that Sentinel names, and a cluster; each behaves as one Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from wf_testservers import start_redis
from wf_testservers.redis import wait_until
from wf_testservers.redis_groups import RedisCluster, SentinelGroup, start_redis_cluster, start_sentinel

from wf_core.broker.protocol import OffsetOutOfRangeError, TopicPartition
from wf_core.broker.redis import RedisLog
from wf_core.errors import SetupError, UnavailableError
from wf_core.settings import Settings
from wf_core.store.client import check_redis, connect, describe, redis_errors, wait_for_redis
from wf_core.store.keys import PartitionKeys
from wf_core.store.scripts import Scripts

SPREAD = [f"{{{n}}}" for n in range(40)]
"""Keys on every node of a cluster."""


def settings_for(url: str, **fields: Any) -> Settings:
    return Settings(_env_file=None, redis_url=url, **fields)


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with start_redis_cluster(tmp_path_factory.mktemp("cluster")) as group:
        yield group


@pytest.fixture
async def cluster(group: RedisCluster) -> AsyncIterator[Redis]:
    client = connect(settings_for(group.url))
    yield client
    for node in group.nodes:
        node.ask("FLUSHALL")
    await client.aclose()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[SentinelGroup]:
    with start_sentinel(tmp_path) as watched:
        yield watched


async def first_success(call: Any, seconds: float = 30.0) -> Any:
    """Repeats what fails with one of `redis_errors`, as every service does; any other error fails the test."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await call()
        except redis_errors:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


# ------------------------------------------------------------------------------------------------------------- URLs


async def test_each_form_is_named_by_a_url():
    """User, password, database, TLS and any option of redis-py travel in the URL; the sentinels' own beside."""
    client = connect(settings_for("rediss+sentinel://me:p%40ss@a:1,[::1]:2/main/3?ssl_cert_reqs=none"))
    pool: Any = client.connection_pool
    kwargs = pool.connection_kwargs
    assert (kwargs["username"], kwargs["password"], kwargs["db"], kwargs["ssl_cert_reqs"]) == ("me", "p@ss", 3, "none")
    assert pool.service_name == "main"
    sentinels = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
    assert [(s["host"], s["port"], s["password"]) for s in sentinels] == [("a", 1, "p@ss"), ("::1", 2, "p@ss")]
    client = connect(settings_for("redis+sentinel://me:secret@a:1/main?sentinel_username=&sentinel_password=other"))
    manager = client.connection_pool.sentinel_manager  # type: ignore[attr-defined]
    login = manager.sentinels[0].connection_pool.connection_kwargs
    assert (login["username"], login["password"]) == (None, "other")
    assert "sentinel_password" not in client.connection_pool.connection_kwargs
    connect(settings_for("rediss+cluster://me:secret@a:1,b:2?ssl_cert_reqs=none"))


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a:1",
        "redis+sentinel://a/main",
        "redis+sentinel://a:1/main/x",
        "redis+cluster://a:1/2",
        "redis+other://a:1/main",
        "http://a:1",
        "http+cluster://a:1",
        "unix+sentinel://a:1/main",
    ],
)
async def test_a_url_that_says_nothing_is_refused(url: str):
    """A wrong URL is a wrong setting, said in a sentence."""
    with pytest.raises(SetupError, match="APP_REDIS_URL names no Redis"):
        connect(settings_for(url))


def test_no_password_of_any_form_reaches_a_message():
    """Neither the login nor the options of a URL are shown."""
    url = "redis+sentinel://me:secret@a:1,b:2/main?sentinel_password=secret"
    assert describe(settings_for(url)) == "redis+sentinel://a:1,b:2/main"


# ---------------------------------------------------------------------------------------------------------- cluster


async def test_a_cluster_answers_as_one_redis(cluster: Redis, group: RedisCluster):
    """Commands, pipelines over all nodes, transactions of one slot, SCAN, TIME, INFO and scripts."""
    settings = settings_for(group.url)
    await wait_for_redis(cluster, settings)
    assert await check_redis(cluster) == []
    async with cluster.pipeline(transaction=False) as pipe:
        for n, key in enumerate(SPREAD):
            pipe.set(key, n)
            pipe.get(key)
        assert (await pipe.execute())[1::2] == [str(n).encode() for n in range(len(SPREAD))]
    assert {int(node.ask("DBSIZE")) > 0 for node in group.nodes} == {True}
    async with cluster.pipeline(transaction=True) as pipe:
        pipe.get(SPREAD[7])
        pipe.hgetall(f"h{SPREAD[7]}")
        assert await pipe.execute() == [b"7", {}]
    assert {key.decode() async for key in cluster.scan_iter(match="{*", count=5)} == set(SPREAD)
    assert abs((await cluster.time())[0] - time.time()) < 60
    scripts = Scripts(cluster)
    for partition in range(12):
        assert await scripts.lease(PartitionKeys.of("t", partition), "me", 1000) is not None
    assert await cluster.pipeline(transaction=False).execute() == []


async def test_the_run_id_of_a_cluster_changes_with_any_node(cluster: Redis, group: RedisCluster):
    """Whoever asks whether Redis was started again hears of every node."""
    async with cluster.pipeline(transaction=False) as pipe:
        pipe.get("x")
        pipe.info("server")
        _, before = await pipe.execute()
    await asyncio.to_thread(group.nodes[2].restart)
    await asyncio.to_thread(group.wait)
    after = await first_success(lambda: cluster.info("server"))
    assert set(before["run_id"].split(",")) - set(after["run_id"].split(",")) != set()
    assert len(after["run_id"].split(",")) == 3


async def test_a_slot_that_moved_is_followed(cluster: Redis, group: RedisCluster):
    """MOVED is nobody's error: commands, pipelines and transactions go to the node where the slot is now."""
    slot = key_slot(b"{moving}")
    home = _owner(group, "{moving}")
    first, second = (node for node in group.nodes if node is not home)
    assert await cluster.get("{moving}") is None
    group.move(slot, first)
    assert await cluster.set("{moving}", 1)
    assert first.ask("GET", "{moving}") == "1"
    first.ask("DEL", "{moving}")  # only a slot without keys is handed over so simply
    group.move(slot, second)
    assert await cluster.pipeline(transaction=False).set("{moving}", 2).get("{moving}").execute() == [True, b"2"]
    second.ask("DEL", "{moving}")
    group.move(slot, home)
    assert await cluster.pipeline(transaction=True).get("{moving}").exists("{moving}").execute() == [None, 0]


async def test_a_slot_on_its_way_is_asked_for_at_both_ends(cluster: Redis, group: RedisCluster):
    """While a slot migrates a single key is found where it is; what needs keys of both ends is told to try again."""
    source = _owner(group, "{way}a")
    target = next(node for node in group.nodes if node is not source)
    await cluster.set("{way}stays", 1)
    slot = key_slot(b"{way}a")
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))
    try:
        await cluster.set("{way}moved", 2)  # does not exist at the source
        assert await cluster.get("{way}moved") == b"2"
        assert await cluster.get("{way}stays") == b"1"
        async with cluster.pipeline(transaction=False) as pipe:
            pipe.get("{way}moved").get("{way}stays")
            assert await pipe.execute() == [b"2", b"1"]
        with pytest.raises(redis_errors):
            await cluster.eval("return redis.call('GET', KEYS[2])", 2, "{way}stays", "{way}moved")
        with pytest.raises(redis_errors):
            await cluster.pipeline(transaction=True).get("{way}moved").execute()
    finally:
        source.ask("DEL", "{way}stays")
        group.move(slot, target)
    assert await cluster.get("{way}moved") == b"2"


async def test_a_node_that_is_away_is_an_error_of_its_keys_alone(cluster: Redis, group: RedisCluster):
    """The others answer as long as the cluster lets them; when the node is back everything works, without a restart."""
    await cluster.pipeline(transaction=False).set(SPREAD[0], 0).set(SPREAD[1], 1).execute()
    victim = _owner(group, SPREAD[0])
    elsewhere = next(key for key in SPREAD if _owner(group, key) is not victim)
    await asyncio.to_thread(victim.kill)
    with pytest.raises(redis_errors):
        await cluster.get(SPREAD[0])
    assert await cluster.exists(elsewhere) in (0, 1)
    for call in (cluster.ping, lambda: cluster.pipeline(transaction=False).get(SPREAD[0]).execute()):
        with pytest.raises(redis_errors):
            await call()
    victim.start()
    await asyncio.to_thread(group.wait)
    assert await first_success(lambda: cluster.get(SPREAD[0])) == b"0"
    assert await first_success(cluster.ping)


async def test_a_node_that_hangs_is_an_error_within_bounds(cluster: Redis, group: RedisCluster):
    """A stopped node holds up nobody for long, and a cancel of who waits for it is heard at once."""
    await cluster.ping()
    victim = _owner(group, SPREAD[0])
    victim.process.pause()
    try:
        waiting = asyncio.create_task(cluster.get(SPREAD[0]))
        await asyncio.wait({waiting}, timeout=0.2)
        waiting.cancel()
        done, _ = await asyncio.wait({waiting}, timeout=2)
        assert done
        assert waiting.cancelled()
        async with asyncio.timeout(15):
            with pytest.raises(redis_errors):
                await cluster.get(SPREAD[0])
    finally:
        victim.process.resume()
    await asyncio.to_thread(group.wait)
    assert await first_success(lambda: cluster.exists(SPREAD[0])) == 0


async def test_a_cancel_is_never_lost_in_a_cluster(cluster: Redis):
    """A task that talks to all nodes ends at its first cancel, wherever it stands."""

    async def talk() -> None:
        while True:
            async with cluster.pipeline(transaction=False) as pipe:
                for key in SPREAD[:6]:
                    pipe.get(key)
                await pipe.execute()

    for n in range(60):
        task = asyncio.create_task(talk())
        await asyncio.sleep(0.001 + n / 50_000)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1)
        assert done, f"cancel number {n} was lost"
        assert task.cancelled()


async def test_a_message_reaches_subscribers_at_every_node(cluster: Redis):
    """Whichever node a subscriber is at, it hears what is published."""
    await cluster.ping()
    channels = [cluster.pubsub(ignore_subscribe_messages=True) for _ in range(6)]
    for channel in channels:
        await channel.subscribe("c")
        await channel.get_message(timeout=1.0)
    await cluster.publish("c", "word")
    for channel in channels:
        message = await channel.get_message(timeout=5.0) or await channel.get_message(timeout=5.0)
        assert message is not None
        assert message["data"] == b"word"
        await channel.aclose()


async def test_a_node_of_a_cluster_is_not_taken_for_one_server(group: RedisCluster):
    """A plain URL to a node would answer MOVED for ever: refused at start, naming the form that fits."""
    client = connect(settings_for(group.nodes[0].url))
    with pytest.raises(SetupError, match=r"redis\+cluster://"):
        await check_redis(client)
    await client.aclose()


async def test_one_server_is_not_taken_for_a_cluster(tmp_path: Path):
    """A cluster's URL to a plain server is refused at start."""
    with start_redis(tmp_path) as server:
        settings = settings_for(f"redis+cluster://{server.host}:{server.port}")
        client = connect(settings)
        with pytest.raises(SetupError, match="cluster support disabled"):
            await wait_for_redis(client, settings)
        await client.aclose()


async def test_a_cluster_is_found_through_any_seed(group: RedisCluster):
    """Seeds that are away are passed over; none at all is an error that is waited out within bounds."""
    settings = settings_for(f"redis+cluster://127.0.0.1:1,127.0.0.1:{group.nodes[1].port}")
    client = connect(settings)
    await wait_for_redis(client, settings)
    await client.aclose()


async def test_every_master_of_a_cluster_is_judged(cluster: Redis, group: RedisCluster):
    """One node that would evict or forget is enough to refuse."""
    group.nodes[1].ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(SetupError, match="noeviction"):
            await check_redis(cluster)
    finally:
        group.nodes[1].ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_the_redis_log_spreads_over_a_cluster(cluster: Redis, group: RedisCluster, namespace: str):
    """Appends to partitions on all nodes keep their order; a reader of all of them misses nothing and waits bounded."""
    log = RedisLog(settings_for(group.url, namespace=namespace), cluster)
    await log.start()
    sources = [TopicPartition(f"{namespace}.events", n) for n in range(8)]
    await log.ensure_topics({f"{namespace}.events": 8})
    reader = log.reader()
    reader.assign(dict.fromkeys(sources, 0))
    assert await reader.read(0.05) == []
    waiting = asyncio.create_task(reader.read(10))
    offsets = await asyncio.gather(*(log.append(source, [b"a", b"b"]) for source in sources))
    assert offsets == [[0, 1]] * len(sources)
    found = {batch.source: list(batch.records) for batch in await waiting}
    while len(found) < len(sources):
        found |= {batch.source: list(batch.records) for batch in await reader.read(5)}
    assert found == {source: [b"a", b"b"] for source in sources}
    await log.trim(sources[3], 2)
    assert (await log.begin(sources[3]), await log.end(sources[3])) == (2, 2)
    reader.assign({sources[3]: 1, sources[4]: 2})
    with pytest.raises(OffsetOutOfRangeError):
        await reader.read(0.05)
    await reader.close()
    await log.close()


# --------------------------------------------------------------------------------------------------------- Sentinel


async def test_a_failover_is_followed(watched: SentinelGroup, namespace: str):
    """After the master was killed the same client, log and reader go on with the replica that was promoted."""
    settings = settings_for(watched.url, namespace=namespace)
    client = connect(settings)
    await wait_for_redis(client, settings)
    assert await check_redis(client) == []
    scripts, keys = Scripts(client), PartitionKeys.of(namespace, 0)
    log, source = RedisLog(settings, client), TopicPartition(f"{namespace}.events", 0)
    await log.start()
    await log.append(source, [b"before"])
    reader = log.reader()
    reader.assign({source: 0})
    assert [list(batch.records) for batch in await reader.read(5)] == [[b"before"]]
    assert await scripts.lease(keys, "me", 60_000) is not None
    await asyncio.gather(*(client.get("x") for _ in range(10)))
    await client.wait(1, 5000)
    await asyncio.to_thread(watched.kill_master)
    assert await first_success(lambda: scripts.lease(keys, "another", 60_000)) is None
    assert await first_success(lambda: client.set("x", "y"))
    assert await log.append(source, [b"after"]) == [1]
    assert [list(batch.records) for batch in await reader.read(5)] == [[b"after"]]
    await reader.close()
    await log.close()
    await client.aclose()


async def test_a_master_that_became_a_replica_is_left(watched: SentinelGroup):
    """READONLY, from a command or from within a script, closes the connection: the next attempt finds the master."""
    client = connect(settings_for(watched.url))
    scripts, keys = Scripts(client), PartitionKeys.of("t", 0)
    assert await scripts.lease(keys, "me", 60_000) is not None
    old = watched.master()
    watched.sentinels[0].fail_over()
    await asyncio.to_thread(wait_until, lambda: watched.master() is not old, "other master")
    await asyncio.to_thread(wait_until, lambda: old.role() == "slave", "demoted master")
    assert await first_success(lambda: scripts.lease(keys, "me", 60_000)) is not None
    assert await first_success(lambda: client.set("x", "y"))
    assert watched.master().ask("GET", "x") == "y"
    await client.aclose()


async def test_a_master_that_hangs_is_left(watched: SentinelGroup):
    """A master that is stopped, connections open: calls end within bounds, and the new master is found."""
    client = connect(settings_for(watched.url))
    await client.set("x", "y")
    old = watched.master()
    old.process.pause()
    try:
        await asyncio.to_thread(wait_until, lambda: watched.master() is not old, "other master")
        async with asyncio.timeout(20):
            assert await first_success(lambda: client.set("x", "z"))
        assert watched.master().ask("GET", "x") == "z"
    finally:
        old.process.resume()
    await client.aclose()


async def test_sentinels_that_know_no_master_are_waited_for(watched: SentinelGroup):
    """An unknown service is no hang: bounded, and an error that names what was asked."""
    settings = settings_for(watched.url.replace("/wf", "/other"), connect_seconds=0.5)
    client = connect(settings)
    with pytest.raises(UnavailableError, match="No master found for 'other'"):
        await wait_for_redis(client, settings)
    await client.aclose()


def _owner(group: RedisCluster, key: str) -> Any:
    """The node that serves a key's slot."""
    slot = key_slot(key.encode())
    for first, last, master, *_ in group.nodes[0].ask("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            return next(node for node in group.nodes if node.port == master[1])
    raise AssertionError(slot)
