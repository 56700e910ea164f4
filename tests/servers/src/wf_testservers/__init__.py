"""Real servers for tests, benchmarks and chaos runs, a bad network before them (`Proxy`); fixtures are in `plugin`."""

from __future__ import annotations

from wf_testservers.kafka import KafkaCluster, KafkaServer, start_kafka, start_kafka_cluster
from wf_testservers.proxy import Proxy
from wf_testservers.redis import RedisServer, start_redis, start_replica
from wf_testservers.redis_groups import RedisCluster, SentinelGroup, start_redis_cluster, start_sentinel

__all__ = [
    "KafkaCluster",
    "KafkaServer",
    "Proxy",
    "RedisCluster",
    "RedisServer",
    "SentinelGroup",
    "start_kafka",
    "start_kafka_cluster",
    "start_redis",
    "start_redis_cluster",
    "start_replica",
    "start_sentinel",
]
