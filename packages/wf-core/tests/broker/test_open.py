"""Opening the log and installing what it needs."""

from __future__ import annotations

import asyncio

import pytest

from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.open import ensure_installation, open_log, read_incarnation
from wf_core.broker.protocol import LogUnavailableError, TopicPartition
from wf_core.errors import PluginError, SetupError
from wf_core.store.keys import InstallationKeys
from wf_core.store.scripts import Scripts


@pytest.fixture
def scripts(redis):
    return Scripts(redis)


async def test_an_installation_makes_topics_and_an_identity(log, scripts, settings):
    """Events with the partitions of the settings, one partition each of meta and dead letters, and record 0."""
    installation = await ensure_installation(log, scripts, settings)
    assert (installation.partitions, installation.task_partitions) == (4, 2)
    assert installation.incarnation == await read_incarnation(log, settings)
    assert await log.append(TopicPartition(topics.events(settings.namespace), 3), [b"a"]) == [0]
    assert await log.append(TopicPartition(topics.dead_letters(settings.namespace), 0), [b"a"]) == [0]


async def test_services_that_start_together_agree(log, scripts, settings):
    """Whoever's record is number 0 wins; later starts change nothing."""
    first, second, third = await asyncio.gather(*(ensure_installation(log, scripts, settings) for _ in range(3)))
    assert first == second == third == await ensure_installation(log, scripts, settings)


async def test_the_first_record_is_the_identity_whatever_follows(log, scripts, settings):
    """A slow starter may append a second record; nobody reads it."""
    installation = await ensure_installation(log, scripts, settings)
    meta = TopicPartition(topics.meta(settings.namespace), 0)
    await log.append(meta, [wire.encode(wire.Incarnation(id="late"))])
    assert await read_incarnation(log, settings) == installation.incarnation


async def test_what_is_installed_rules(log, scripts, settings):
    """A service that was told another number of partitions uses the installed one."""
    await ensure_installation(log, scripts, settings)
    other = settings.model_copy(update={"partitions": 64, "task_partitions": 9})
    installation = await ensure_installation(log, scripts, other)
    assert (installation.partitions, installation.task_partitions) == (4, 2)


async def test_topics_that_do_not_fit_the_installation_are_refused(log, scripts, settings):
    """The broker's events have another number of partitions than Redis says: nothing may start."""
    await log.ensure_topics({topics.events(settings.namespace): 3})
    with pytest.raises(SetupError, match=r"has 3 partitions and not 4.*:install"):
        await ensure_installation(log, scripts, settings)


async def test_a_log_without_an_identity_is_unavailable(log, settings, monkeypatch):
    """The meta topic is there, its record not yet."""
    monkeypatch.setattr("wf_core.broker.open._READ_SECONDS", 0.2)
    await log.ensure_topics({topics.meta(settings.namespace): 1})
    with pytest.raises(LogUnavailableError, match="no identity"):
        await read_incarnation(log, settings)


async def test_a_foreign_record_is_no_identity(log, settings):
    """Somebody else's topic of that name is refused with a remedy."""
    await log.ensure_topics({topics.meta(settings.namespace): 1})
    await log.append(TopicPartition(topics.meta(settings.namespace), 0), [b"{}"])
    with pytest.raises(SetupError, match="another namespace"):
        await read_incarnation(log, settings)


async def test_a_new_log_has_a_new_identity(log, scripts, settings, redis):
    """The log was lost whole: the installation learns the new identity, its numbers stay."""
    old = await ensure_installation(log, scripts, settings)
    keys = InstallationKeys(settings.namespace)
    await redis.hset(keys.installation, "incarnation", "lost")
    assert await ensure_installation(log, scripts, settings) == old


def test_an_unknown_driver_is_named(settings, redis):
    """The error lists the drivers that are installed."""
    with pytest.raises(PluginError, match=r"no 'pulsar'.*kafka.*redis"):
        open_log(settings.model_copy(update={"broker": "pulsar"}), redis)
