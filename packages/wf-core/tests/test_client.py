"""The client: what it sends, what it makes of answers, when it tries again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("httpx")

from wf_core.client import (
    ApiError,
    AsyncClient,
    BadAnswerError,
    Client,
    Delivery,
    ServerUnreachableError,
    StillRunningError,
)

ID = "0" * 28
QUICK = Delivery(attempts=3, pause=0.001)


@pytest.fixture
def client(script) -> Iterator[Client]:
    """A client of the scripted server."""
    with Client(script.url, api_key="secret", delivery=QUICK) as found:
        yield found


def execution(status: str, **rest: Any) -> dict[str, Any]:
    """An execution as the server shows it."""
    return {"execution_id": ID, "name": "n", "status": status, "unknown_to_this_client": 1, **rest}


def test_submit_sends_an_envelope(script, client):
    """A submission is an envelope with an idempotency key and the API key; its answer is typed."""
    script.will(201, {"execution_id": ID, "status": "PENDING"})
    made = client.submit({"name": "n"}, input={"big": 2**80}, labels={"a": "b"}, trigger=True, idempotency_key="k")
    method, path, headers, body = script.asked[0]
    assert (method, path) == ("POST", "/workflow?trigger=true")
    assert body == {"workflow": {"name": "n"}, "input": {"big": 2**80}, "labels": {"a": "b"}}
    assert headers["Idempotency-Key"] == "k"
    assert headers["Authorization"] == "Bearer secret"
    assert made.execution_id == ID


def test_a_batch_is_one_request(script, client):
    """A batch is an envelope with a list of inputs; its answer has them in order, and its problems their places."""
    script.will(201, {"executions": [{"execution_id": ID, "status": "RUNNING", "applied": False}] * 2})
    script.will(422, {"errors": [{"pointer": "/inputs/1", "code": "wrong_input", "detail": "'day' is missing"}]})
    made = client.submit_batch("etl@2", [{"day": 2**80}, None], labels={"a": "b"}, trigger=True, idempotency_key="k")
    assert [one.execution_id for one in made.executions] == [ID, ID]
    with pytest.raises(ApiError) as refused:
        client.submit_batch({"name": "n"}, [{}, {}])
    assert [problem.pointer for problem in refused.value.problems] == ["/inputs/1"]
    method, path, headers, body = script.asked[0]
    assert (method, path) == ("POST", "/workflow/batch?trigger=true")
    assert body == {"workflow": "etl@2", "inputs": [{"day": 2**80}, None], "labels": {"a": "b"}}
    assert headers["Idempotency-Key"] == "k"


def test_many_are_several_batches(script, client):
    """More inputs than a batch takes go in several, each under a key of its own that follows from the caller's."""
    sizes = [1000, 1000, 500]
    for _ in range(2):
        for size in sizes:
            script.will(201, {"executions": [{"execution_id": ID, "status": "PENDING"}] * size})
    for _ in range(2):
        assert len(client.submit_many({"name": "n"}, ({"n": n} for n in range(2500)), idempotency_key="k")) == 2500
    bodies = [body["inputs"] for _, _, _, body in script.asked]
    assert [value["n"] for part in bodies[:3] for value in part] == list(range(2500))
    assert [len(part) for part in bodies] == sizes * 2
    keys = [headers["Idempotency-Key"] for _, _, headers, _ in script.asked]
    assert keys[:3] == keys[3:]
    assert len(set(keys)) == 3


def test_long_inputs_are_several_batches():
    """Inputs that are long together go in several batches; one that is longer alone goes alone."""
    from wf_core.client.batches import parts_of

    long, longest = "x" * 1_500_000, "x" * 6_000_000
    parts = list(parts_of([long, long, long, longest, 1]))
    assert [(part.first, len(part.inputs)) for part in parts] == [(0, 2), (2, 1), (3, 1), (4, 1)]


def test_values_keep_integers_of_any_size(script, client):
    """Outputs come back as they were."""
    script.will(200, {"execution_id": ID, "status": "COMPLETED", "output": 2**80, "results": {"a": [2**70]}})
    assert client.results(ID).output == 2**80


def test_node_names_are_encoded(script, client):
    """Any node id can stand in an address."""
    script.will(200, {"node": "a b?#%", "status": "PENDING"})
    client.node(ID, "a b?#%")
    assert script.asked[0][1] == f"/workflows/{ID}/nodes/a%20b%3F%23%25"


def test_commands(script, client):
    """Each command is a POST with its own body, and carries a key so that it may be repeated."""
    for _ in range(5):
        script.will(200, {"execution_id": ID, "status": "RUNNING"})
    client.pause(ID, reason="late")
    client.resume(ID)
    client.retry(ID, nodes=["price[3]/one"], input={"day": 1})
    client.signal(ID, "go/on", payload=[1])
    assert client.approve(ID, "m[0]/ask", answer=True).applied
    assert [(method, path, body) for method, path, _, body in script.asked] == [
        ("POST", f"/workflows/{ID}/pause", {"reason": "late"}),
        ("POST", f"/workflows/{ID}/resume", {}),
        ("POST", f"/workflows/{ID}/retry", {"from": ["price[3]/one"], "input": {"day": 1}}),
        ("POST", f"/workflows/{ID}/signals/go%2Fon", {"payload": [1]}),
        ("POST", f"/workflows/{ID}/approvals/m%5B0%5D%2Fask", {"answer": True}),
    ]
    assert all(headers["Idempotency-Key"] for _, _, headers, _ in script.asked)


def test_nodes_inside_containers(script, client):
    """Nodes under a container, with what is shown of each."""
    attempt = {
        "attempt": 1,
        "status": "FAILED",
        "class": "crash",
        "error": {"type": "E", "message": "m", "causes": [{"type": "C", "message": "n"}]},
    }
    script.will(200, {"items": [{"node": "m[0]", "status": "WAITING", "progress": {"total": 3}}], "next_cursor": None})
    script.will(200, {"node": "m[0]", "status": "FAILED", "child": {"execution_id": ID}, "history": [attempt]})
    assert client.all_nodes(ID, under="m[0]")[0].progress == {"total": 3}
    assert script.asked[0][1] == f"/workflows/{ID}/nodes?under=m%5B0%5D"
    node = client.node(ID, "m[0]")
    assert node.child.execution_id == ID
    assert (node.history[0].class_, node.history[0].error.causes[0].type) == ("crash", "C")


def test_problems_become_errors(script, client):
    """A refusal carries status, slug, detail and every problem with its pointer."""
    errors = [{"pointer": "/nodes/a", "code": "cycle", "detail": "a needs itself"}]
    script.will(422, {"type": "/problems/invalid-document", "detail": "It is wrong.", "errors": errors})
    with pytest.raises(ApiError, match="It is wrong") as caught:
        client.submit({})
    assert (caught.value.status, caught.value.slug) == (422, "invalid-document")
    assert caught.value.problems[0].pointer == "/nodes/a"


def test_several_problems_are_told(script, client):
    """The text of the error has each of the first problems with its place."""
    errors = [{"pointer": place, "code": "missing_key", "detail": f"no {place}"} for place in ("/name", "/nodes")]
    script.will(422, {"detail": "2 things are wrong.", "errors": errors})
    with pytest.raises(ApiError, match=r"422 2 things are wrong\. /name: no /name; /nodes: no /nodes"):
        client.submit({})


@pytest.mark.parametrize("body", [b"<html>", [1], {"errors": "x"}])
def test_strange_refusals(script, client, body):
    """A refusal from something else than our API is still an ApiError."""
    script.will(404, body)
    with pytest.raises(ApiError) as caught:
        client.get(ID)
    assert caught.value.status == 404


@pytest.mark.parametrize("body", [b"<html>", {"hello": 1}])
def test_strange_answers(script, client, body):
    """A success of another shape names what was asked."""
    script.will(200, body)
    with pytest.raises(BadAnswerError, match="GET /workflows"):
        client.get(ID)


def test_tries_again_while_unavailable(script, client):
    """503 is tried again, and a POST then carries the same idempotency key and body."""
    script.will(503, {}, Retry_After="0").hang_up().will(201, {"execution_id": ID, "status": "PENDING"})
    client.submit({"name": "n"})
    assert len(script.asked) == 3
    assert len({headers["Idempotency-Key"] for _, _, headers, _ in script.asked}) == 1
    assert all(body == script.asked[0][3] for _, _, _, body in script.asked)


def test_gives_up(script, client):
    """After so many attempts the last answer counts."""
    for _ in range(3):
        script.will(503, {"detail": "Redis is away."})
    with pytest.raises(ApiError, match="Redis is away"):
        client.get(ID)


def test_refusals_are_not_repeated(script, client):
    """What a repetition cannot change is asked once."""
    script.will(409, {"detail": "It runs."})
    with pytest.raises(ApiError):
        client.trigger(ID)
    assert len(script.asked) == 1


def test_unreachable():
    """Nobody at the address: the error names it."""
    with Client("http://127.0.0.1:1", delivery=QUICK) as client, pytest.raises(ServerUnreachableError, match=":1"):
        client.get(ID)


def test_unusable_address():
    """An address that is none is the same error."""
    with Client("nonsense://x", delivery=QUICK) as client, pytest.raises(ServerUnreachableError):
        client.get(ID)


def test_no_answer_in_time(script):
    """A server that hangs is left after the timeout."""
    with Client(script.url, timeout=0.05, delivery=Delivery(attempts=1)) as client:
        script.will(200, execution("RUNNING"))
        script.hold.clear()
        with pytest.raises(ServerUnreachableError):
            client.get(ID)
        script.hold.set()


def test_wait_polls_until_the_end(script, client):
    """`wait` looks again until the execution has ended, and returns it whole."""
    script.will(200, execution("RUNNING")).will(200, execution("COMPLETED")).will(200, execution("COMPLETED", output=1))
    assert client.wait(ID, poll=0.001).output == 1


def test_wait_gives_up(script, client):
    """`wait` ends after its timeout with the execution as it stands."""
    for _ in range(2):
        script.will(200, execution("RUNNING"))
    with pytest.raises(StillRunningError, match="RUNNING"):
        client.wait(ID, timeout=0.001)


def test_all_nodes_follows_cursors(script, client):
    """`all_nodes` collects the pages."""
    script.will(200, {"items": [{"node": "a", "status": "PENDING"}], "next_cursor": "c"})
    script.will(200, {"items": [{"node": "b", "status": "PENDING"}], "next_cursor": None})
    assert [item.node for item in client.all_nodes(ID)] == ["a", "b"]
    assert "cursor=c" in script.asked[1][1]


def test_dead_letters(script, client):
    """They are listed, sent, edited or not, and discarded; numbers in a record keep all their digits."""
    letter = {"id": 3, "status": "waiting", "topic": "wf.events", "partition": 0, "reason": "no record", "source": "o"}
    script.will(200, {"items": [{**letter, "bytes": 9, "record": {"n": 2**70}}], "next_cursor": None})
    script.will(200, {**letter, "bytes": 9, "data": "eA=="})
    for status in ("sent", "sent", "discarded"):
        script.will(200, {"id": 3, "status": status, "settled_at": "2026-01-31T12:00:00Z", "position": None})
    (listed,) = client.dead_letters(limit=1).items
    assert listed.record == {"n": 2**70}
    assert client.dead_letter(3).data == "eA=="
    assert client.send_dead_letter(3).status == "sent"
    client.send_dead_letter(3, record={"kind": "x"}, again=True)
    assert client.discard_dead_letter(3).status == "discarded"
    assert [(method, path, body) for method, path, _, body in script.asked] == [
        ("GET", "/dead-letters?limit=1", None),
        ("GET", "/dead-letters/3", None),
        ("POST", "/dead-letters/3/send", {}),
        ("POST", "/dead-letters/3/send?again=true", {"record": {"kind": "x"}}),
        ("POST", "/dead-letters/3/discard", {}),
    ]


async def test_the_other_client_awaits(script):
    """AsyncClient has the same operations with the same answers and errors."""
    script.will(503, {}).will(200, execution("COMPLETED", output=2)).will(404, {"detail": "gone"})
    async with AsyncClient(script.url, delivery=QUICK) as client:
        assert (await client.get(ID)).output == 2
        with pytest.raises(ApiError, match="gone"):
            await client.get(ID)


def test_both_clients_have_the_same_operations():
    """No operation of one client is missing in the other."""

    def operations(kind: type) -> dict[str, Callable[..., Any]]:
        return {n: v for n, v in vars(kind).items() if hasattr(v, "__wrapped__")}

    assert operations(Client).keys() == operations(AsyncClient).keys()
    assert "submit" in operations(Client)


def test_definitions_have_their_addresses(script, client):
    """Each operation on definitions is one request, its name encoded; removing is not repeated by itself."""
    version = {"hash": "h", "version": "1", "created_at": None}
    script.will(200, {"items": [{**version, "name": "a b", "versions": 2}], "next_cursor": None})
    script.will(200, {**version, "name": "a b", "document": {"name": "a b"}, "versions": [version]})
    script.will(201, {**version, "name": "a b", "warnings": []})
    script.will(201, {"execution_id": ID, "status": "RUNNING"})
    script.will(200, {"name": "a b", "removed": 2})
    assert client.definitions(limit=5).items[0].versions == 2
    assert client.registered("a b", version="1").document == {"name": "a b"}
    assert client.register({"name": "a b"}, allow_unknown=True).hash == "h"
    assert client.submit_registered("a b", version="1", input={"x": 1}, trigger=True, idempotency_key="k").status
    assert client.unregister("a b").removed == 2
    assert [(method, path) for method, path, _, _ in script.asked] == [
        ("GET", "/definitions?limit=5"),
        ("GET", "/definitions/a%20b?version=1"),
        ("PUT", "/definitions/a%20b?allow_unknown=true"),
        ("POST", "/definitions/a%20b/executions?trigger=true"),
        ("DELETE", "/definitions/a%20b"),
    ]
    assert script.asked[2][3] == {"name": "a b"}
    assert script.asked[3][3] == {"version": "1", "input": {"x": 1}}
