"""What a task author uses: `task`, `TaskContext`, `Fatal`, `RetryAfter`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError, create_model

from wf_core.durations import parse_duration_ms
from wf_core.errors import PluginError, Problem, WfError

Executor = Literal["async", "thread", "process"]


class Fatal(Exception):  # noqa: N818 - authors write `raise Fatal(...)`
    """Raised by a task: this attempt failed and no retry can help. Subclasses count as it does."""


class RetryAfter(Exception):  # noqa: N818 - authors write `raise RetryAfter(...)`
    """Raised by a task: this attempt failed; the next one, if the policy grants one, starts after `seconds`.

    Below 0 means at once, what is no finite number leaves the delay to the policy, and a hundred years are the most.
    Subclasses count as it does; one with a constructor of its own must set `seconds`.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        self.seconds = seconds
        super().__init__(message or f"asked to be tried again after {seconds} s")


class HeartbeatTimeoutError(TimeoutError):
    """The author must act: a running attempt called `ctx.heartbeat` less often than its node's `heartbeat` says."""


class ParametersError(WfError):
    """The author must act: a task's parameters do not fit its annotations."""

    def __init__(self, task: str, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        listed = "; ".join(f"{p.pointer or '/'}: {p.detail}" for p in problems)
        super().__init__(f"the parameters of {task} do not fit: {listed}")


class TaskLogger(Protocol):
    """The part of a logger that tasks use; lines carry the execution, node and attempt."""

    def debug(self, event: str, **fields: Any) -> Any:
        """Logs a detail."""

    def info(self, event: str, **fields: Any) -> Any:
        """Logs a step."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Logs what someone should look at."""

    def error(self, event: str, **fields: Any) -> Any:
        """Logs a failure."""


class TaskContext(Protocol):
    """What a running attempt may know and do; a task asks for it by annotating a parameter with this type."""

    execution_id: str
    node: str
    attempt: int
    log: TaskLogger

    @property
    def idempotency_key(self) -> str:
        """`execution/node`: the same for every attempt, for the user's own deduplication."""
        ...

    @property
    def fence(self) -> int:
        """The attempt's number: it only grows, so a store can refuse an older attempt."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether this attempt was cancelled; a thread should look at it between pieces of work."""
        ...

    def heartbeat(self, progress: Any = None) -> None:
        """Says that the task is alive and, with `progress`, how far it is: a JSON value of up to 4 KiB.

        May be called from any thread and as often as one likes. An attempt of a node with a `heartbeat` is ended when
        it does not call this for so long. Raises PayloadError for a progress that is no JSON or too long.
        """
        ...


@dataclass(frozen=True)
class Task:
    """A task implementation: a name and a function with typed parameters."""

    name: str
    function: Callable[..., Any]
    executor: Executor
    timeout_ms: int | None = None
    needs_permission: bool = False
    """Runs code of the document's author; only workers whose `APP_WORKER_ALLOW` names it run it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function itself, for tests."""
        return self.function(*args, **kwargs)

    @property
    def doc(self) -> str:
        """The function's docstring, unindented; "" without one."""
        return inspect.getdoc(self.function) or ""

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.function, include_extras=True)
        except Exception as error:
            raise PluginError(f"task {self.name}: its annotations cannot be read: {error}") from error

    @cached_property
    def context_parameter(self) -> str | None:
        """The name of the parameter that takes the TaskContext, if any."""
        return next((name for name, hint in self._hints.items() if hint is TaskContext and name != "return"), None)

    @cached_property
    def _parameters(self) -> list[inspect.Parameter]:
        found = inspect.signature(self.function).parameters.values()
        return [p for p in found if p.name != self.context_parameter]

    @cached_property
    def takes_any(self) -> bool:
        """Whether the function has a `**kwargs` parameter."""
        return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in self._parameters)

    @cached_property
    def model(self) -> type[BaseModel]:
        """A model of the parameters. Its field `p_<name>` has the alias `<name>`, so that any name is allowed."""
        fields: dict[str, Any] = {}
        for p in self._parameters:
            if p.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
                continue
            default = ... if p.default is inspect.Parameter.empty else p.default
            fields[f"p_{p.name}"] = (
                self._hints.get(p.name, Any),
                _field(p.name, default),
            )
        config = ConfigDict(
            extra="allow" if self.takes_any else "forbid",
            arbitrary_types_allowed=False,
            title=self.name,
        )
        try:
            return create_model(f"{self.name} parameters", __config__=config, **fields)
        except Exception as error:
            raise PluginError(f"task {self.name}: its annotations give no schema: {error}") from error

    @cached_property
    def output_adapter(self) -> TypeAdapter[Any]:
        """Turns what the function returned into JSON values."""
        try:
            return _output_adapter(self._hints.get("return", Any))
        except Exception:  # noqa: BLE001 - a type without a schema is allowed as an output: its value decides
            return _output_adapter(Any)

    @cached_property
    def _none_is_null(self) -> bool:
        """Whether no annotation can make anything else of a None that the function returns."""
        return self._hints.get("return", Any) in (Any, type(None))

    def parameters_schema(self) -> dict[str, Any]:
        """JSON Schema of the parameters object. Raises PluginError when the annotations give none."""
        try:
            return self.model.model_json_schema(by_alias=True)
        except PydanticUserError as error:
            raise PluginError(f"task {self.name}: its annotations give no schema: {error}") from error

    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of the output; `{}` when it can be anything or there is no schema for it."""
        try:
            return self.output_adapter.json_schema(mode="serialization")
        except Exception:  # noqa: BLE001 - a type without a schema is allowed as an output
            return {}

    def bind(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments for the function, validated and converted. Raises ParametersError with every problem."""
        if not params and not self._parameters:
            return {}
        try:
            model = self.model.model_validate(dict(params))
        except ValidationError as error:
            problems = tuple(
                Problem("".join(f"/{_escape(str(part))}" for part in e["loc"]), e["type"], e["msg"])
                for e in error.errors(include_input=False, include_url=False)
            )
            raise ParametersError(self.name, problems) from error
        bound = {name[2:]: value for name, value in vars(model).items()}
        bound.update(model.model_extra or {})
        return bound

    def dump_output(self, value: Any) -> Any:
        """`value` as plain JSON values. Raises PayloadError through the encoder later when something is left over."""
        if value is None and self._none_is_null:
            return None
        return self.output_adapter.dump_python(value, mode="json", by_alias=True, warnings=False)


def _field(name: str, default: Any) -> Any:
    from pydantic import Field

    return Field(default, alias=name, title=name)


def _output_adapter(hint: Any) -> TypeAdapter[Any]:
    """Leaves NaN and the infinities for the encoder to refuse; by default they would silently become null."""
    try:
        return TypeAdapter(hint, config=ConfigDict(ser_json_inf_nan="constants"))
    except PydanticUserError:  # a model or a dataclass has a configuration of its own
        return TypeAdapter(hint)


def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def task(
    name: str,
    *,
    executor: Executor | None = None,
    timeout: str | float | None = None,
    needs_permission: bool = False,
) -> Callable[[Callable[..., Any]], Task]:
    """Makes a task of a function.

    `async def` runs on the event loop, `def` in a thread; `executor="process"` gives a process that can be killed.
    `timeout` (seconds, or a duration such as `30s`) bounds one attempt where the document says nothing.
    """

    def wrap(function: Callable[..., Any]) -> Task:
        is_async = inspect.iscoroutinefunction(function)
        chosen: Executor = executor or ("async" if is_async else "thread")
        if chosen == "async" and not is_async:
            raise PluginError(f"task {name}: executor 'async' needs an async function")
        timeout_ms = None if timeout is None else parse_duration_ms(timeout)
        return Task(name, function, chosen, timeout_ms, needs_permission)

    return wrap
