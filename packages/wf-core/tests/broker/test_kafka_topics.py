"""What topics on Kafka must be like: what is wrong is named with its remedy, and what would lose records is refused."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from wf_core.broker import kafka_rules, topics
from wf_core.broker.kafka_rules import Described
from wf_core.errors import SetupError
from wf_core.settings import Settings

GOOD = {
    "cleanup.policy": "delete",
    "max.message.bytes": "1048588",
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
}
THREE = Settings(kafka_replication=3)


def problems(topic="wf.events", replicas=3, in_sync=3, settings=THREE, **changed):
    """(setting, fatal) of what is wrong with four partitions; `_` in a name stands for a dot."""
    known = GOOD | {name.replace("_", "."): value for name, value in changed.items()}
    described = Described(topic, [replicas] * 4, [replicas] * 3 + [in_sync], known)
    return [(problem.setting, problem.fatal) for problem in kafka_rules.examine(settings, described, 4)]


def test_a_topic_as_we_create_it_has_no_problem():
    """With one replica, with two and with three."""
    for replication in (1, 2, 3):
        settings = Settings(kafka_replication=replication)
        for topic in ("wf.events", "wf.meta", "wf.tasks.default"):
            created = {name.replace(".", "_"): value for name, value in kafka_rules.new(settings, topic).items()}
            assert problems(topic, replication, replication, settings, **created) == []


@pytest.mark.parametrize(
    ("changed", "setting", "fatal"),
    [
        ({"cleanup_policy": "compact"}, "cleanup.policy", True),
        ({"cleanup_policy": "compact,delete"}, "cleanup.policy", True),
        ({"min_insync_replicas": "4"}, "min.insync.replicas", True),
        ({"min_insync_replicas": "3"}, "min.insync.replicas", False),
        ({"min_insync_replicas": "1"}, "min.insync.replicas", False),
        ({"unclean_leader_election_enable": "true"}, "unclean.leader.election.enable", False),
        ({"max_message_bytes": "1000"}, "max.message.bytes", False),
        ({"in_sync": 2}, "in sync", False),
        ({"in_sync": 1}, "in sync", False),
        ({"topic": "wf.meta"}, "retention.ms", True),
        ({"settings": Settings(kafka_replication=4)}, "replication", False),
    ],
)
def test_each_rule_names_its_setting(changed, setting, fatal):
    """Fatal is what loses records for certain, or stops every append or start; the rest is a warning."""
    assert problems(**changed) == [(setting, fatal)]


def test_one_replica_needs_no_rules_for_several():
    """Nobody can take over: neither an unclean election nor a majority means anything."""
    one = {"replicas": 1, "in_sync": 1, "settings": Settings(), "min_insync_replicas": "1"}
    assert problems(**one, unclean_leader_election_enable="true") == []


def test_settings_that_may_not_be_read_are_no_problem():
    """A broker that does not let us ask; the numbers of replicas are known all the same."""
    described = Described("wf.events", [1] * 4, [1] * 4, {})
    assert [problem.setting for problem in kafka_rules.examine(THREE, described, 4)] == ["replication"]


def test_refusing_partitions_are_counted():
    """How many lag, and how many take no records."""
    described = Described("wf.events", [3] * 4, [3, 2, 1, 1], GOOD)
    (problem,) = kafka_rules.examine(THREE, described, 4)
    assert "3 of 4 partitions" in problem.found
    assert "2 take no records" in problem.found


@pytest.mark.parametrize("log_driver", ["kafka"], indirect=True)
async def test_a_compacted_topic_is_refused(log, topic, configure):
    """At the start of every service, with the topic, the setting and the command that mends it."""
    await configure(topic, {"cleanup.policy": "compact"})
    with pytest.raises(SetupError, match=rf"{topic} has cleanup.policy=compact.*kafka-configs .*cleanup.policy=delete"):
        await log.ensure_topics({topic: 3})
    (problem,) = await log.examine_topics({topic: 3})
    assert (problem.topic, problem.setting, problem.fatal) == (topic, "cleanup.policy", True)
    await configure(topic, {"cleanup.policy": "delete"})
    await log.ensure_topics({topic: 3})


@pytest.mark.parametrize("log_driver", ["kafka"], indirect=True)
async def test_a_topic_in_danger_is_warned_of(log, topic, configure):
    """The service starts, and its log says what and why."""
    await configure(topic, {"cleanup.policy": "delete", "max.message.bytes": "5000"})
    with capture_logs() as said:
        await log.ensure_topics({topic: 3})
    (warning,) = [line for line in said if line["log_level"] == "warning"]
    assert warning["topic"] == topic
    assert "max.message.bytes=5000" in warning["found"]
    assert "max.message.bytes=1048588" in warning["remedy"]


@pytest.mark.parametrize("log_driver", ["kafka"], indirect=True)
async def test_an_identity_that_would_be_deleted_is_refused(log, settings, configure):
    """The topic with the log's incarnation keeps it for ever."""
    meta = topics.meta(settings.namespace)
    await log.ensure_topics({meta: 1})
    await configure(meta, {"retention.ms": "1000", "retention.bytes": "-1"})
    with pytest.raises(SetupError, match=rf"{meta} has retention.ms=1000"):
        await log.ensure_topics({meta: 1})


async def test_missing_topics_and_wrong_numbers_are_found_on_every_log(log, topic):
    """`examine_topics` creates nothing."""
    found = {problem.setting: str(problem) for problem in await log.examine_topics({topic: 4, f"{topic}.none": 1})}
    assert sorted(found) == ["missing", "partitions"]
    assert found["missing"].startswith(f"the topic {topic}.none does not exist; a service creates it")
    assert found["partitions"].startswith(f"the topic {topic} has 3 partitions and not 4; the number is fixed")
    assert len(await log.examine_topics({f"{topic}.none": 1})) == 1
    assert await log.examine_topics({topic: 3}) == []
