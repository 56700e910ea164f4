"""A private Kafka broker: Apache Kafka where Java is, a stand-in that speaks its protocol elsewhere.

`WF_REQUIRE_KAFKA=1` refuses the stand-in; `APP_KAFKA_BOOTSTRAP_SERVERS` names brokers that run already.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from wf_testservers import jars
from wf_testservers.process import Process, ServerError, answers, free_port

Kind = Literal["apache", "external", "stand-in"]
_OLDEST_JAVA = 17
_CONFIGURATION = """
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},BROKERS://127.0.0.1:{internal},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{advertised},BROKERS://127.0.0.1:{internal}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,BROKERS:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKERS
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor={replication}
offsets.topic.num.partitions=4
log.index.size.max.bytes=1048576
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
"""
# The controller refuses a killed broker's next life until the old one's session is over, hence a short session.
# Brokers have a listener of their own, so that a proxy before the clients' one leaves replication alone.
# One compiler tier is ready soonest: a test broker lives for a minute.
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_CLUSTER_HEAP = 256
"""MiB each: three brokers together need about 1 GB."""
_QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"


class Node(Protocol):
    """One broker process."""

    port: int
    process: Process

    def start(self) -> None:
        """Starts the broker on its data and waits until its port answers."""


class ApacheNode:
    """One KRaft node, broker and controller in one JVM. Clients are told to come to the port `advertised`."""

    def __init__(self, directory: Path, node: int = 1, *, advertised: int | None = None, heap: int = 384) -> None:
        self.port = free_port()
        self.advertised = advertised or self.port
        self.controller = free_port()
        self.node = node
        self._directory = directory
        self._properties = directory / "server.properties"
        memory = (f"-Xms{heap}m", f"-Xmx{heap}m")
        self._java = ["java", *memory, *_JVM, _QUIET, "-cp", os.pathsep.join(map(str, jars.fetch()))]
        arguments = [*self._java, "kafka.Kafka", str(self._properties)]
        self.process = Process(arguments, directory / "broker.log")

    @property
    def voter(self) -> str:
        """This node as an entry of `controller.quorum.voters`."""
        return f"{self.node}@127.0.0.1:{self.controller}"

    def configure(self, cluster: str, voters: Sequence[str], options: str = "") -> None:
        """Writes the configuration and formats the data directory for the cluster of that id.

        `voters` are all nodes' controllers; `options` are more lines of server.properties.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        lines = _CONFIGURATION.format(
            node=self.node,
            voters=",".join(voters),
            port=self.port,
            internal=free_port(),
            advertised=self.advertised,
            controller=self.controller,
            data=self._directory / "data",
            replication=len(voters),
        )
        self._properties.write_text(lines + options)
        format_data = [*self._java, "kafka.tools.StorageTool", "format", "-c", str(self._properties), "-t", cluster]
        done = subprocess.run(format_data, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise ServerError(f"Kafka's data directory cannot be formatted: {done.stdout}{done.stderr}")

    def start(self) -> None:
        """Starts the broker on its data and waits until its port answers."""
        self.process.start(lambda: answers(self.port), 60)


class StandInNode:
    """The Kafka-protocol broker of the noida-db wheel."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        program = shutil.which("noida-db", path=_scripts()) or "noida-db"
        arguments = [program, "start", "--only", "kafka", "--kafka-port", str(self.port)]
        self.process = Process([*arguments, "--data-dir", str(directory / "data")], directory / "broker.log")

    def start(self) -> None:
        """Starts the broker on its data and waits until its port answers."""
        self.process.start(lambda: answers(self.port))


class KafkaServer:
    """A broker, ours or (`kind` = external) somebody's; only ours can be killed and started again."""

    def __init__(self, kind: Kind, bootstrap: str, node: Node | None = None) -> None:
        self.kind = kind
        self.bootstrap = bootstrap
        self._node = node

    @property
    def description(self) -> str:
        """What the tests run against, for people."""
        names = {"apache": f"Apache Kafka {jars.VERSION}", "external": "Kafka", "stand-in": "stand-in noida-db"}
        return f"{names[self.kind]} at {self.bootstrap}"

    @property
    def survives_kill(self) -> bool:
        """Whether a kill loses nothing. The stand-in saves its data only now and then; others' brokers are not ours."""
        return self.kind == "apache"

    @property
    def node(self) -> Node:
        """Our broker. Raises ServerError when the broker is somebody's."""
        if self._node is None:
            raise ServerError(f"the broker at {self.bootstrap} was not started here")
        return self._node

    def start(self) -> None:
        """Starts the broker, with the data that an earlier run left, and waits until its port answers."""
        self.node.start()

    def kill(self) -> None:
        """SIGKILL. Apache Kafka's data stays, the stand-in forgets what is younger than its last snapshot."""
        self.node.process.kill()

    def stop(self) -> None:
        """Ends our broker; somebody's is left alone. It is killed: its farewell is of no use."""
        if self._node is not None:
            self._node.process.kill()

    def restart(self) -> None:
        """SIGKILL, then starts again on the same port and data."""
        self.kill()
        self.start()


def choose() -> tuple[Kind, str]:
    """Which broker this host can have, and why. Raises ServerError when it would be a stand-in that is refused."""
    if servers := os.environ.get("APP_KAFKA_BOOTSTRAP_SERVERS"):
        return "external", f"APP_KAFKA_BOOTSTRAP_SERVERS={servers}"
    missing = _missing_java() or jars.missing()
    if not missing:
        return "apache", f"Apache Kafka {jars.VERSION}"
    if os.environ.get("WF_REQUIRE_KAFKA", "") not in ("", "0"):
        raise ServerError(f"WF_REQUIRE_KAFKA is set and there is no Apache Kafka: {missing}")
    if find_spec("noida_db") is None:
        raise ServerError(f"no Apache Kafka ({missing}) and no stand-in: install noida-db==0.2.2")
    return "stand-in", f"noida-db, because {missing}"


@contextmanager
def start_kafka(directory: Path, advertised: int | None = None) -> Iterator[KafkaServer]:
    """A running broker with its data in `directory`, ended with the block.

    `advertised` is the port of a proxy to `server.node.port`: clients ask the broker where it is, and come to it there.
    Only Apache Kafka can be told that: raises ServerError elsewhere.
    """
    kind, why = choose()
    if advertised is not None and kind != "apache":
        raise ServerError(f"only Apache Kafka can be put behind a proxy, and this is {why}")
    if kind == "external":
        yield KafkaServer(kind, os.environ["APP_KAFKA_BOOTSTRAP_SERVERS"])
        return
    directory.mkdir(parents=True, exist_ok=True)
    node: ApacheNode | StandInNode
    if kind == "apache":
        node = ApacheNode(directory, advertised=advertised)
        node.configure(_cluster_id(), [node.voter])
    else:
        node = StandInNode(directory)
    server = KafkaServer(kind, f"127.0.0.1:{advertised or node.port}", node)
    try:
        server.start()
        yield server
    finally:
        server.stop()


class KafkaCluster:
    """Apache Kafka on several nodes, each of which can be killed and started again."""

    def __init__(self, nodes: Sequence[ApacheNode]) -> None:
        self.nodes = nodes

    @property
    def bootstrap(self) -> str:
        """All brokers, as clients are told to come to them."""
        return ",".join(f"127.0.0.1:{node.advertised}" for node in self.nodes)

    @property
    def description(self) -> str:
        """What the tests run against, for people."""
        return f"Apache Kafka {jars.VERSION}, {len(self.nodes)} brokers at {self.bootstrap}"

    def node(self, number: int) -> ApacheNode:
        """The node with that broker id."""
        return next(node for node in self.nodes if node.node == number)

    def start(self) -> None:
        """Starts all brokers at once, as a majority is needed before one is ready, and waits until all answer."""
        with ThreadPoolExecutor(len(self.nodes)) as starting:
            for done in [starting.submit(node.start) for node in self.nodes]:
                done.result()

    def stop(self) -> None:
        """Kills all."""
        for node in self.nodes:
            node.process.kill()


@contextmanager
def start_kafka_cluster(
    directory: Path, nodes: int = 3, *, advertised: Sequence[int | None] = ()
) -> Iterator[KafkaCluster]:
    """Running brokers with their data below `directory`, ended with the block; `advertised` as in `start_kafka`.

    A record counts when a majority has it. Raises ServerError without Apache Kafka.
    """
    kind, why = choose()
    if kind != "apache":
        raise ServerError(f"a cluster of our own needs Apache Kafka, and this is {why}")
    ports = [*advertised, *[None] * (nodes - len(advertised))]
    members = [
        ApacheNode(directory / str(number), number, advertised=port, heap=_CLUSTER_HEAP)
        for number, port in enumerate(ports, 1)
    ]
    cluster, voters = _cluster_id(), [member.voter for member in members]
    for member in members:
        member.configure(cluster, voters, f"min.insync.replicas={nodes // 2 + 1}\n")
    servers = KafkaCluster(members)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


def _cluster_id() -> str:
    """Kafka's ids are UUIDs in base64; a leading `-`, which the first byte could make, would pass for an option."""
    return base64.urlsafe_b64encode(b"w" + uuid.uuid4().bytes[1:]).decode().rstrip("=")


def _missing_java() -> str:
    if shutil.which("java") is None:
        return "no java on the PATH"
    told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False, timeout=30).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < _OLDEST_JAVA:
        return f"java is older than {_OLDEST_JAVA}"
    return ""


def _scripts() -> str:
    package = find_spec("noida_db")
    folders = package.submodule_search_locations if package else None
    return os.pathsep.join(folders or ())
