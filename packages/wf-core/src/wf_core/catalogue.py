"""What workers can run, as they publish it: an API host checks documents by it without having the plugins installed."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from wf_core.tasks import Executor, Task


class TaskInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One task: who ships it, what it takes and gives."""

    name: str
    package: str = ""
    """Distribution that ships it; a file's path for a task that no distribution ships."""
    version: str = ""
    params: dict[str, Any] = {}
    """JSON Schema of the parameters object."""
    output: dict[str, Any] = {}
    """JSON Schema of the output; `{}` allows anything."""
    executor: Executor = "async"
    timeout_ms: int | None = None
    needs_permission: bool = False
    doc: str = ""

    @property
    def shipped_by(self) -> str:
        """Distribution and version, as shown to people."""
        return f"{self.package} {self.version}".strip()


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """The tasks of one worker by name."""

    tasks: dict[str, TaskInfo] = {}
    broken: dict[str, str] = {}
    """Why others could not be loaded: task or file name → a sentence."""
    refused: tuple[str, ...] = ()
    """Tasks that run code of a document's author and that `APP_WORKER_ALLOW` does not name here."""

    def encode(self) -> bytes:
        """JSON with sorted keys, so that equal catalogues have equal bytes."""
        return _encoder.encode(self)

    @property
    def hash(self) -> str:
        """32 hex characters that name this content."""
        return hashlib.sha256(self.encode()).hexdigest()[:32]


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Catalogue)


def decode(data: bytes) -> Catalogue:
    """The catalogue in bytes that `Catalogue.encode` made. Raises msgspec.MsgspecError when they hold none."""
    return _decoder.decode(data)


def describe(task: Task, package: str = "", version: str = "") -> TaskInfo:
    """What a catalogue says about `task`. Raises PluginError when its annotations give no schema."""
    return TaskInfo(
        name=task.name,
        package=package,
        version=version,
        params=task.parameters_schema(),
        output=task.output_schema(),
        executor=task.executor,
        timeout_ms=task.timeout_ms,
        needs_permission=task.needs_permission,
        doc=task.doc,
    )
