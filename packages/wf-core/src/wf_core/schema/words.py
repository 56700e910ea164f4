"""Words that other engines and people use for what this one calls otherwise: remedies for unknown keys and kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from wf_core.expressions.values import listed
from wf_core.schema.models import keys_of, kinds_with
from wf_core.schema.nodes import KINDS, NodeSchema
from wf_core.suggest import did_you_mean

_KEYS = {
    "depends_on": ("needs", "after", "depends", "dependencies", "dependson", "upstream", "requires", "runafter"),
    "params": ("with", "args", "arguments", "parameters", "inputs", "kwargs", "env"),
    "when": ("if", "condition", "guard", "runif", "skipif"),
    "task": ("uses", "type", "run", "action", "activity", "function", "operator", "ref"),
    "retry": ("retries", "retrypolicy", "maxattempts", "maxretries", "attempts"),
    "nodes": ("steps", "tasks", "jobs", "states", "activities", "do", "body", "templates", "dag"),
    "join": ("triggerrule", "triggerrules", "waitfor"),
    "catch": ("rescue", "onfailure", "exceptions", "errors", "errorhandler"),
    "finally": ("onexit", "always", "cleanup", "exit", "teardown"),
    "compensate": ("rollback", "undo", "compensation"),
    "cache": ("memoize", "memo"),
    "timeout": ("timeoutseconds", "deadline", "activedeadlineseconds", "starttoclose", "starttoclosetimeout"),
    "total_timeout": ("scheduletoclose", "scheduletoclosetimeout"),
    "queue_timeout": ("scheduletostart", "scheduletostarttimeout"),
    "heartbeat": ("heartbeattimeout", "heartbeatseconds"),
    "queue": ("taskqueue", "pool"),
    "max_parallel": ("parallelism", "concurrency", "maxconcurrency", "maxactivetasks"),
    "items": ("foreach", "withitems", "withparam", "itemspath", "over", "in", "list"),
    "as": ("itemvariable", "var", "loopvar", "iterator"),
    "tolerate": ("toleratedfailurecount", "toleratedfailurepercentage", "maxfailures"),
    "max_iterations": ("limit", "max", "maxloops", "times", "count"),
    "until": ("exitcondition", "stopwhen", "breakwhen"),
    "while": ("loopcondition",),
    "cases": ("choices", "branches", "choice", "rules", "conditions", "switch"),
    "default": ("else", "otherwise"),
    "to": ("next", "then", "goto", "targets", "target"),
    "signal": ("event", "waitforsignal", "message"),
    "duration": ("seconds", "sleep", "delay", "for"),
    "assignees": ("approvers", "users", "reviewers"),
    "workflow": ("subworkflow", "childworkflow", "call", "workflowref", "templateref"),
    "output": ("outputs", "result", "results", "returns", "return"),
    "input": ("inputs", "parameters", "params", "arguments", "inputschema"),
    "labels": ("tags", "metadata", "annotations"),
}
"""Each key here, and what others call it, in small letters without `-` and `_`."""
_MEANT: dict[str, list[str]] = {}
for _own, _others in _KEYS.items():
    for _other in _others:
        _MEANT.setdefault(_other, []).append(_own)
_KINDS = {
    "task": ("activity", "step", "script", "action", "operator", "pass", "job", "run"),
    "switch": ("choice", "branch", "if", "condition", "conditional", "router", "gateway", "case", "decision"),
    "map": ("foreach", "forall", "each", "parallel", "withitems", "fanout", "matrix", "for"),
    "loop": ("while", "repeat", "until", "dowhile", "iterate"),
    "workflow": ("subworkflow", "child", "childworkflow", "call", "subdag", "subprocess", "include"),
    "wait": ("sleep", "delay", "timer", "signal", "event", "pause", "sensor"),
    "approval": ("human", "manual", "suspend", "usertask", "confirm", "gate", "input"),
    "end": ("fail", "succeed", "stop", "exit", "terminate", "return", "throw"),
    "dynamic": ("expand", "generate", "dag"),
}
_KIND_OF = {other: kind for kind, others in _KINDS.items() for other in others}
_HOW = {
    "map": "nodes for each item of a list are a node with `kind: map` and `items`",
    "switch": "a choice is a node with `kind: switch`, `cases` and `default`",
    "loop": "repeating is a node with `kind: loop`, `while` or `until`, and `max_iterations`",
    "wait": "waiting is a node with `kind: wait`",
    "workflow": "a child is a node with `kind: workflow`",
    "approval": "asking people is a node with `kind: approval`",
}


def unknown_key_hint(key: str, model: type[BaseModel], around: Any) -> str:
    """What to write in place of a key that `model` does not take; nothing when nothing is close."""
    known = keys_of(model)
    folded = _folded(key)
    is_node = issubclass(model, NodeSchema)
    if is_node and (kinds := kinds_with(key)):
        unsaid = "; write its `kind`" if isinstance(around, Mapping) and "kind" not in around else ""
        return f"; {listed([f'`kind: {kind}`' for kind in kinds])} {'has' if len(kinds) == 1 else 'have'} it{unsaid}"
    for meant in _MEANT.get(folded, ()):
        if meant in known:
            return f"; did you mean {meant!r}?"
    if (close := did_you_mean(key, known)) or not is_node:
        return close
    kind = _KIND_OF.get(folded) or next(
        (holder for meant in _MEANT.get(folded, ()) for holder in kinds_with(meant)), None
    )
    return f"; {_HOW[kind]}" if kind in _HOW else ""


def unknown_kind_hint(kind: str) -> str:
    """`; did you mean 'map'?`, or nothing."""
    meant = _KIND_OF.get(_folded(kind))
    return f"; did you mean {meant!r}?" if meant else did_you_mean(kind, KINDS)


def _folded(word: str) -> str:
    return word.casefold().replace("_", "").replace("-", "")
