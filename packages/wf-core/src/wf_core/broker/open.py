"""Opens the log and installs what it needs: topics, and the record that gives the log its identity."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, cast

import msgspec
import structlog

from wf_core import wire
from wf_core.broker import topics
from wf_core.broker.protocol import Log, LogUnavailableError, TopicPartition
from wf_core.errors import SetupError
from wf_core.plugins import drivers, groups
from wf_core.settings import Settings
from wf_core.store.keys import InstallationKeys
from wf_core.store.scripts import Installation, Scripts

log = structlog.get_logger(__name__)

_READ_SECONDS = 5.0


def open_log(settings: Settings, redis: Any) -> Log:
    """The driver that `settings.broker` names, not started. Raises PluginError when it is not installed."""
    driver = cast("Callable[[Settings, Any], Log]", drivers.load(groups.BROKERS, settings.broker))
    return driver(settings, redis)


async def ensure_installation(broker: Log, scripts: Scripts, settings: Settings) -> Installation:
    """Topics and incarnation, made by whoever starts first; what is installed rules, not what this process was told.

    Raises SetupError when the broker's topics have other numbers of partitions than the installation.
    """
    keys = InstallationKeys(settings.namespace)
    installed = await scripts.install(keys, settings.partitions, settings.task_partitions)
    if installed.partitions != settings.partitions or installed.task_partitions != settings.task_partitions:
        log.warning(
            "numbers of partitions are fixed when the namespace is installed; the installed ones are used",
            namespace=settings.namespace,
            installed=(installed.partitions, installed.task_partitions),
            asked=(settings.partitions, settings.task_partitions),
        )
    needed = {
        topics.events(settings.namespace): installed.partitions,
        topics.meta(settings.namespace): 1,
        topics.dead_letters(settings.namespace): 1,
    }
    try:
        await broker.ensure_topics(needed)
    except SetupError as error:
        raise SetupError(f"{error}. The hash {keys.installation} in Redis holds the installed number") from error
    if await broker.end(_meta(settings)) == 0:
        await broker.append(_meta(settings), [wire.encode(wire.Incarnation(id=uuid.uuid4().hex))])
    incarnation = await read_incarnation(broker, settings)
    return await scripts.install(keys, installed.partitions, installed.task_partitions, incarnation=incarnation)


async def read_incarnation(broker: Log, settings: Settings) -> str:
    """The identity of the log: record 0 of `wf.meta`, whoever wrote it and however many followed.

    Raises LogUnavailableError while there is none, and SetupError when record 0 is not ours.
    """
    reader = broker.reader()
    try:
        reader.assign({_meta(settings): 0})
        batches = await reader.read(_READ_SECONDS, 1)
    finally:
        await reader.close()
    if not batches:
        raise LogUnavailableError(f"{topics.meta(settings.namespace)} is empty: the log has no identity yet")
    try:
        return msgspec.msgpack.decode(batches[0].records[0], type=wire.Incarnation).id
    except msgspec.MsgspecError as error:
        raise SetupError(
            f"record 0 of {topics.meta(settings.namespace)} is no incarnation ({error}); use another namespace"
        ) from error


def _meta(settings: Settings) -> TopicPartition:
    return TopicPartition(topics.meta(settings.namespace), 0)
