"""What commands ask of the server and say about its answers, with a server that answers as told."""

from __future__ import annotations

import json

import pytest

ID = "01k7zzzzzz0123456789abcdef00"
ATTEMPT = {
    "attempt": 1,
    "status": "FAILED",
    "class": "crash",
    "worker": "w1",
    "host": "h1",
    "error": {
        "type": "OSError",
        "message": "away",
        "traceback": "Traceback ...",
        "causes": [{"type": "KeyError", "message": "'host'"}],
    },
    "log_tail": "trying\nstill trying\n",
    "decision": "retry",
    "reason": "1 of 3 retries",
}
DOCUMENT = {
    "name": "n",
    "nodes": {
        "a": {"task": "core.noop"},
        "price": {"kind": "map", "items": [1, 2, 3], "depends_on": ["a"], "nodes": {"one": {"task": "shop.price"}}},
    },
    "finally": {"clean": {"task": "core.noop"}},
}


@pytest.fixture
def cli(wf, script):
    """Runs `wf` against the scripted server."""
    return lambda *arguments, **rest: wf(*arguments, "--server", script.url, **rest)


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        (("pause", ID, "--reason", "late"), "pause", {"reason": "late"}),
        (("resume", ID), "resume", {}),
        (("cancel", ID), "cancel", {"reason": ""}),
        (("retry", ID), "retry", {}),
        (
            ("retry", ID, "--from", "a", "--from", "m[0]/x", "--input", "day=7"),
            "retry",
            {"from": ["a", "m[0]/x"], "input": {"day": 7}},
        ),
        (("signal", ID, "go"), "signals/go", {"payload": None}),
        (("signal", ID, "go", "--payload", '{"n": 1}'), "signals/go", {"payload": {"n": 1}}),
        (("approve", ID, "m[0]/ask", "--answer", "yes"), "approvals/m%5B0%5D%2Fask", {"answer": "yes"}),
    ],
)
def test_orders(cli, script, arguments, path, body):
    """Each command is one request, and prints the status that it led to."""
    script.will(200, {"execution_id": ID, "status": "RUNNING"})
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (0, f"{ID}  RUNNING\n"), done.stderr
    assert [(asked[1], asked[3]) for asked in script.asked] == [(f"/workflows/{ID}/{path}", body)]


def test_values_from_files(cli, script, tmp_path):
    """An answer or a payload may come from a file of any JSON or YAML value, or from stdin."""
    (tmp_path / "answer.yaml").write_text("- 1\n- two\n")
    for _ in range(2):
        script.will(202, {"execution_id": ID, "status": "RUNNING", "applied": False, "position": "0:1"})
    done = cli("approve", ID, "ask", "--answer", "@answer.yaml")
    assert "no orchestrator has applied it" in done.stdout
    cli("signal", ID, "go", "--payload", "@-", stdin='{"n": 2}')
    assert [asked[3] for asked in script.asked] == [{"answer": [1, "two"]}, {"payload": {"n": 2}}]
    assert cli("signal", ID, "go", "--payload", "@nowhere.json").returncode == 2


def test_refusals(cli, script):
    """A refused answer says what its schema wants and where; an unknown node exits 3."""
    problem = {"pointer": "/answer/yes", "code": "wrong_answer", "detail": "it is no boolean"}
    script.will(422, {"title": "t", "detail": "wrong", "errors": [problem]})
    done = cli("approve", ID, "ask", "--answer", '{"yes": 1}')
    assert done.returncode == 2
    assert "/answer/yes: it is no boolean" in done.stderr
    script.will(404, {"type": "/problems/unknown-node", "title": "t", "detail": "no such node; did you mean 'ask'?"})
    done = cli("approve", ID, "aks")
    assert done.returncode == 3
    assert "did you mean 'ask'?" in done.stderr


def test_nodes_under_a_container(cli, script):
    """`wf nodes --under` lists what is inside, with progress where there is some."""
    items = [
        {"node": "price[0]/one", "status": "RUNNING", "task": "shop.price", "progress": {"rows": 3}},
        {"node": "price[0]/l", "status": "WAITING", "kind": "loop", "progress": {"total": 5, "opened": 3, "pass": 2}},
    ]
    script.will(200, {"items": items, "next_cursor": None})
    lines = cli("nodes", ID, "--under", "price[0]").stdout.splitlines()
    assert script.asked[0][1] == f"/workflows/{ID}/nodes?under=price%5B0%5D"
    assert lines[1].split()[:3] == ["price[0]/one", "shop.price", "RUNNING"]
    assert '{"rows": 3}' in lines[1]
    assert "(loop)" in lines[2]
    assert "pass 3 of at most 5" in lines[2]


def test_a_nested_node(cli, script):
    """`wf node` shows a node at any path with its child, its compensation, and each attempt in full."""
    undo = {"node": "price[0]/one~compensate", "status": "COMPLETED", "task": "shop.undo"}
    script.will(
        200,
        {
            "node": "price[0]/one",
            "status": "FAILED",
            "kind": "workflow",
            "child": {"execution_id": ID},
            "compensation": undo,
            "history": [ATTEMPT],
        },
    )
    done = cli("node", ID, "price[0]/one")
    assert script.asked[0][1] == f"/workflows/{ID}/nodes/price%5B0%5D%2Fone"
    assert done.stdout.splitlines() == [
        "node      price[0]/one",
        "task      (workflow)",
        "status    FAILED",
        f"child     {ID}",
        "undone    COMPLETED by shop.undo (price[0]/one~compensate)",
        "",
        "attempt 1  FAILED (crash)  -  on w1 at h1",
        "  OSError: away",
        "  because of KeyError: 'host'",
        "  Traceback ...",
        "  it said last:",
        "  | trying",
        "  | still trying",
        "  -> retry: 1 of 3 retries",
    ]


def test_show_draws_the_tree(cli, script):
    """`wf show` ends with the tree: containers with their progress and what stands open inside."""
    nodes = {
        "a": {"status": "COMPLETED", "attempts": 1},
        "price": {
            "status": "WAITING",
            "attempts": 1,
            "kind": "map",
            "progress": {"total": 3, "opened": 2, "ended": 1, "failed": 0, "pass": None},
        },
        "clean": {"status": "PENDING"},
    }
    counts = {"COMPLETED": 2, "WAITING": 1, "RUNNING": 1, "PENDING": 1}
    found = {"execution_id": ID, "name": "n", "status": "RUNNING", "nodes": nodes, "nodes_omitted": 0, "counts": counts}
    inside = [{"node": "price[1]/one", "status": "RUNNING", "task": "shop.price", "worker": "w1"}]
    script.will(200, found).will(200, DOCUMENT).will(200, {"items": inside, "next_cursor": None})
    done = cli("show", ID, "--ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-5:] == [
        "* n  01k7zzzzzz01...  RUNNING  2/5  ######..........",
        "|-+ a",
        "|-* price  1/3",
        "| `-* price[1]/one  running  on w1",
        "`-o clean",
    ]
    assert script.asked[2][1] == f"/workflows/{ID}/nodes?under=price&status=FAILED%2CRETRYING%2CRUNNING&limit=20"


def test_results_of_an_inner_node(cli, script):
    """Results hold the top level; an inner node's output is asked for by itself."""
    script.will(200, {"execution_id": ID, "status": "RUNNING", "results": {"a": 1}})
    script.will(200, {"node": "price[0]/one", "status": "COMPLETED", "output": [7]})
    assert json.loads(cli("results", ID, "--node", "price[0]/one").stdout) == [7]
    script.will(200, {"execution_id": ID, "status": "RUNNING", "results": {"a": 1}})
    script.will(200, {"node": "price", "status": "WAITING"})
    done = cli("results", ID, "--node", "price")
    assert done.returncode == 3
    assert "it is WAITING" in done.stderr


def test_pages_are_gathered(cli, script):
    """`wf ls` asks for pages until it has what it was asked for, and says when there is more."""
    page = [{"execution_id": ID, "name": "n", "status": "RUNNING"}]
    script.will(200, {"items": page * 200, "next_cursor": "c"}).will(200, {"items": page * 50, "next_cursor": "d"})
    done = cli("ls", "--limit", "250")
    assert len(done.stdout.splitlines()) == 251
    assert "more with --limit" in done.stderr
    assert [asked[1] for asked in script.asked] == ["/workflows?limit=200", "/workflows?cursor=c&limit=50"]


def test_dead_letters_are_gathered_as_well(cli, script):
    """`wf dlq ls` and `wf definitions ls` go through pages as `wf ls` does."""
    letter = {"id": 1, "topic": "t", "partition": 0, "ts": "2026-01-01T00:00:00Z", "reason": "r", "status": "OPEN"}
    letter |= {"source": "worker", "bytes": 1}
    script.will(200, {"items": [letter] * 100, "next_cursor": "c"}).will(200, {"items": [letter], "next_cursor": "d"})
    assert "the newest 101; more with --limit" in cli("dlq", "ls", "--limit", "101").stderr
    named = {"name": "n", "hash": "h", "version": "1", "versions": 1, "created_at": "2026-01-01T00:00:00Z"}
    script.will(200, {"items": [named], "next_cursor": "e"})
    assert "the first 1; more with --limit" in cli("definitions", "ls", "--limit", "1").stderr
    paths = [asked[1] for asked in script.asked]
    assert paths == ["/dead-letters?limit=100", "/dead-letters?cursor=c&limit=1", "/definitions?limit=1"]


def test_why(cli, script):
    """`wf why` prints a sentence for each cause."""
    causes = [{"sentence": "price waits for a.", "code": "upstream", "node": "price"}, {"sentence": "a is queued."}]
    script.will(200, {"execution_id": ID, "status": "RUNNING", "node": "price", "causes": causes})
    assert cli("why", ID, "price").stdout == "price waits for a.\na is queued.\n"
    assert script.asked[0][1] == f"/workflows/{ID}/why?node=price"
