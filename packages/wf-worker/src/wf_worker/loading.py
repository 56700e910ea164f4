"""Finds and imports tasks. Used by children only: importing a task runs its author's code."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from wf_core.catalogue import Catalogue, TaskInfo, describe
from wf_core.errors import PluginError
from wf_core.plugins import drivers, groups
from wf_core.tasks import Task

LOAD_SECONDS = 60.0
"""Longest import of one task."""


def task_files(paths: Sequence[str]) -> list[Path]:
    """The `*.py` files in these directories, without those whose name begins with `_` or `.`."""
    found = (file for path in paths for file in sorted(Path(path).glob("*.py")))
    return [file for file in found if not file.name.startswith(("_", "."))]


def split_paths(setting: str) -> tuple[str, ...]:
    """The directories of `APP_WORKER_TASK_PATHS`."""
    return tuple(str(Path(part).resolve()) for part in setting.split(":") if part.strip())


def _line(error: BaseException, file: str) -> str:
    """Where in `file` an error came up; "" when that is not known, and for one whose message says it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" (line {lines[-1]})" if lines else ""


def is_allowed(name: str, allow: Sequence[str]) -> bool:
    """Whether a task that needs permission may run here; `*` allows all."""
    return "*" in allow or name in allow


def not_allowed(name: str) -> str:
    """Why a task that needs permission does not run here, and the remedy."""
    return f"task {name} runs code that a document's author wrote, and APP_WORKER_ALLOW does not name it on this worker"


class TaskLoader:
    """Tasks by name: those of entry points, imported on first use, and those in directories of files.

    `skip` names what must not be imported, with the reason; `announce` hears a name before its import.
    """

    def __init__(self, paths: Sequence[str], skip: Mapping[str, str], announce: Callable[[str], None]) -> None:
        self._paths = paths
        self._skip = skip
        self._announce = announce
        self._loaded: dict[str, Task] = {}
        self._files: dict[str, Path] | None = None
        self._broken: dict[str, str] = {}

    def get(self, name: str) -> Task:
        """The task `name`. Raises PluginError when there is none or it does not import."""
        if name not in self._loaded:
            self._load(name)
        return self._loaded[name]

    def catalogue(self, allow: Sequence[str]) -> Catalogue:
        """Everything that can run here. Imports all of it; what is broken is listed with the reason and left out."""
        plugins, broken = drivers.survey(groups.TASKS)
        broken = dict(broken)
        tasks: dict[str, TaskInfo] = {}
        for name, plugin in plugins.items():
            self._describe(tasks, broken, name, plugin.distribution, plugin.version)
        for name, file in self._in_files().items():
            self._describe(tasks, broken, name, file.name)
        broken.update(self._broken)
        refused = tuple(n for n, t in tasks.items() if t.needs_permission and not is_allowed(n, allow))
        return Catalogue(tasks={n: t for n, t in tasks.items() if n not in refused}, broken=broken, refused=refused)

    def _describe(
        self, tasks: dict[str, TaskInfo], broken: dict[str, str], name: str, package: str, version: str = ""
    ) -> None:
        try:
            tasks[name] = describe(self.get(name), package, version)
        except PluginError as error:
            broken[name] = str(error)
        except Exception as error:  # noqa: BLE001 - one broken plugin must not stop another
            broken[name] = f"task {name} of {package} cannot be described: {type(error).__name__}: {error}"

    def _load(self, name: str) -> None:
        if name in self._skip:
            raise PluginError(self._skip[name])
        if name in self._in_files():  # a file in front of a person wins over an installed package
            return
        self._announce(name)
        try:
            found = drivers.load(groups.TASKS, name)
        except SystemExit as error:
            raise PluginError(f"the import of task {name} called sys.exit({error.code!r})") from error
        if not isinstance(found, Task):
            raise PluginError(f"the entry point {name} gives {type(found).__name__}; decorate the function with @task")
        if found.name != name:
            raise PluginError(f"the entry point {name} gives a task named {found.name}; give both one name")
        self._loaded[name] = found

    def _in_files(self) -> dict[str, Path]:
        """Imports the task files, once; the tasks found in each."""
        if self._files is None:
            self._files = {}
            for path in self._paths:
                if path not in sys.path:
                    sys.path.append(path)
            for file in task_files(self._paths):
                for task in self._import(file):
                    self._files[task.name] = file
                    self._loaded[task.name] = task
        return self._files

    def _import(self, file: Path) -> Iterator[Task]:
        shown = str(file)
        if shown in self._skip:
            self._broken[file.name] = self._skip[shown]
            return
        self._announce(shown)
        spec = importlib.util.spec_from_file_location(f"wf_task_files.{file.stem}", file)
        if spec is None or spec.loader is None:
            self._broken[file.name] = f"{shown} is no Python module"
            return
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - one broken file must not stop the others
            self._broken[file.name] = f"{shown} does not import: {type(error).__name__}: {error}{_line(error, shown)}"
            return
        yield from (value for value in vars(module).values() if isinstance(value, Task))
