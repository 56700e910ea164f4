"""What a worker goes on with: the parameters, and what is left of the tail."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wf_core import wire
from wf_core.continuing import next_of

LIMIT = 1000


def following(node: str, params: bytes = b"{}", *, template: bool = True, **more) -> wire.Following:
    return wire.Following(
        node=f"each[0].{node}", attempt=2, id=node, task=f"t.{node}", params=params, template=template, **more
    )


def message(*after: wire.Following, limit: int = LIMIT, **more) -> wire.TaskMessage:
    return wire.TaskMessage(
        execution="x", node="each[0].a", attempt=1, task="t.a", params=b"{}", workflow="w", queued_at=7, priority=8,
        lost=3, id="a", then=wire.Tail(following=after, limit=limit, **more) if after else None,
    )  # fmt: skip


def test_no_tail():
    """What has no tail is followed by nothing."""
    assert next_of(message(), b"1") is None
    empty = wire.TaskMessage(
        execution="x", node="a", attempt=1, task="t", params=b"{}", workflow="w", queued_at=7,
        then=wire.Tail(following=(), limit=1),
    )  # fmt: skip
    assert next_of(empty, b"1") is None


def test_next_and_rest():
    """The next node has what the tail says of it, and the queue time and priority of the head; the rest is its tail."""
    first = following("b", b'{"v":[ 1.0]}', template=False, timeout_ms=5, heartbeat_ms=6)
    last = following("c", b'{"v":"${{ nodes.a.output }}"}')
    found = next_of(message(first, last, input=b"1"), b'{"k":1}')
    assert found is not None
    assert found[1] == wire.Begin(node="each[0].b", attempt=2, params=b'{"v":[ 1.0]}')
    assert found[0] == wire.TaskMessage(
        execution="x", node="each[0].b", attempt=2, task="t.b", params=b'{"v":[ 1.0]}', workflow="w", queued_at=7,
        priority=8, timeout_ms=5, heartbeat_ms=6, id="b",
        then=wire.Tail(
            following=(last,), limit=LIMIT, input=b"1",
            nodes={"a": b'{"output":{"k":1},"status":"COMPLETED","error":null}'},
        ),
    )  # fmt: skip
    after = next_of(found[0], b"2")
    assert after is not None
    assert (after[1].params, after[0].then) == (b'{"v":{"k":1}}', None)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (b'{"v":"${{ nodes.a.output }}"}', b'{"v":[1,{"x":"\xc3\xa4"}]}'),
        (b'{"v":"${{ nodes.a.status }} ${{ nodes.a.error }}"}', b'{"v":"COMPLETED null"}'),
        (b'{"v":"${{ size(nodes.a.output) + input.n }}"}', b'{"v":5}'),
        (b'{"v":"${{ nodes.z.output.q }}","w":"${{ input }}"}', b'{"v":1.0,"w":{"n":3}}'),
        (b'{"v":"$${{ literal }}"}', b'{"v":"${{ literal }}"}'),
        (b'{"v":123456789012345678901234567890,"w":-0.0}', b'{"v":123456789012345678901234567890,"w":-0.0}'),
    ],
)
def test_templates(params: bytes, expected: bytes):
    """A template sees the nodes that have ended, those of the tail, and the input."""
    seen = {"z": b'{"output":{"q":1.0},"status":"COMPLETED","error":null}'}
    found = next_of(message(following("b", params), nodes=seen, input=b'{"n":3}'), b'[1,{"x":"\xc3\xa4"}]')
    assert found is not None
    assert found[1].params == found[0].params == expected


@pytest.mark.parametrize(
    ("params", "output"),
    [
        (b'{"v":"${{ nodes.a.output.missing }}"}', b"{}"),
        (b'{"v":"${{ nodes.unknown.output }}"}', b"{}"),
        (b'{"v":"${{ input }}"}', b"{}"),
        (b'{"v":"${{ execution.id }}"}', b"{}"),
        (b'{"v":"${{ item }}"}', b"{}"),
        (b'{"v":"${{ 1 / nodes.a.output }}"}', b"0"),
        (b'{"v":"${{ ( }}"}', b"{}"),
        (b'{"v":"${{ nodes.a.output }}"}', b"no JSON"),
        (b'{"v":"${{ timestamp(nodes.a.output) }}"}', b'"0001-01-01T00:00:00+14:00"'),
        (b'{"v":"${{ nodes.a.output }}"}', b'"' + b"x" * LIMIT + b'"'),
    ],
)
def test_what_cannot_be_evaluated(params: bytes, output: bytes):
    """Parameters that cannot be had here are left to the fold, which says what is wrong with them."""
    assert next_of(message(following("b", params)), output) is None


@pytest.mark.parametrize(("limit", "fits"), [(8, True), (7, False)])
def test_limit(limit: int, fits: bool):
    """Parameters have a limit, constants too."""
    assert (next_of(message(following("b", b'{"v":12}', template=False), limit=limit), b"1") is not None) is fits
    assert (next_of(message(following("b", b'{"v":"${{ 12 }}"}'), limit=limit), b"1") is not None) is fits


def test_outputs_are_kept_for_templates_only():
    """Where nobody names them, outputs do not pile up."""
    found = next_of(message(*[following(node, template=False) for node in "bcd"]), b'"long"')
    assert found is not None
    assert found[0].then is not None
    assert found[0].then.nodes == {}


def test_expressions_are_loaded_late():
    """A worker that never meets a template loads neither expressions nor CEL."""
    program = (
        "import sys; from wf_core import wire; from wf_core.continuing import next_of\n"
        "f = wire.Following(node='b', attempt=1, id='b', task='t', params=b'{}')\n"
        "m = wire.TaskMessage(execution='x', node='a', attempt=1, task='t', params=b'{}', workflow='w', queued_at=1,\n"
        "  then=wire.Tail(following=(f,), limit=9))\n"
        "assert next_of(m, b'1')\n"
        "sys.exit(any(name.startswith(('wf_core.expressions', 'wf_core.schema', 'cel')) for name in sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
