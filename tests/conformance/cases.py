"""The cases: what is given, what is expected, and where it comes from.

A case is `{name, source: {system, what, url}, note, only, given, expect}`. `note` says how their words map to ours and
where we knowingly differ. `only: api` is about the door, not the machine: it does not run in the harness.

given
  workflow, text     the document, or the text of one; input: its input
  definitions        name → document, or a list of versions, the newest last
  before             how many earlier executions of the same document still run
  trigger            false: nobody starts it
  do                 steps `{at, after, <verb>: arguments, answers}`. `at` is a moment: created, ended, {node, is},
                     {child, is}, {execution}; `after` a duration from then; `answers` an HTTP status, 200 by default;
                     the verbs are those of the API, and `check`, which looks
expect
  status, output     of the execution; error: its type, node, attempt and a part of its message, null for none
  nodes, attempts, outputs    by path: status, number, value; absent: paths that never came to be
  order              lists of "x starts" and "x ends", none earlier than the one before
  gaps, lasts        by path: ms at least between its attempts, in all
  most               by path of a map: items that run at once
  children           by path: what is expected of the child
  before             what is expected of each earlier execution; apart, together: the id of a node that did not (or did)
                     run in two of them at once
  refused            JSON pointers, all of them
  varies             beginnings of paths that need not be the same in two runs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from wf_core.schema.loading import load_yaml

FOLDER = Path(__file__).parent / "cases"
TASKS = Path(__file__).parent / "tasks"
SYSTEMS = {
    "airflow": "Apache Airflow",
    "argo": "Argo Workflows",
    "conductor": "Conductor",
    "serverless-workflow": "CNCF Serverless Workflow",
    "step-functions": "AWS Step Functions",
}
VERBS = ("trigger", "cancel", "pause", "resume", "retry", "signal", "approve", "check")
_KNOWN = {"name", "source", "note", "only", "given", "expect"}


@dataclass(frozen=True)
class Step:
    """Something that a user does at a moment, or (`check`) sees then."""

    at: Any
    verb: str
    arguments: Mapping[str, Any]
    after: str | float = 0
    answers: int = 200

    def __str__(self) -> str:
        return f"{self.verb} {dict(self.arguments)} at {self.at}"


@dataclass(frozen=True)
class Case:
    """One row of the data."""

    topic: str
    name: str
    source: Mapping[str, str]
    given: Mapping[str, Any]
    expect: Mapping[str, Any]
    note: str = ""
    only: str = ""
    steps: tuple[Step, ...] = field(default=())

    @property
    def id(self) -> str:
        """Unique over all topics; also the name of its test."""
        return f"{self.topic}: {self.name}"

    @property
    def definitions(self) -> dict[str, list[dict[str, Any]]]:
        """Versions of each definition, the newest last."""
        given: Mapping[str, Any] = self.given.get("definitions", {})
        return {name: found if isinstance(found, list) else [found] for name, found in given.items()}


def _step(values: Mapping[str, Any]) -> Step:
    (verb,) = (key for key in values if key in VERBS)
    rest = set(values) - {verb, "at", "after", "answers"}
    if rest:
        raise ValueError(f"a step holds unknown keys: {rest}")
    return Step(values["at"], verb, values[verb], values.get("after", 0), values.get("answers", 200))


def _case(topic: str, values: Mapping[str, Any]) -> Case:
    if unknown := set(values) - _KNOWN:
        raise ValueError(f"the case {values.get('name')!r} of {topic} holds unknown keys: {unknown}")
    steps = tuple(_step(step) for step in values["given"].get("do", ()))
    return Case(topic, steps=steps, **values)


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case, by topic. Raises ValueError for one that is written wrongly."""
    found: list[Case] = []
    for file in sorted(FOLDER.glob("*.yaml")):
        rows = load_yaml(file.read_bytes())["cases"]
        found += [_case(file.stem, row) for row in rows]
    return tuple(found)
