"""Documents against the catalogue."""

from __future__ import annotations

import pytest

from wf_core.catalogue import Catalogue, TaskInfo
from wf_core.schema.tasks import check_tasks
from wf_core.schema.validation import parse_document

PARAMS = {
    "type": "object",
    "required": ["url"],
    "additionalProperties": False,
    "properties": {
        "url": {"type": "string", "pattern": "^https?:"},
        "method": {"enum": ["GET", "POST"]},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
        "a/b": {"type": "integer"},
        "either": {
            "anyOf": [{"type": "object", "required": ["x"], "properties": {"x": {"const": 1}}}, {"type": "integer"}]
        },
        "list": {"type": "array", "maxItems": 2, "items": {"type": "integer"}},
    },
}
CATALOGUE = {
    "http.request": TaskInfo(name="http.request", params=PARAMS),
    "core.echo": TaskInfo(name="core.echo", params={}),
    "odd": TaskInfo(name="odd", params={"type": "nonsense"}),
}


def check(params, task="http.request"):
    document = parse_document({"name": "x", "nodes": {"n/1".replace("/", "."): {"task": task, "params": params}}})
    return check_tasks(document, Catalogue(tasks=CATALOGUE, refused=("shell.run",)))


@pytest.mark.parametrize(
    ("params", "places"),
    [
        ({"url": "https://x"}, []),
        ({}, [""]),
        ({"url": 1}, ["/url"]),
        ({"url": "ftp:x", "method": "PUT"}, ["/url", "/method"]),
        ({"url": "https://x", "a/b": "1"}, ["/a~1b"]),
        ({"url": "https://x", "metod": "GET", "q": 1}, ["/metod", "/q"]),
        ({"url": "https://x", "headers": {"h": 1}}, ["/headers/h"]),
        ({"url": "https://x", "either": {"x": 2}}, ["/either"]),
        # what a template gives is not known yet
        ({"url": "${{ input.url }}"}, []),
        ({"url": "ftp://${{ input.host }}"}, []),
        ({"url": "${{ input.url }}", "a/b": "${{ input.n }}"}, []),
        ({"url": "https://x", "either": {"x": "${{ input.x }}"}}, []),
        ({"url": "https://x", "list": ["${{ input.x }}", 2]}, []),
        ({"url": "https://x", "list": ["${{ input.x }}", "2"]}, ["/list/1"]),
        # but keys are never templates, and other values are as they stand
        ({"a/b": "${{ input.n }}"}, [""]),
        ({"url": "${{ input.url }}", "metod": "${{ input.m }}"}, ["/metod"]),
        ({"url": "${{ input.url }}", "method": "PUT"}, ["/method"]),
    ],
)
def test_parameters(params, places):
    """Literal parameters are checked against their task's schema; templates are left to the worker."""
    found = check(params)
    assert sorted(p.pointer for p in found) == sorted(f"/nodes/n.1/params{place}" for place in places)
    assert {p.code for p in found} <= {"wrong_parameter"}


def test_unknown_tasks():
    """An unknown task is refused with the nearest known names."""
    (problem,) = check({}, task="http.requst")
    assert (problem.pointer, problem.code) == ("/nodes/n.1/task", "unknown_task")
    assert "'http.requst'; did you mean 'http.request'?" in problem.detail
    (problem,) = check({}, task="entirely.different")
    assert "did you mean" not in problem.detail


def test_a_task_that_no_worker_may_run():
    """A task that is installed without permission says how to give it, not that nobody knows it."""
    (problem,) = check({}, task="shell.run")
    assert problem.code == "unknown_task"
    assert "is installed, but no live worker is allowed to run it" in problem.detail
    assert "name shell.run in APP_WORKER_ALLOW" in problem.detail


def test_misspelt_parameters():
    """An unknown parameter is refused with the nearest known one."""
    (problem,) = check({"url": "https://x", "metod": "GET"})
    assert problem.detail == "there is no 'metod' here; did you mean 'method'?"


def test_a_schema_that_is_none_is_no_obstacle():
    """A task whose published schema is broken is checked by its worker alone."""
    assert check({"anything": 1}, task="odd") == []
    assert check({"anything": 1}, task="core.echo") == []
