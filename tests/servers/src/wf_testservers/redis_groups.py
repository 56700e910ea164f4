"""Several redis-servers that stand for one another: Sentinel with replicas, and a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from wf_testservers.process import Process, ServerError, answers, free_port
from wf_testservers.redis import RedisServer, executable, start_redis, start_replica, wait_until

SERVICE = "wf"
_SLOTS = 16384
_BUS = 10_000
"""A node of a cluster talks to the others on its port plus this."""


class Sentinel:
    """One sentinel that watches a master; its port stays the same over restarts."""

    def __init__(self, directory: Path, master: RedisServer, quorum: int, down_after_ms: int) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        lines = (
            f"port {self.port}",
            f"bind {self.host}",
            f"dir {directory}",
            f"sentinel monitor {SERVICE} {master.host} {master.port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}",
            f"sentinel failover-timeout {SERVICE} 5000",
        )
        settings = directory / "sentinel.conf"
        settings.write_text("\n".join(lines) + "\n")
        self.process = Process([executable(), str(settings), "--sentinel"], directory / "sentinel.log")

    def start(self) -> None:
        """Starts with what it knew before, and waits until it answers."""
        self.process.start(lambda: answers(self.port))

    def state(self) -> dict[str, str]:
        """What it thinks of the master."""
        with Redis(host=self.host, port=self.port, protocol=2, decode_responses=True, socket_timeout=10) as client:
            found: dict[str, str] = client.sentinel_master(SERVICE)
            return found

    def fail_over(self) -> None:
        """Makes a replica the master although nothing is wrong; a sentinel refuses while it knows none well enough."""

        def agreed() -> bool:
            with Redis(host=self.host, port=self.port, protocol=2, socket_timeout=10) as client:
                try:
                    return bool(client.sentinel_failover(SERVICE))
                except ResponseError:
                    return False

        wait_until(agreed, "replica that Sentinel would promote")


class SentinelGroup:
    """A master, its replicas, and the sentinels that watch them."""

    def __init__(self, servers: Sequence[RedisServer], sentinels: Sequence[Sentinel]) -> None:
        self.servers = list(servers)
        """The first one began as the master."""
        self.sentinels = list(sentinels)

    @property
    def url(self) -> str:
        """For APP_REDIS_URL."""
        return f"redis+sentinel://{','.join(f'{s.host}:{s.port}' for s in self.sentinels)}/{SERVICE}"

    def master(self) -> RedisServer:
        """The server that the sentinels call the master."""
        port = int(self.sentinels[0].state()["port"])
        return next(server for server in self.servers if server.port == port)

    def kill_master(self, seconds: float = 30.0) -> RedisServer:
        """SIGKILL to the master; waits until another took over, and returns that."""
        old = self.master()
        old.kill()
        wait_until(lambda: self.master() is not old, "other master that Sentinel names", seconds)
        new = self.master()
        wait_until(lambda: new.role() == "master", "replica that was promoted", seconds)
        return new


@contextmanager
def start_sentinel(
    directory: Path, replicas: int = 1, sentinels: int = 1, down_after_ms: int = 1000
) -> Iterator[SentinelGroup]:
    """A master with replicas behind so many sentinels, all of which know each other."""
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(start_redis(directory / "redis-0"))
        places = [directory / f"redis-{number}" for number in range(1, replicas + 1)]
        servers = [master, *(stack.enter_context(start_replica(master, place)) for place in places)]
        quorum = sentinels // 2 + 1
        group = SentinelGroup(
            servers,
            [Sentinel(directory / f"sentinel-{n}", master, quorum, down_after_ms) for n in range(sentinels)],
        )
        for sentinel in group.sentinels:
            stack.callback(sentinel.process.stop)
            sentinel.start()

        def complete() -> bool:
            states = [sentinel.state() for sentinel in group.sentinels]
            return all(
                int(s["num-slaves"]) == replicas and int(s["num-other-sentinels"]) == sentinels - 1 for s in states
            )

        wait_until(complete, "sentinels that know everyone")
        yield group


class RedisCluster:
    """A Redis Cluster of masters without replicas, with its slots spread evenly."""

    def __init__(self, nodes: Sequence[RedisServer]) -> None:
        self.nodes = list(nodes)

    @property
    def url(self) -> str:
        """For APP_REDIS_URL."""
        return f"redis+cluster://{','.join(f'{node.host}:{node.port}' for node in self.nodes)}"

    def form(self) -> None:
        """Makes the nodes one cluster, and waits until each serves."""
        first, count = self.nodes[0], len(self.nodes)
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "ADDSLOTS", *range(_SLOTS * number // count, _SLOTS * (number + 1) // count))
            if node is not first:
                node.ask("CLUSTER", "MEET", first.host, first.port)
        self.wait()

    def wait(self, seconds: float = 30.0) -> None:
        """Waits until every node says that the cluster is well."""
        wait_until(lambda: all(self._well(node) for node in self.nodes), "Redis Cluster that is well", seconds)

    def move(self, slot: int, target: RedisServer) -> None:
        """Hands a slot without keys to another node."""
        name = target.ask("CLUSTER", "MYID")
        for node in (target, *(node for node in self.nodes if node is not target)):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)

    def _well(self, node: RedisServer) -> bool:
        try:
            info = str(node.ask("CLUSTER", "INFO"))
        except (OSError, RedisError):
            return False
        return "cluster_state:ok" in info and f"cluster_known_nodes:{len(self.nodes)}" in info


@contextmanager
def start_redis_cluster(directory: Path, masters: int = 3, options: Sequence[str] = ()) -> Iterator[RedisCluster]:
    """A running cluster of so many masters. `options` go to each redis-server."""
    settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", *options]
    with contextlib.ExitStack() as stack:
        nodes = [RedisServer(directory / f"node-{n}", settings, _free_pair()) for n in range(masters)]
        for node in nodes:
            stack.callback(node.stop)
            node.start()
        cluster = RedisCluster(nodes)
        cluster.form()
        yield cluster


def _free_pair() -> int:
    """A free port whose bus port is free, too, and below the range of outgoing connections."""
    for _ in range(1000):
        port = free_port()
        if port + _BUS < 32_000 and not answers(port + _BUS):
            return port
    raise ServerError("no free pair of ports on 127.0.0.1")
