"""What a worker gives to the nodes of a tail is what the fold would have given them, byte for byte."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wf_core import wire
from wf_core.continuing import next_of
from wf_orchestrator.machine.effects import Dispatch

CHAIN = ("n0", "n1", "n2", "n3")

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
outputs = st.fixed_dictionaries({"v": values, "n": st.integers(-(2**70), 2**70), "l": st.lists(values, max_size=3)})


def templates(number: int) -> st.SearchStrategy[Any]:
    """Parameters of a node of the chain: expressions about what is before it, among constants."""
    seen = st.sampled_from(["z", *CHAIN[:number]])
    texts = st.one_of(
        st.sampled_from(["${{ input }}", "${{ input.n }}", "$${{ no }}", "${{ {'b': 1, 'a': 2.0} }}", "plain"]),
        seen.map("${{{{ nodes.{0}.output }}}}".format),
        seen.map("${{{{ nodes.{0}.output.v }}}}".format),
        seen.map("${{{{ nodes['{0}'].output.l[0] }}}}".format),
        seen.map("<${{{{ nodes.{0}.output.v }}}} ${{{{ nodes.{0}.status }}}} ${{{{ nodes.{0}.error }}}}>".format),
        seen.map("${{{{ nodes.{0}.output.n + 1 }}}}".format),
        seen.map("${{{{ nodes.{0}.output.l.map(x, [x, input.n]) }}}}".format),
        seen.map(
            "${{{{ timestamp('2026-01-01T00:00:00Z') + duration(string(size(nodes.{0}.output.l)) + 's') }}}}".format
        ),
    )
    return st.dictionaries(st.sampled_from("pqrs"), texts | values | st.lists(texts, max_size=2), max_size=3)


def message_of(outcome: Any, node: str) -> wire.TaskMessage | None:
    """The message of a node that was dispatched."""
    found = [e.message for e in outcome.effects if isinstance(e, Dispatch) and e.message.node == node]
    return found[0] if found else None


@settings(deadline=None)
@given(
    params=st.tuples(*(templates(number) for number in range(1, len(CHAIN)))),
    given_outputs=st.tuples(*[outputs] * len(CHAIN)),
    value=st.fixed_dictionaries({"n": values}),
)
def test_same_parameters(world, params, given_outputs, value):
    """Step by step: what the machine dispatches is what the worker would have begun, or both cannot evaluate it."""
    nodes: dict[str, Any] = {"z": {"task": "t"}, "n0": {"task": "t", "depends_on": ["z"]}}
    for node, before, template in zip(CHAIN[1:], CHAIN, params, strict=False):
        nodes[node] = {"task": "t", "depends_on": [before], "params": template}
    w = world({"nodes": nodes}, check=False).start(value)
    message = message_of(w.done("z", output=given_outputs[0]), "n0")
    for node, after, output in zip(CHAIN, CHAIN[1:], given_outputs, strict=False):
        assert message is not None
        assert message.then is not None
        assert [one.id for one in message.then.following] == list(CHAIN[CHAIN.index(after) :])
        found = next_of(message, json.dumps(output).encode())
        dispatched = message_of(w.done(node, output=output), after)
        if found is None or dispatched is None:
            assert found is None
            assert dispatched is None
            assert w.status(after) == "FAILED"
            return
        message, begin = found
        assert begin == wire.Begin(node=after, attempt=dispatched.attempt, params=dispatched.params)
        assert (message.task, message.timeout_ms, message.id) == (dispatched.task, dispatched.timeout_ms, after)
