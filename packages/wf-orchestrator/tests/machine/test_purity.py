"""The core is deaf and blind."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import wf_orchestrator.machine
import wf_orchestrator.policies

ALLOWED = {
    "__future__", "bisect", "collections", "dataclasses", "datetime", "enum", "hashlib", "heapq", "itertools", "math",
    "msgspec", "pathlib", "sys", "traceback", "types", "typing",
    "wf_core", "wf_core.definitions", "wf_core.durations", "wf_core.errors", "wf_core.expressions",
    "wf_core.expressions.values", "wf_core.graph", "wf_core.ids",
    "wf_core.payload", "wf_core.plan", "wf_core.policies", "wf_core.sentences", "wf_core.states", "wf_core.wire",
    "wf_core.store.codec", "wf_core.store.keys", "wf_core.store.ops",
}  # fmt: skip
SOURCES = [
    path
    for package in (wf_orchestrator.machine, wf_orchestrator.policies)
    for path in sorted(Path(package.__path__[0]).rglob("*.py"))
]


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_impure_is_imported(path):
    """Neither clock, randomness, I/O nor asyncio is imported by the machine and the policies."""
    for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
        assert name in ALLOWED or name.split(".")[0] in ("collections", "wf_orchestrator"), name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_clock_is_read(path):
    """`datetime` is used to format times, never to ask for them."""
    text = path.read_text(encoding="utf-8")
    assert not [word for word in (".now(", ".today(", ".utcnow(", "urandom") if word in text]
