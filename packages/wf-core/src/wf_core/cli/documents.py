"""Documents on this machine: reading them, and telling at which line a problem is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

STDIN = Path("-")


def read_document(path: Path) -> Any:
    """The JSON values of a YAML or JSON file, or of stdin (`-`). Raises UnparsableError."""
    from wf_core.schema.loading import load_document_file, load_yaml

    # JSON is YAML: stdin, whose format nobody names, is read as YAML.
    return load_yaml(sys.stdin.buffer.read()) if path == STDIN else load_document_file(path)


def lines_of(text: str) -> dict[str, int]:
    """JSON pointer → line of each value of a YAML or JSON text, as far as it can be composed."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        root = YAML(typ="rt", pure=True).compose(text)
    except YAMLError:
        return {}
    if root is None:
        return {}
    found = {"": root.start_mark.line + 1}
    waiting = [("", root)]
    seen: set[int] = set()
    while waiting:
        pointer, node = waiting.pop()
        if id(node) in seen:
            continue  # an alias: its inside was listed where it stands first
        seen.add(id(node))
        waiting += _children(pointer, node, found)
    return found


def _children(pointer: str, node: Any, found: dict[str, int]) -> list[tuple[str, Any]]:
    if node.id == "mapping":
        below = [(f"{pointer}/{_escaped(str(key.value))}", key, value) for key, value in node.value]
        # A key's line, not its value's: a block value begins one line further down.
        found.update({path: key.start_mark.line + 1 for path, key, _ in below})
        return [(path, value) for path, _, value in below if value.id != "scalar"]
    if node.id == "sequence":
        items = [(f"{pointer}/{at}", value) for at, value in enumerate(node.value)]
        found.update({path: value.start_mark.line + 1 for path, value in items})
        return items
    return []


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def nearest_line(pointer: str, lines: dict[str, int]) -> int | None:
    """The line of `pointer`, or of the nearest thing around it that stands in the file."""
    while pointer not in lines and pointer:
        pointer = pointer.rpartition("/")[0]
    return lines.get(pointer)
