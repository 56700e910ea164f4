"""What has to be undone, in the order of completion. `ending` runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from wf_orchestrator.machine import evaluate

if TYPE_CHECKING:
    from wf_orchestrator.machine.state import Execution
    from wf_orchestrator.machine.step import Step


class Compensation(msgspec.Struct, frozen=True, array_like=True):
    """How a completed node is undone: its place in the order of completion, and the parameters, or why there are none.

    It is the field `c:<path>` of the results.
    """

    place: int
    params: bytes = b""
    error: str = ""


_FEW = 100
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Compensation)


def remember(step: Step, index: int) -> None:
    """A node completed: what would undo it is kept, with its parameters as they are now.

    When they cannot be evaluated, the compensation fails when its turn comes.
    """
    x, body = step.x, step.x.node(index).compensate
    if body is None:
        return
    place = 1 if (newest := last(x)) is None else x.compensations[newest].place + 1
    what = f"the object of parameters of the compensation of {x.path(index)!r}"
    try:
        kept = Compensation(place, evaluate.encoded(x, index, body.nodes[0].params, what))
    except evaluate.EVALUATION_ERRORS as error:
        kept = Compensation(place, error=str(error))
    x.compensations[index] = kept
    x.undoing.append((place, index))
    if len(x.undoing) > 2 * len(x.compensations) + _FEW:
        x.undoing = in_order(x)
    step.keep("c:" + x.path(index), _encoder.encode(kept))


def last(x: Execution) -> int | None:
    """Of the nodes that may have to be undone, the one that completed last; None when there is none."""
    while x.undoing:
        place, index = x.undoing[-1]
        kept = x.compensations.get(index)
        if kept is not None and kept.place == place:
            return index
        x.undoing.pop()  # it need not be undone any more
    return None


def in_order(x: Execution) -> list[tuple[int, int]]:
    """The places of all nodes that may have to be undone, with the nodes."""
    return sorted((kept.place, index) for index, kept in x.compensations.items())


def unpack(data: bytes) -> Compensation:
    """What `remember` stored."""
    return _decoder.decode(data)
