"""What a worker does with one attempt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


async def test_async_task(worker, desk, log_driver):
    """An attempt of an async task ends COMPLETED with its output as JSON, the worker, its times and its package."""
    result = await desk.run("t.total", {"order": {"price": 2.5, "count": 4}})
    assert result.status == "COMPLETED"
    assert json.loads(result.output) == 10.0
    assert result.worker == worker.service.id
    assert result.package == "sample.py"
    assert 0 <= result.ended_at - result.started_at < 5000


async def test_executors(worker, desk):
    """Async and thread tasks run in the runner, process tasks each in another child, none in the supervisor."""
    import os

    in_thread = json.loads((await desk.run("t.thread", {"value": 1})).output)
    in_process = json.loads((await desk.run("t.process", {"value": 2})).output)
    assert (in_thread["value"], in_process["value"]) == (1, 2)
    assert len({in_thread["pid"], in_process["pid"], os.getpid()}) == 3
    assert json.loads((await desk.run("t.process.async", {"value": 3})).output) == 3


async def test_big_integers(worker, desk):
    """Integers of any size go through a task unchanged."""
    value = 2**200
    message = desk.message("t.echo", b'{"value":' + str(value).encode() + b"}")
    result = await desk.result(await desk.send(message))
    assert result.output == str(value).encode()


async def test_error(worker, desk):
    """A raised error becomes a failure with its type, message, classes and a traceback that begins in the task."""
    result = await desk.run("t.raise", {"message": "why"})
    assert (result.status, result.output) == ("FAILED", None)
    error = result.error
    assert (error.type, error.message, error.fatal) == ("OddError", "why", False)
    assert {"OddError", "ValueError", "builtins.ValueError", "Exception"} <= set(error.classes)
    assert "raise OddError(message)" in error.traceback
    assert "invoke.py" not in error.traceback


async def test_fatal_and_retry_after(worker, desk):
    """Fatal forbids retries, RetryAfter carries its delay, sys.exit is a failure and not the end of the child."""
    assert (await desk.run("t.fatal")).error.fatal
    assert (await desk.run("t.after")).error.retry_after_ms == 1500
    assert (await desk.run("t.exit")).error.type == "SystemExit"
    assert (await desk.run("t.echo")).status == "COMPLETED"


@pytest.mark.parametrize(
    ("params", "pointer"), [({}, "/order"), ({"order": {"price": "much"}}, "/order/price"), ({"x": 1}, "/x")]
)
async def test_wrong_parameters(worker, desk, params, pointer):
    """Parameters that do not fit are a fatal failure that names the place; the task does not run."""
    error = (await desk.run("t.total", params)).error
    assert (error.type, error.fatal) == ("ParametersError", True)
    assert pointer in error.message


async def test_unusable_outputs(start_worker, desk):
    """An output above the limit, or one that is no JSON, is a fatal failure that says so."""
    await start_worker(max_payload_bytes=1000)
    error = (await desk.run("t.big", {"size": 1001})).error
    assert (error.type, error.fatal) == ("PayloadError", True)
    assert "1,003 bytes" in error.message
    assert (await desk.run("t.nan")).error.type == "PayloadError"
    assert (await desk.run("t.big", {"size": 900})).status == "COMPLETED"


async def test_unknown_and_refused_tasks(worker, desk):
    """A task that the worker lacks, or may not run, fails with the remedy; another worker may try it."""
    unknown = (await desk.run("t.totl")).error
    assert (unknown.type, unknown.fatal) == ("UnknownTaskError", False)
    assert "t.total" in unknown.message
    refused = (await desk.run("t.guarded")).error
    assert refused.type == "TaskNotAllowedError"
    assert "APP_WORKER_ALLOW" in refused.message


async def test_allowed_task(start_worker, desk):
    """A task that needs permission runs where APP_WORKER_ALLOW names it."""
    await start_worker(worker_allow="other.task, t.guarded")
    assert (await desk.run("t.guarded")).output == b'"allowed"'


async def test_duplicate_messages(worker, desk, tmp_path: Path):
    """However many copies of a message there are, before, while and after it runs, the attempt runs once."""
    file = tmp_path / "ran"
    message = desk.message("t.note", json.dumps({"file": str(file)}).encode())
    for _ in range(3):
        name = await desk.send(message)
    await desk.result(name)
    await desk.send(message, in_flight=False)
    await desk.run("t.echo")
    await desk.run("t.echo")
    assert file.read_text() == f"{message.execution}/n 1\n"
    assert len(desk.about(name)) == 1


async def test_undecodable_message(worker, desk):
    """A message that is none goes to the dead letters and holds up nothing."""
    import msgspec

    from wf_core.broker import topics
    from wf_core.broker.protocol import TopicPartition

    source = TopicPartition(topics.tasks(desk.settings.namespace, "default"), 0)
    await desk.log.append(source, [b"rubbish"])
    for _ in range(2):
        assert (await desk.run("t.echo")).status == "COMPLETED"
    reader = desk.log.reader()
    reader.assign({TopicPartition(topics.dead_letters(desk.settings.namespace), 0): 0})
    (batch,) = await reader.read(5)
    await reader.close()
    letter = msgspec.msgpack.decode(batch.records[0])
    assert (letter["record"], letter["topic"], letter["offset"]) == (b"rubbish", source.topic, 0)


async def test_message_of_a_newer_release(worker, desk):
    """A worker that is too old passes it by: neither claimed nor buried, it is an orphan that is sent again."""
    import msgspec

    from wf_core import wire
    from wf_core.broker import topics
    from wf_core.broker.protocol import TopicPartition

    message = msgspec.structs.replace(desk.message("t.echo"), v=wire.VERSION + 1)
    name = await desk.send(message)
    for _ in range(2):
        assert (await desk.run("t.echo")).status == "COMPLETED"
    assert await desk.claim_of(name) == ""
    assert desk.about(name) == []
    assert await desk.log.end(TopicPartition(topics.dead_letters(desk.settings.namespace), 0)) == 0
