"""What is particular to the meaning of each kind of node; reads raw values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wf_core.expressions.values import listed
from wf_core.schema.checker import BodyChecker
from wf_core.schema.fields import is_template, templates_in
from wf_core.schema.inputs import schema_problems, value_problems
from wf_core.schema.names import DEFAULT_ITEM, IN_LOOP, IN_MAP, IN_MATCH
from wf_core.schema.places import Place

_TASK_ONLY = ("params", "queue", "priority", "queue_timeout", "heartbeat")
_WAITS = ("duration", "until", "signal", "any", "all")


def _switch(body: BodyChecker, index: int, node_id: str, node: dict[str, Any], here: str) -> None:
    cases = node.get("cases")
    for position, case in enumerate(cases if isinstance(cases, list) else ()):
        if isinstance(case, dict):
            place = f"{here}/cases/{position}"
            body.use_condition(case.get("when"), f"{place}/when", index, body.known_to(node_id))
            _targets(body, index, node_id, case.get("to"), f"{place}/to")
    _targets(body, index, node_id, node.get("default"), f"{here}/default")


def _targets(body: BodyChecker, index: int, node_id: str, ids: Any, pointer: str) -> None:
    for position, other in enumerate(ids if isinstance(ids, list) else ()):
        if body.target(index, other, f"{pointer}/{position}"):
            body.note_switch(node_id, other)


def _map(body: BodyChecker, index: int, node_id: str, node: dict[str, Any], here: str) -> None:
    known = body.known_to(node_id)
    body.use_template(node.get("items"), f"{here}/items", index, known)
    name = node.get("as", DEFAULT_ITEM)
    if name != DEFAULT_ITEM:
        body.check_as(name, f"{here}/as")
    known = known | IN_MAP | ({name} if isinstance(name, str) else set())
    form = _one_of(body, node, here, ("nodes", "task"), "a map needs `nodes`, or a `task` (with `params`)")
    if form == "task":
        _refuse(body, node, here, ("output",), "`nodes`; the output of an item is what the task returns")
    elif form == "nodes":
        _refuse(body, node, here, _TASK_ONLY, "`task`; the nodes inside have their own")
    nodes = node.get("nodes")
    inside = body.inside(index, nodes if isinstance(nodes, dict) else {}, f"{here}/nodes", known)
    inside.check()
    if isinstance(params := node.get("params"), dict):
        inside.use_template(params, f"{here}/params", None, known)
    inside.use_template(node.get("output"), f"{here}/output", None, known)


def _loop(body: BodyChecker, index: int, node_id: str, node: dict[str, Any], here: str) -> None:
    known = body.known_to(node_id) | IN_LOOP
    _one_of(
        body, node, here, ("while", "until"), "a loop needs `while` (tested before each pass) or `until` (after it)"
    )
    body.use_condition(node.get("while"), f"{here}/while", index, known)
    nodes = node.get("nodes")
    inside = body.inside(index, nodes if isinstance(nodes, dict) else {}, f"{here}/nodes", known)
    inside.check()
    inside.use_condition(node.get("until"), f"{here}/until", None, known)
    inside.use_template(node.get("output"), f"{here}/output", None, known)
    if node.get("keep_last") is not None and (undone := _undone(nodes)) is not None:
        detail = f"a pass that is forgotten cannot be undone, and the node {undone!r} inside has `compensate`"
        body.findings.add(f"{here}/keep_last", "beside_compensate", f"{detail}; leave `keep_last` out")


def _undone(nodes: Any) -> str | None:
    """The id of a node, at any depth of these bodies, that has `compensate`; None without one."""
    work = [nodes]
    for inner in work:  # the list is the queue as well: what is appended is visited
        for node_id, node in inner.items() if isinstance(inner, dict) else ():
            if not isinstance(node, dict):
                continue
            if node.get("compensate") is not None:
                return str(node_id)
            if node.get("kind") in ("map", "loop"):
                work.append(node.get("nodes"))
    return None


def _child(body: BodyChecker, index: int, node_id: str, node: dict[str, Any], here: str) -> None:
    body.use_template(node.get("input"), f"{here}/input", index, body.known_to(node_id))
    sentence = "a workflow node needs `workflow` (the name of a definition) or `nodes`"
    form = _one_of(body, node, here, ("workflow", "nodes"), sentence)
    if form == "workflow":
        _refuse(body, node, here, ("output", "defaults"), "`nodes`; a definition has its own")
    elif form == "nodes":
        _refuse(body, node, here, ("version",), "`workflow`")
    for key in ("workflow", "version"):
        if is_template(node.get(key)):
            detail = f"`{key}` may not be a template: definitions are pinned when the execution is created"
            body.findings.add(f"{here}/{key}", "bad_text", detail)
    if isinstance(nodes := node.get("nodes"), dict):
        place = Place({str(inner): at for at, inner in enumerate(nodes)})
        inside = BodyChecker(body.findings, nodes, f"{here}/nodes", place)
        inside.beyond = body.place
        inside.check()
        inside.use_template(node.get("output"), f"{here}/output", None, frozenset())


def _wait(body: BodyChecker, index: int, node_id: str, node: dict[str, Any], here: str) -> None:
    _one_of(body, node, here, _WAITS, f"a wait needs one of {listed([f'`{key}`' for key in _WAITS])}")
    _term(body, index, node_id, node, here)
    for key in ("any", "all"):
        if isinstance(terms := node.get(key), list):
            _terms(body, index, node_id, terms, f"{here}/{key}")
    _on_timeout(body, index, node_id, node, here)


def _terms(body: BodyChecker, index: int, node_id: str, terms: list[Any], here: str) -> None:
    seen: set[str] = set()
    for position, term in enumerate(terms):
        if not isinstance(term, dict):
            continue
        place = f"{here}/{position}"
        form = _one_of(body, term, place, _WAITS[:3], "this needs one of `duration`, `until` and `signal`")
        _term(body, index, node_id, term, place)
        name = term.get("signal") if form == "signal" else form
        if isinstance(name, str):
            if name in seen:
                body.findings.add(place, "duplicate_name", f"{name!r} stands here twice; one of them is enough")
            seen.add(name)


def _term(body: BodyChecker, index: int, node_id: str, term: dict[str, Any], here: str) -> None:
    known = body.known_to(node_id)
    for key in ("duration", "until"):
        if isinstance(term.get(key), str):
            body.use_template(term[key], f"{here}/{key}", index, known)
    if is_template(term.get("signal")):
        body.findings.add(f"{here}/signal", "bad_text", "the name of a signal may not be a template; use `match`")
    body.use_condition(term.get("match"), f"{here}/match", index, known | IN_MATCH)
    if "match" in term and "signal" not in term:
        body.findings.add(f"{here}/match", "conflict", "`match` judges signals: it stands beside `signal` only")


def _approval(body: BodyChecker, index: int, node_id: str, node: dict[str, Any], here: str) -> None:
    body.use_template(node.get("assignees"), f"{here}/assignees", index, body.known_to(node_id))
    if isinstance(schema := node.get("schema"), dict):
        body.findings.problems += schema_problems(schema, f"{here}/schema")
        _answer_of_timeout(body, schema, node.get("on_timeout"), f"{here}/on_timeout/value")
    _on_timeout(body, index, node_id, node, here)


def _answer_of_timeout(body: BodyChecker, schema: dict[str, Any], on_timeout: Any, pointer: str) -> None:
    """The value that stands for an answer is checked as one, unless templates make it."""
    if isinstance(on_timeout, dict) and "value" in on_timeout and not list(templates_in(on_timeout["value"])):
        body.findings.problems += value_problems(schema, on_timeout["value"], pointer)


def _on_timeout(body: BodyChecker, index: int, node_id: str, node: dict[str, Any], here: str) -> None:
    if "on_timeout" not in node:
        return
    if "timeout" not in node:
        body.findings.add(f"{here}/on_timeout", "conflict", "`on_timeout` means nothing without `timeout`; add one")
    if isinstance(node["on_timeout"], dict):
        value = node["on_timeout"].get("value")
        body.use_template(value, f"{here}/on_timeout/value", index, body.known_to(node_id))


def _end(body: BodyChecker, index: int, node_id: str, node: dict[str, Any], here: str) -> None:
    for key in ("output", "error"):
        body.use_template(node.get(key), f"{here}/{key}", index, body.known_to(node_id))
    if node.get("status", "COMPLETED") == "COMPLETED":
        _refuse(body, node, here, ("error",), "`status: FAILED` or `status: CANCELLED`")
    else:
        _refuse(body, node, here, ("output",), "`status: COMPLETED`")


def _dynamic(body: BodyChecker, index: int, node_id: str, node: dict[str, Any], here: str) -> None:
    if isinstance(node.get("nodes"), str):
        body.use_template(node["nodes"], f"{here}/nodes", index, body.known_to(node_id))


def _one_of(body: BodyChecker, node: Mapping[str, Any], here: str, keys: Sequence[str], sentence: str) -> str | None:
    """Which of `keys` the node has; None, and a problem, when it has none or several."""
    given = [key for key in keys if node.get(key) is not None]
    if len(given) == 1:
        return given[0]
    if given:
        body.findings.add(here, "conflict", f"{sentence}, not {listed([f'`{key}`' for key in given])} together")
    else:
        body.findings.add(here, "missing_key", sentence)
    return None


def _refuse(body: BodyChecker, node: Mapping[str, Any], here: str, keys: Sequence[str], beside: str) -> None:
    for key in keys:
        if key in node:
            body.findings.add(f"{here}/{key}", "conflict", f"`{key}` may stand only beside {beside}")


CHECKS: Mapping[str, Callable[[BodyChecker, int, str, dict[str, Any], str], None]] = {
    "switch": _switch,
    "map": _map,
    "loop": _loop,
    "workflow": _child,
    "wait": _wait,
    "approval": _approval,
    "end": _end,
    "dynamic": _dynamic,
}
