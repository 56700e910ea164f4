"""What topics on Kafka must be like: the settings they are created with, and what is wrong with those that are there.

Whatever loses records for certain, or stops every append or start, is fatal; what only helps an accident is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from wf_core.broker import topics as names
from wf_core.broker.protocol import TopicProblem, wrong_partitions
from wf_core.settings import Settings

_MAJORITY = 2  # of three replicas
_FOR_EVER = {"retention.ms": "-1", "retention.bytes": "-1"}
_LARGEST = 1_048_588  # a record of MAX_RECORD_BYTES with its framing fits; Kafka's default

SETTINGS = ("cleanup.policy", "max.message.bytes", "min.insync.replicas", "unclean.leader.election.enable", *_FOR_EVER)
"""What the rules ask for."""


@dataclass(frozen=True, slots=True)
class Described:
    """A topic as Kafka describes it: for each partition the number of its replicas, and of those in sync; settings.

    `settings` is empty when Kafka does not let us read them.
    """

    name: str
    replicas: Sequence[int]
    in_sync: Sequence[int]
    settings: Mapping[str, str]


def new(settings: Settings, topic: str) -> dict[str, str]:
    """The settings of a topic that is created."""
    majority = _MAJORITY if settings.kafka_replication > _MAJORITY else 1
    common = {
        "cleanup.policy": "delete",
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": str(majority),
    }
    # record 0 names the log for ever
    return common | _FOR_EVER if topic == names.meta(settings.namespace) else common


def examine(settings: Settings, topic: Described, partitions: int) -> Iterator[TopicProblem]:
    """What is wrong with a topic that should have so many partitions, the fatal first."""
    if len(topic.replicas) != partitions:
        yield wrong_partitions(topic.name, len(topic.replicas), partitions)
        return
    yield from _fatal(settings, topic)
    yield from _dangerous(settings, topic)


def _fatal(settings: Settings, topic: Described) -> Iterator[TopicProblem]:
    policy = topic.settings.get("cleanup.policy", "delete")
    if "compact" in policy:
        yield _setting(
            topic, "cleanup.policy", "delete", "compaction deletes events of executions that run", fatal=True
        )
    needed, replicas = _needed(topic), min(topic.replicas)
    if needed > replicas:
        why = f"with {replicas} replicas every append is refused"
        yield _setting(topic, "min.insync.replicas", str(replicas // 2 + 1), why, fatal=True)
    if topic.name == names.meta(settings.namespace):
        for name, value in _FOR_EVER.items():
            if topic.settings.get(name, value) != value:
                why = "once its first record is deleted nothing starts any more"
                yield _setting(topic, name, value, why, fatal=True)


def _dangerous(settings: Settings, topic: Described) -> Iterator[TopicProblem]:
    needed, replicas = _needed(topic), min(topic.replicas)
    if replicas < settings.kafka_replication:
        yield TopicProblem(
            topic.name,
            "replication",
            f"the topic {topic.name} has {replicas} replicas and not {settings.kafka_replication}",
            "raise it with kafka-reassign-partitions, or set APP_KAFKA_REPLICATION as it is",
        )
    if replicas > 1 and topic.settings.get("unclean.leader.election.enable") == "true":
        why = "a broker that lags may become leader, and acknowledged records are lost"
        yield _setting(topic, "unclean.leader.election.enable", "false", why)
    if replicas > _MAJORITY and 0 < needed < _MAJORITY:
        why = "a record is acknowledged when one broker has it, and lost with that one"
        yield _setting(topic, "min.insync.replicas", str(_MAJORITY), why)
    if replicas > 1 and needed == replicas:
        why = "the death of one broker stops every append"
        yield _setting(topic, "min.insync.replicas", str(replicas - 1), why)
    if int(topic.settings.get("max.message.bytes", _LARGEST)) < _LARGEST:
        yield _setting(topic, "max.message.bytes", str(_LARGEST), "large results and documents are refused")
    yield from _out_of_sync(topic, needed)


def _out_of_sync(topic: Described, needed: int) -> Iterator[TopicProblem]:
    lagging = sum(found < wanted for found, wanted in zip(topic.in_sync, topic.replicas, strict=True))
    refusing = sum(found < needed for found in topic.in_sync)
    if lagging:
        found = f"{lagging} of {len(topic.replicas)} partitions of {topic.name} have replicas that are not in sync"
        refused = f", and {refusing} take no records until they are (min.insync.replicas={needed})"
        remedy = "start the brokers that are down; see kafka-topics --describe --under-replicated-partitions"
        yield TopicProblem(topic.name, "in sync", found + (refused if refusing else ""), remedy)


def _needed(topic: Described) -> int:
    """How many replicas must have a record; 0 when that is not known."""
    return int(topic.settings.get("min.insync.replicas", 0))


def _setting(topic: Described, name: str, value: str, why: str, *, fatal: bool = False) -> TopicProblem:
    return TopicProblem(
        topic.name,
        name,
        f"the topic {topic.name} has {name}={topic.settings[name]}: {why}",
        f"kafka-configs --alter --entity-type topics --entity-name {topic.name} --add-config {name}={value}",
        fatal=fatal,
    )
