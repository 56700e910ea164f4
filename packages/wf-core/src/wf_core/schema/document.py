"""The workflow document: its one definition, from which its published JSON Schema is made."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StrictFloat, StrictInt, StrictStr, WithJsonSchema
from pydantic.functional_validators import AfterValidator, PlainValidator
from pydantic_core import PydanticCustomError

from wf_core.durations import parse_duration_ms

JoinRule = Literal[
    "all_success",
    "all_done",
    "all_failed",
    "any_success",
    "any_failed",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "always",
]
JOIN_RULES: frozenset[str] = frozenset(get_args(JoinRule))
LONGEST_ID = 200
DEFAULT_QUEUE = "default"
DEFAULT_PRIORITY = 5
_BAD_IN_ID = re.compile(r"[/\[\]#\x00-\x1f\x7f-\x9f]")
_BAD_IN_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@lru_cache(maxsize=1024, typed=True)
def duration_ms(value: str | float) -> int:
    """Milliseconds of a duration; documents use few different ones. Raises ValueError."""
    try:
        return parse_duration_ms(value)
    except OverflowError as error:
        raise ValueError("a duration is at most 100 years") from error


def _duration(value: Any) -> str | int | float:
    if not isinstance(value, str | int | float):
        raise PydanticCustomError(
            "bad_duration", "a duration is a text such as 90s, 5m or PT5M, or a number of seconds"
        )
    try:
        duration_ms(value)
    except ValueError as error:
        raise PydanticCustomError("bad_duration", "{reason}", {"reason": str(error)}) from error
    return value


def _positive(value: str | float) -> str | int | float:
    if duration_ms(value) == 0:
        raise PydanticCustomError("bad_duration", "this duration must be longer than nothing, 1 ms or more")
    return value


def _condition(value: Any) -> str | bool:
    if not isinstance(value, str | bool):
        raise PydanticCustomError("wrong_type", "a condition is a CEL expression, true or false")
    return value


def check_id(value: str) -> str | None:
    """What is wrong with a node id, as a sentence; None when nothing is."""
    if not value:
        return "an id must not be empty"
    if len(value) > LONGEST_ID:
        return f"an id has at most {LONGEST_ID} characters, this one has {len(value)}"
    if match := _BAD_IN_ID.search(value):
        return f"an id may hold no / [ ] # or control character, this one holds {match.group()!r}"
    return None


def _line(value: str) -> str:
    if _BAD_IN_TEXT.search(value):
        raise PydanticCustomError("bad_text", "no control characters or line breaks are allowed here")
    return value


_DURATION_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "string", "examples": ["200ms", "5m", "1h30m", "PT5M"]}, {"type": "number", "minimum": 0}],
    "description": "200ms, 1.5s, 5m, 1h30m, 2d, ISO 8601 (PT5M), or a number of seconds",
}
Duration = Annotated[Any, PlainValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]
PositiveDuration = Annotated[
    Any, PlainValidator(_duration), AfterValidator(_positive), WithJsonSchema(_DURATION_SCHEMA)
]
Condition = Annotated[
    Any, PlainValidator(_condition), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "boolean"}]})
]
Line = Annotated[StrictStr, Field(min_length=1, max_length=LONGEST_ID), AfterValidator(_line)]
PolicyName = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
LabelName = Annotated[StrictStr, Field(pattern=r"^[^=\x00-\x1f\x7f]{1,100}$")]
LabelValue = Annotated[StrictStr, Field(max_length=LONGEST_ID), AfterValidator(_line)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)


class RetrySchema(_Part):
    """What happens when an attempt fails. What is not given comes from the document's defaults, then from `APP_*`."""

    policy: PolicyName | None = Field(None, description="an entry point of wf.retry_policies: exponential, fixed, none")
    max_retries: StrictInt | None = Field(None, ge=0, description="retries, not attempts: 3 means at most 4 attempts")
    delay: Duration | None = Field(None, description="before the first retry")
    base: StrictFloat | None = Field(None, ge=1, le=1000, description="factor between one delay and the next")
    max_delay: Duration | None = Field(None, description="longest delay")
    jitter: StrictFloat | None = Field(None, ge=0, le=1, description="share of the delay that is spread at random")
    max_elapsed: PositiveDuration | None = Field(None, description="no retry begins later than this after the start")
    retry_on: list[Line] | None = Field(None, description="only errors of these classes (or classes below them)")
    fail_on: list[Line] | None = Field(None, description="never errors of these classes (or classes below them)")


class DefaultsSchema(_Part):
    """What holds for every node that says nothing else."""

    retry: RetrySchema | None = None
    timeout: PositiveDuration | None = None


class NodeSchema(_Part):
    """A box in the graph: a task, its parameters, and when it runs."""

    kind: Literal["task"] = Field("task", description="what the node is")
    task: Line = Field(description="name of the task that runs, e.g. http.request")
    params: dict[str, Any] = Field(default_factory=dict, description="parameters; strings may hold ${{ … }} templates")
    depends_on: list[StrictStr] = Field(default_factory=list, description="ids of nodes that come before this one")
    when: Condition = Field(default=True, description="CEL guard, evaluated once; false skips the node")
    join: StrictStr = Field("all_success", description="a join rule, or CEL over nodes.<id>.status")
    retry: RetrySchema | None = None
    timeout: PositiveDuration | None = Field(None, description="of one attempt, from its start on the worker")
    queue: StrictStr = Field(DEFAULT_QUEUE, pattern=r"^[a-z0-9._-]{1,60}$", description="which workers may take it")
    priority: StrictInt = Field(DEFAULT_PRIORITY, ge=0, le=9, description="0-9, higher first")
    on_error: Literal["fail", "continue"] = Field("fail", description="continue: FAILED, but counts as success")


class WorkflowSchema(_Part):
    """A workflow: nodes, and the order between them."""

    name: Line = Field(description="name of the workflow")
    description: StrictStr | None = None
    version: Line | None = None
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, description="for finding executions again")
    input: dict[str, Any] | None = Field(None, description="JSON Schema of the input; its defaults are filled in")
    defaults: DefaultsSchema | None = None
    nodes: dict[str, NodeSchema] = Field(min_length=1, description="id to node")
    output: Any = Field(None, description="value or template; without one, the output of the only leaf or of each leaf")
    timeout: PositiveDuration | None = Field(None, description="of the whole execution")
    on_failure: Literal["halt", "cancel", "continue"] = Field(
        "halt", description="what a failed node does to the others"
    )
    max_parallel: StrictInt | None = Field(None, ge=1, description="most attempts in flight at once")
    scheduling: PolicyName = Field("fifo", description="an entry point of wf.scheduling_policies: fifo, priority")
    _is_checked: bool = PrivateAttr(default=False)

    @property
    def is_checked(self) -> bool:
        """Whether its graph and expressions were found right, so that compiling need not look again."""
        return self._is_checked

    def checked(self) -> Self:
        """Marks the document as one whose graph and expressions were found right."""
        self._is_checked = True
        return self
