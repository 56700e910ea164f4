"""docs/performance.md: what stands between two markers is what a command of the bench measured last."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from wf_testservers.redis import executable


def with_part(document: str, part: str, name: str = "bench") -> str:
    """The document with another part between the markers of a name. Raises ValueError when it does not have both."""
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, begin, rest = document.partition(first)
    _, end, tail = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"the document has no {first} with a {last} after it")
    return f"{head}{first}\n\n{part.strip()}\n\n{last}{tail}"


def write(path: Path, part: str, name: str = "bench") -> None:
    """Puts the part into the file."""
    path.write_text(with_part(path.read_text(encoding="utf-8"), part, name), encoding="utf-8")


def machine() -> str:
    """What the figures were measured on, in a sentence."""
    said = subprocess.run([executable(), "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    redis = next((word[2:] for word in said.split() if word.startswith("v=")), "of unknown version")
    system = f"Linux {platform.release()}, Python {platform.python_version()}, Redis {redis}"
    return f"{os.cpu_count()} cores, {_processor()}, {system}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
