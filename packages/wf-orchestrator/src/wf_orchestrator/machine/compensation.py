"""What has to be undone, in the order of completion. `ending` runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from wf_orchestrator.machine import evaluate

if TYPE_CHECKING:
    from wf_orchestrator.machine.step import Step


class Compensation(msgspec.Struct, frozen=True, array_like=True):
    """How a completed node is undone: its place in the order of completion, and the parameters, or why there are none.

    It is the field `c:<path>` of the results.
    """

    place: int
    params: bytes = b""
    error: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Compensation)


def remember(step: Step, index: int) -> None:
    """A node completed: what would undo it is kept, with its parameters as they are now.

    When they cannot be evaluated, the compensation fails when its turn comes.
    """
    x, body = step.x, step.x.node(index).compensate
    if body is None:
        return
    place = max((known.place for known in x.compensations.values()), default=0) + 1
    what = f"the object of parameters of the compensation of {x.path(index)!r}"
    try:
        kept = Compensation(place, evaluate.encoded(x, index, body.nodes[0].params, what))
    except evaluate.EVALUATION_ERRORS as error:
        kept = Compensation(place, error=str(error))
    x.compensations[index] = kept
    step.keep("c:" + x.path(index), _encoder.encode(kept))


def unpack(data: bytes) -> Compensation:
    """What `remember` stored."""
    return _decoder.decode(data)
