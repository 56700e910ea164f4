"""Documents on this machine: reading them, and telling at which line a problem is."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

STDIN = Path("-")


def read_document(path: Path) -> Any:
    """The JSON values of a YAML or JSON file, or of stdin (`-`). Raises UnparsableError."""
    from wf_core.schema.loading import load_document_file, load_yaml

    # JSON is YAML: stdin, whose format nobody names, is read as YAML.
    return load_yaml(sys.stdin.buffer.read()) if path == STDIN else load_document_file(path)


def lines_of(file: Path, pointers: Collection[str]) -> dict[str, int]:
    """JSON pointer → line in a YAML or JSON file, or the line of the nearest thing around it that stands there."""
    from wf_core.errors import UnparsableError
    from wf_core.schema.yaml import yaml_lines

    around = {pointer: list(_outward(pointer)) for pointer in pointers}
    try:
        lines = yaml_lines(file.read_bytes(), {place for places in around.values() for place in places})
    except UnparsableError:
        return {}  # the problems themselves say at which line
    found = {pointer: next((lines[p] for p in places if p in lines), None) for pointer, places in around.items()}
    return {pointer: line for pointer, line in found.items() if line is not None}


def _outward(pointer: str) -> Iterator[str]:
    yield pointer
    while pointer:
        pointer = pointer.rpartition("/")[0]
        yield pointer
