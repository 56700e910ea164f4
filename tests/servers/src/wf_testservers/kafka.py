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
from collections.abc import Iterator
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
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
log.index.size.max.bytes=1048576
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=400
"""
# The controller refuses a killed broker's next life until the old one's session is over, hence a short session.
# The heap is small, and one compiler tier is ready soonest: a test broker lives for a minute.
_JVM = ("-Xms384m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_QUIET = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"


class Node(Protocol):
    """One broker process."""

    port: int
    process: Process

    def start(self) -> None:
        """Starts the broker on its data and waits until its port answers."""


class ApacheNode:
    """One KRaft node, broker and controller in one JVM. `voters` names all nodes' controllers; alone it is its own."""

    def __init__(self, directory: Path, node: int = 1) -> None:
        self.port = free_port()
        self.controller = free_port()
        self.node = node
        self._directory = directory
        self._properties = directory / "server.properties"
        self._java = ["java", *_JVM, _QUIET, "-cp", os.pathsep.join(map(str, jars.fetch()))]
        arguments = [*self._java, "kafka.Kafka", str(self._properties)]
        self.process = Process(arguments, directory / "broker.log")

    def configure(self, cluster: str, voters: str) -> None:
        """Writes the configuration and formats the data directory for the cluster of that id."""
        data = self._directory / "data"
        self._properties.write_text(
            _CONFIGURATION.format(node=self.node, voters=voters, port=self.port, controller=self.controller, data=data)
        )
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
def start_kafka(directory: Path) -> Iterator[KafkaServer]:
    """A running broker with its data in `directory`, ended with the block."""
    kind, _ = choose()
    if kind == "external":
        yield KafkaServer(kind, os.environ["APP_KAFKA_BOOTSTRAP_SERVERS"])
        return
    directory.mkdir(parents=True, exist_ok=True)
    node = _apache(directory) if kind == "apache" else StandInNode(directory)
    server = KafkaServer(kind, f"127.0.0.1:{node.port}", node)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _apache(directory: Path) -> ApacheNode:
    node = ApacheNode(directory)
    # Kafka's ids are UUIDs in base64; a leading `-`, which the first byte could make, would pass for an option.
    cluster = base64.urlsafe_b64encode(b"w" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
    node.configure(cluster, voters=f"{node.node}@127.0.0.1:{node.controller}")
    return node


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
