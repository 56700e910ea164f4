"""What records hold that is more than a value: failures, frozen settings, the parent of a child."""

from __future__ import annotations

import msgspec


class Cause(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An error that led to another one: the next link of Python's chain of exceptions, outermost first."""

    type: str
    message: str


class Failure(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Why an attempt or an execution failed."""

    type: str
    message: str
    traceback: str = ""
    classes: tuple[str, ...] = ()
    """Short and full names of the error's class and its bases, for `retry_on` and `fail_on`."""
    retry_after_ms: int | None = None
    fatal: bool = False
    node: str | None = None
    attempt: int | None = None
    causes: tuple[Cause, ...] = ()


class Begin(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An attempt that a worker begins by itself, and the parameters (a JSON object) that it runs with."""

    node: str
    attempt: int
    params: bytes


class RetrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Resolved retry settings of one node, in milliseconds."""

    policy: str = "exponential"
    max_retries: int = 3
    delay_ms: int = 1000
    base: float = 2.0
    max_delay_ms: int = 60_000
    jitter: float = 0.1
    max_elapsed_ms: int | None = None
    retry_on: tuple[str, ...] = ()
    fail_on: tuple[str, ...] = ()


MAX_CRASH_RETRIES = 3


class FrozenSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that change decisions, frozen into `created` so that a replay on any host decides the same."""

    retry: RetrySettings = RetrySettings()
    max_platform_retries: int = 10
    max_payload_bytes: int = 256 * 1024
    max_crash_retries: int = MAX_CRASH_RETRIES
    """Attempts that may follow those whose process ended under them: a budget of its own."""
    timeout_ms: int | None = None
    """Of an attempt whose document says nothing: what a child inherits of its parent's defaults."""

    @property
    def rules(self) -> int:
        """The lowest rules that know what is said here: the first ones have neither of the last two settings."""
        said = self.max_crash_retries != MAX_CRASH_RETRIES or self.timeout_ms is not None
        return 2 if said else 1


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """The `workflow` node that a child execution runs for. `on_close`: cancel or abandon."""

    execution: str
    node: str
    attempt: int
    on_close: str = "cancel"
