"""`file.*`: files below one folder of the worker's host, and there no hidden ones.

Whoever may send documents may write files, and must not gain by it what `shell.run` needs a permission for: nothing is
written where Python finds code, such as the folders of task files, which a worker loads anew when they change.
"""

from __future__ import annotations

import base64
import importlib.machinery
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from wf_core import Fatal, task

FileFormat = Literal["text", "json", "base64"]
_FOLDER = "APP_WORKER_FILES"
_MODULES = tuple(suffix.lower() for suffix in importlib.machinery.all_suffixes())
_MOST_BYTES = 64 * 2**20


class Written(BaseModel):
    """What `file.write` returns."""

    path: str
    bytes: int


@task("file.read")
def read(path: str, format: FileFormat = "text", encoding: str = "utf-8") -> Any:
    """The content of the file at `path`: text, a JSON value, or base64 of any bytes. Refuses more than 64 MiB."""
    file = _allowed(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {path!r} in {_root()} on this worker")
    size = file.stat().st_size
    if size > _MOST_BYTES:
        raise Fatal(f"{path!r} is {size:,} bytes, more than the {_MOST_BYTES:,} that file.read returns")
    data = file.read_bytes()
    if format == "base64":
        return base64.b64encode(data).decode()
    text = data.decode(encoding)
    return json.loads(text) if format == "json" else text


@task("file.write")
def write(
    path: str, content: Any, format: FileFormat = "text", encoding: str = "utf-8", make_dirs: bool = True
) -> Written:
    """Replaces the file at `path` as a whole: a reader sees the old content or the new, never a part of it."""
    data = _bytes_of(content, format, encoding)
    target = _allowed(path)
    if _holds_code(target):
        raise Fatal(f"{path!r} lies where this worker finds its code, and file.write writes none")
    if make_dirs:
        target.parent.mkdir(parents=True, exist_ok=True)
    # A copy of this attempt may write at the same time: each writes its own file, and the rename is atomic.
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return Written(path=str(target), bytes=len(data))


def _root() -> Path:
    """The folder of `file.*`: what APP_WORKER_FILES names, else where the worker was started."""
    return Path(os.environ.get(_FOLDER, "")).resolve()


def _allowed(path: str) -> Path:
    """The file that `path` leads to, links followed. Raises Fatal unless it is one that tasks may touch."""
    root = _root()
    file = (root / path).resolve()
    if root not in file.parents:
        raise Fatal(f"{path!r} is no file below {root}, the folder of file.* on this worker; see {_FOLDER}")
    if any(part.startswith(".") for part in file.relative_to(root).parts):
        raise Fatal(f"{path!r} is hidden or lies in a hidden folder, where file.* neither reads nor writes")
    return file


def _holds_code(file: Path) -> bool:
    """Whether Python looks for modules there; in the root itself and above, whether it is one.

    So too where the worker was started: `python -m` finds modules there, though a worker's child, which runs this, has
    it off its path.
    """
    root, target = _folded(_root()), _folded(file)
    is_module = target.name.endswith(_MODULES)
    if is_module and target.is_relative_to(_folded(Path.cwd())):
        return True
    for place in {_folded(Path(entry).resolve()) for entry in (*sys.path, sys.prefix)}:
        if target.is_relative_to(place) and (root in place.parents or is_module):
            return True
    return False


def _folded(path: Path) -> Path:
    """In lower case: some file systems do not tell `Tasks` from `tasks`."""
    return Path(str(path).lower())


def _bytes_of(content: Any, form: FileFormat, encoding: str) -> bytes:
    if form == "json":
        return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False).encode(encoding)
    if not isinstance(content, str):
        raise Fatal(f"format {form!r} needs a text as content, not {type(content).__name__}; use format: json")
    return base64.b64decode(content, validate=True) if form == "base64" else content.encode(encoding)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
