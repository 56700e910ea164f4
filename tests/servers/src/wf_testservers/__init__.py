"""Real servers for tests, benchmarks and chaos runs: `start_redis` and `start_kafka`; fixtures are in `plugin`."""

from __future__ import annotations

from wf_testservers.kafka import KafkaServer, start_kafka
from wf_testservers.redis import RedisServer, start_redis

__all__ = ["KafkaServer", "RedisServer", "start_kafka", "start_redis"]
