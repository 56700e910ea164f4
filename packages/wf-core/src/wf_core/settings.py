"""Settings, read once from `APP_*` variables and passed down."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from wf_core.ids import MAX_PARTITIONS


class Settings(BaseSettings):
    """Every variable of every service; each reads the ones that concern it."""

    model_config = SettingsConfigDict(env_prefix="APP_", frozen=True, extra="ignore")

    redis_host: str = Field("localhost", description="Host of the Redis server.")
    redis_port: PositiveInt = Field(6379, description="Port of the Redis server.")
    redis_db: NonNegativeInt = Field(0, description="Number of the Redis database.")
    redis_password: SecretStr | None = Field(None, description="Password of the Redis server.")
    redis_socket: str | None = Field(None, description="Path of a Unix socket; used in place of host and port.")
    redis_url: SecretStr | None = Field(
        None,
        description="In place of the above a URL: redis://, rediss://, unix://, redis+sentinel://host:port,…/service "
        "or redis+cluster://host:port,…",
    )
    redis_allow_volatile: bool = Field(False, description="Start although Redis keeps no append-only file.")

    broker: str = Field("kafka", description="The log: `kafka`, `redis`, or a driver of the group wf.brokers.")
    kafka_bootstrap_servers: str = Field("localhost:9092", description="Kafka brokers, host:port, comma-separated.")
    kafka_replication: PositiveInt = Field(1, description="Replication factor of the topics that are created.")

    namespace: str = Field("wf", pattern=r"^[a-z0-9._-]{1,40}$", description="Prefix of Redis keys and topics.")
    partitions: int = Field(64, ge=1, le=MAX_PARTITIONS, description="Partitions of wf.events, fixed at install.")
    task_partitions: int = Field(32, ge=1, le=1024, description="Partitions of each task topic.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field("INFO", description="Lowest level.")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on terminals.")

    max_retries: NonNegativeInt = Field(3, description="Retries of a failing node where the document says nothing.")
    retry_delay: NonNegativeFloat = Field(1.0, description="Seconds before the first retry.")
    base_backoff: float = Field(2.0, ge=1, description="Factor between one retry's delay and the next.")
    max_retry_delay: NonNegativeFloat = Field(60.0, description="Longest delay of a retry in seconds.")
    max_crash_retries: NonNegativeInt = Field(3, description="Attempts per node whose process may end under them.")
    max_platform_retries: NonNegativeInt = Field(10, description="Attempts that may be lost to the platform per node.")

    max_body_bytes: PositiveInt = Field(16 * 2**20, description="Largest request body.")
    max_payload_bytes: PositiveInt = Field(256 * 2**10, description="Largest input or output of a task as JSON.")

    lease_seconds: PositiveFloat = Field(2.5, description="How long a partition lease lasts without renewal.")
    heartbeat_seconds: PositiveFloat = Field(0.5, description="How often a worker beats.")
    death_seconds: PositiveFloat = Field(2.5, description="Silence after which a worker counts as dead.")
    orphan_seconds: PositiveFloat = Field(8.0, description="Age after which an unclaimed message is examined.")
    events_kept: PositiveInt = Field(50_000, description="Events per partition that the redis log keeps.")
    connect_seconds: PositiveFloat = Field(30.0, description="How long a service tries to reach its servers at start.")

    retention_days: NonNegativeFloat = Field(30.0, description="Days after its end an execution is deleted; 0: never.")
    retention_count: NonNegativeInt = Field(0, description="Ended executions that are kept at most; 0: no limit.")
    metrics_host: str = Field("127.0.0.1", description="Address of /metrics of orchestrators and workers.")
    metrics_port: NonNegativeInt = Field(0, description="Port of /metrics of orchestrators and workers; 0: none.")

    api_host: str = Field("127.0.0.1", description="Address the API listens on.")
    api_port: NonNegativeInt = Field(8080, description="Port the API listens on.")
    api_key: SecretStr | None = Field(None, description="Bearer key; required when the API leaves the loopback.")

    worker_slots: PositiveInt = Field(16, description="Tasks that one worker runs at once.")
    worker_queues: str = Field("default", description="Queues the worker takes from, comma-separated.")
    worker_allow: str = Field("", description="Tasks that run code and are allowed here, e.g. `shell.run,python.call`.")
    worker_grace: NonNegativeFloat = Field(10.0, description="Seconds that a draining worker lets tasks finish.")
    worker_files: str = Field("", description="Folder of `file.*` tasks; else the one a worker was started in.")
    worker_task_paths: str = Field("", description="Directories whose *.py files hold more tasks, separated by `:`.")


def markdown() -> str:
    """A table of every variable, its default and its meaning, for the README."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        rows.append(f"| `APP_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(markdown())  # noqa: T201 - its output is its purpose
