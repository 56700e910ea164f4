"""What must hold of an installation at rest, whatever happened to it."""

from __future__ import annotations

from wf_core.broker.open import open_log
from wf_core.settings import Settings
from wf_core.store.client import connect
from wf_orchestrator.verify import verify


async def assert_folded(settings: Settings) -> None:
    """Redis holds in every partition what its log says."""
    redis = connect(settings)
    log = open_log(settings, redis)
    await log.start()
    try:
        for partition in range(settings.partitions):
            assert await verify(redis, log, settings.namespace, partition) == []
    finally:
        await log.close()
        await redis.aclose()
