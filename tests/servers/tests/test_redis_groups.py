"""Redis servers that stand for one another: a replica that is promoted, Sentinel, a cluster."""

from __future__ import annotations

from pathlib import Path

from wf_testservers import start_redis, start_redis_cluster, start_replica, start_sentinel
from wf_testservers.redis import wait_until


def test_a_replica_has_what_its_master_has_and_takes_over_by_hand(tmp_path: Path):
    """A replica follows; promoted it takes writes."""
    with start_redis(tmp_path / "master") as master, start_replica(master, tmp_path / "replica") as replica:
        master.ask("SET", "key", "value")
        wait_until(replica.in_sync, "replica in sync")
        assert (master.role(), replica.role()) == ("master", "slave")
        assert replica.ask("GET", "key") == "value"
        master.kill()
        assert master.role() == ""
        replica.promote()
        assert replica.ask("SET", "key", "other")


def test_sentinel_promotes_a_replica_of_a_killed_master_and_keeps_the_old_one(tmp_path: Path):
    """SIGKILL of the master: a replica is the master; the old one comes back as a replica of it."""
    with start_sentinel(tmp_path, sentinels=3) as watched:
        old = watched.master()
        new = watched.kill_master()
        assert new is watched.servers[1]
        assert new.ask("SET", "key", "value")
        old.start()
        wait_until(lambda: old.role() == "slave" and old.in_sync(), "old master as a replica")
        assert old.ask("GET", "key") == "value"


def test_a_cluster_serves_every_slot_and_gets_well_again(tmp_path: Path):
    """Three masters share the slots; one that was killed comes back with its data."""
    with start_redis_cluster(tmp_path) as cluster:
        assert [int(node.ask("INFO", "cluster")["cluster_enabled"]) for node in cluster.nodes] == [1, 1, 1]
        home = next(node for node in cluster.nodes if node.ask("CLUSTER", "MYID") in _owner(cluster.nodes[0], "key"))
        home.ask("SET", "key", "value")
        home.kill()
        home.start()
        cluster.wait()
        assert home.ask("GET", "key") == "value"


def _owner(node, key: str) -> str:
    """The id of the node that serves a key."""
    slot = node.ask("CLUSTER", "KEYSLOT", key)
    return next(m[2] for first, last, m, *_ in node.ask("CLUSTER", "SLOTS") if first <= slot <= last)
