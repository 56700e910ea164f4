"""What `wf run` says before it reports that a task is unknown."""

from __future__ import annotations

import pytest

from wf_core.cli.missing import submit_or_explain
from wf_core.client import ApiError, BadAnswerError, ServerUnreachableError, Worker

DOCUMENT = {"name": "x", "nodes": [{"id": "n", "task": "my.task"}, {"id": "m", "kind": "map", "task": "my.other"}]}
BROKEN = {"my.task": "a reason", "your.task": "not asked for", "tasks.py": "a file"}


class Refusing:
    """A client whose server does not know the task at a pointer."""

    def __init__(self, pointer: str, workers: Exception | None = None) -> None:
        self._problem = {"errors": [{"pointer": pointer, "code": "unknown_task", "detail": "no live worker knows it"}]}
        self._workers = workers

    def submit(self, _document: object) -> None:
        raise ApiError(422, self._problem)

    def workers(self) -> list[Worker]:
        if self._workers is not None:
            raise self._workers
        return [Worker(id="w1", broken=BROKEN)]


def explained(client: Refusing) -> ApiError:
    with pytest.raises(ApiError) as caught:
        submit_or_explain(client, DOCUMENT)
    return caught.value


@pytest.mark.parametrize(
    ("pointer", "said"),
    [
        ("/workflow/nodes/0/task", ["a reason", "a file"]),
        ("/workflow/nodes/1/task", ["a file"]),
        ("/workflow/nodes/7/task", []),
        ("/workflow/nodes/x/task", []),
    ],
)
def test_only_what_may_be_the_reason_is_told(capsys, pointer, said):
    """Reasons of tasks that the document does not name are no help; those of a whole file may be."""
    explained(Refusing(pointer))
    assert capsys.readouterr().err.splitlines() == [f"missing on w1: {reason}" for reason in said]


@pytest.mark.parametrize(
    "error",
    [ApiError(403, {"detail": "no"}), ServerUnreachableError("http://x", "gone"), BadAnswerError("what is this")],
)
def test_workers_that_cannot_be_asked_do_not_hide_the_refusal(capsys, error):
    """The refusal with its problems is what the user has to hear of."""
    assert [p.code for p in explained(Refusing("/workflow/nodes/0/task", error)).problems] == ["unknown_task"]
    assert capsys.readouterr().err == ""
