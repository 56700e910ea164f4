"""`wf doctor` on real servers that do not fit: each finding is a check of its own, with a remedy."""

from __future__ import annotations

import json

import pytest
from wf_testservers import start_redis

from wf_core.broker import topics
from wf_core.broker.open import ensure_installation
from wf_core.store.keys import InstallationKeys
from wf_core.store.scripts import Scripts


@pytest.fixture
def doctor(wf):
    """Runs `wf doctor` on the servers of the settings; the checks by name."""

    def doctor(settings):
        environment = {
            "APP_REDIS_HOST": settings.redis_host,
            "APP_REDIS_PORT": str(settings.redis_port),
            "APP_BROKER": settings.broker,
            "APP_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
            "APP_NAMESPACE": settings.namespace,
        }
        done = wf("doctor", "-o", "json", **environment)
        assert done.returncode == 1, done.stderr  # no orchestrator is alive
        return {check["name"]: check for check in json.loads(done.stdout)}

    return doctor


@pytest.mark.parametrize(
    ("option", "found", "remedy"),
    [
        (["--maxmemory-policy", "allkeys-lru"], "may evict keys", "maxmemory-policy noeviction"),
        (["--appendonly", "no"], "no append-only file", "appendonly yes"),
    ],
)
def test_a_redis_that_would_lose_state_is_refused(doctor, settings, tmp_path, option, found, remedy):
    """One that evicts keys, or keeps no append-only file."""
    with start_redis(tmp_path, option) as server:
        check = doctor(settings.model_copy(update={"redis_port": server.port}))["redis"]
    assert check["state"] == "wrong"
    assert found in check["found"]
    assert remedy in check["found"]


async def test_topics_of_a_new_installation_are_as_they_must_be(doctor, log, redis, settings):
    """Events, identity and dead letters; before there is an installation none is needed."""
    assert doctor(settings)["topics"]["found"] == "none is needed yet"
    await ensure_installation(log, Scripts(redis), settings)
    checks = doctor(settings)
    assert (checks["topics"]["state"], checks["log"]["state"]) == ("ok", "ok")
    assert topics.dead_letters(settings.namespace) in checks["topics"]["found"]


async def test_another_number_of_partitions_is_found(doctor, log, redis, settings):
    """The broker's topic and the installation in Redis differ."""
    events = topics.events(settings.namespace)
    await Scripts(redis).install(InstallationKeys(settings.namespace), settings.partitions, settings.task_partitions)
    await log.ensure_topics({events: settings.partitions + 1})
    checks = doctor(settings)
    check = checks[f"topic {events}: partitions"]
    assert check["found"] == f"the topic {events} has 5 partitions and not 4"
    assert "another namespace" in check["remedy"]
    assert f"topic {topics.meta(settings.namespace)}: missing" in checks


@pytest.mark.parametrize("log_driver", ["kafka"], indirect=True)
async def test_each_wrong_setting_is_a_check_with_its_remedy(doctor, log, redis, settings):
    """A topic that somebody altered."""
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    await ensure_installation(log, Scripts(redis), settings)
    events = topics.events(settings.namespace)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    altered = {"cleanup.policy": "compact", "max.message.bytes": "5000"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, events, altered)])
    await admin.close()
    checks = doctor(settings)
    assert "cleanup.policy=delete" in checks[f"topic {events}: cleanup.policy"]["remedy"]
    assert "max.message.bytes=1048588" in checks[f"topic {events}: max.message.bytes"]["remedy"]
    assert checks["log"]["state"] == "ok"
