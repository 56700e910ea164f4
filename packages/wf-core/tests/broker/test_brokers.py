"""The log on three brokers: one that dies or cannot be heard costs its own partitions a moment, and nobody a record."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient

from wf_core.broker import kafka_topics, topics
from wf_core.broker.kafka_client import CALL_SECONDS
from wf_core.broker.open import open_log
from wf_core.broker.protocol import LogUnavailableError, TopicPartition
from wf_core.errors import SetupError

PARTITIONS = 6
pytestmark = pytest.mark.timeout(180)


class Traffic:
    """Appends numbered records to one partition, each until it is acknowledged, and reads them."""

    def __init__(self, log, source):
        self.acknowledged: dict[int, bytes] = {}
        self.acknowledged_at: list[float] = []
        self.failures: list[float] = []
        self.read: list[tuple[int, bytes]] = []
        self.stopping = False
        self._log = log
        self.source = source

    async def append(self):
        number = 0
        while not self.stopping:
            begun, record = time.monotonic(), b"%d" % number
            try:
                (offset,) = await self._log.append(self.source, [record])
            except LogUnavailableError:
                self.failures.append(time.monotonic() - begun)
                continue
            self.acknowledged[offset] = record
            self.acknowledged_at.append(time.monotonic())
            number += 1
            await asyncio.sleep(0.01)

    def gap(self, begin, end):
        """The longest time without an acknowledgement."""
        moments = [begin, *(moment for moment in self.acknowledged_at if begin < moment < end), end]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


@asynccontextmanager
async def traffic(log, sources) -> AsyncIterator[list[Traffic]]:
    """Appends and reads on every partition; at the end every record that was acknowledged was read, without a gap."""
    flows = {source: Traffic(log, source) for source in sources}
    reader = log.reader()
    reader.assign(dict.fromkeys(sources, 0))

    async def read():
        while True:
            try:
                batches = await reader.read(0.5)
            except LogUnavailableError:
                continue
            for batch in batches:
                flows[batch.source].read += enumerate(batch.records, batch.offset)

    async with AsyncExitStack() as stack:
        stack.push_async_callback(reader.close)
        reading = asyncio.create_task(read())
        stack.push_async_callback(asyncio.wait, [reading])
        stack.callback(reading.cancel)
        async with asyncio.TaskGroup() as appending:
            for flow in flows.values():
                appending.create_task(flow.append())
            try:
                await until(lambda: all(len(flow.acknowledged) > 10 for flow in flows.values()), "the first records")
                yield list(flows.values())
            finally:
                for flow in flows.values():
                    flow.stopping = True
        ends = {source: await log.end(source) for source in sources}
        await until(lambda: reading.done() or all(len(flows[s].read) >= ends[s] for s in sources), "the last records")
        assert not reading.done()  # OffsetOutOfRangeError would have ended it
    for source, flow in flows.items():
        assert [offset for offset, _ in flow.read] == list(range(ends[source]))
        assert flow.acknowledged.items() <= dict(flow.read).items()
        # beside those there are only copies, which an append may leave that was tried again
        assert {record for _, record in flow.read} == set(flow.acknowledged.values())


async def until(condition, what, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        await asyncio.sleep(0.01)


async def leaders(settings, topic):
    """The broker that leads each partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    try:
        await admin.start()
        (described,) = await admin.describe_topics([topic])
    finally:
        await admin.close()
    return {partition["partition"]: partition["leader"] for partition in described["partitions"]}


@pytest_asyncio.fixture
async def sources(replicated_log, replicated):
    """The partitions of a topic with three replicas."""
    topic = topics.events(replicated.namespace)
    await replicated_log.ensure_topics({topic: PARTITIONS})
    return [TopicPartition(topic, partition) for partition in range(PARTITIONS)]


async def test_topics_are_created_to_survive_one_broker(replicated_log, replicated, sources):
    """Three replicas, of which two must have a record; no broker that lags may lead; nothing is compacted."""
    assert await replicated_log.examine_topics({sources[0].topic: PARTITIONS}) == []
    one = replicated.model_copy(update={"kafka_replication": 4})
    problems = await kafka_topics.examine(one, {sources[0].topic: PARTITIONS})
    assert [(problem.setting, problem.fatal) for problem in problems] == [("replication", False)]
    assert "has 3 replicas and not 4" in problems[0].found


async def test_more_replicas_than_brokers_are_refused_with_the_reason(replicated_log, replicated):
    """Kafka's own words, and the topic's name."""
    four = replicated.model_copy(update={"kafka_replication": 4})
    with pytest.raises(SetupError, match=r"does not create the topic .*\.more: .*4"):
        await kafka_topics.ensure(four, {f"{four.namespace}.more": 1})


@pytest.mark.parametrize("fault", ["killed", "hangs"])
async def test_a_leader_that_is_gone_costs_no_record(replicated_log, replicated, brokers, sources, fault):
    """Appends and reads go on with the new leaders, on every partition; meanwhile the topic is said to be in danger."""
    node = brokers.kafka.node((await leaders(replicated, sources[0].topic))[0])
    async with traffic(replicated_log, sources) as flows:
        await asyncio.to_thread(node.process.kill if fault == "killed" else node.process.pause)
        gone = time.monotonic()
        try:
            await until(lambda: all(flow.acknowledged_at[-1] > gone + 1 for flow in flows), "appends")
            problems = await replicated_log.examine_topics({sources[0].topic: PARTITIONS})
            assert [(problem.setting, problem.fatal) for problem in problems] == [("in sync", False)]
            await replicated_log.ensure_topics({sources[0].topic: PARTITIONS})  # a service may start meanwhile
        finally:
            await asyncio.to_thread(node.start if fault == "killed" else node.process.resume)
        await until_whole(replicated_log, sources[0].topic)


async def until_whole(log, topic):
    async with asyncio.timeout(40):
        while await log.examine_topics({topic: PARTITIONS}):  # noqa: ASYNC110 - only the brokers know
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(("up", "down"), [(True, True), (True, False), (False, True)])
async def test_a_half_open_link_to_one_broker_disturbs_no_other(replicated_log, replicated, brokers, sources, up, down):
    """Appends to what it leads fail in bounded time and work at once when it is heard again; the others never wait."""
    lead = await leaders(replicated, sources[0].topic)
    silent = lead[0]
    async with traffic(replicated_log, sources) as flows:
        theirs = [flow for flow in flows if lead[flow.source.partition] != silent]
        brokers.proxies[silent].half_open(up=up, down=down)
        begun = time.monotonic()
        await until(lambda: len(flows[0].failures) >= 2, "two appends that fail")
        assert all([await replicated_log.end(flow.source) for flow in theirs])
        ended = time.monotonic()
        brokers.proxies[silent].heal()
        await until(lambda: flows[0].acknowledged_at[-1] > ended, "an append after the link was healed", CALL_SECONDS)
        assert max(flow.gap(begun, ended) for flow in theirs) < CALL_SECONDS / 3
        assert not any(flow.failures for flow in theirs)
        assert max(flows[0].failures) < CALL_SECONDS + 1


async def test_a_client_that_starts_finds_the_brokers_that_answer(replicated, brokers, redis):
    """Two of three hang: a log starts, is installed and read; it may take some tries."""
    for silent in (1, 2):
        brokers.proxies[silent].half_open()
    log = open_log(replicated, redis)
    try:
        await log.start()
    finally:
        await log.close()


@pytest.mark.parametrize("fault", ["delay", "loss"])
async def test_a_bad_network_costs_no_record(replicated_log, brokers, sources, fault):
    """Each message late by 50 ms, or connections that are reset in the middle of one."""
    async with traffic(replicated_log, sources) as flows:
        for number, proxy in brokers.proxies.items():
            if fault == "delay":
                proxy.delay(0.05)
            else:
                proxy.loss(0.02, seed=number)
        before = [len(flow.acknowledged) for flow in flows]
        await until(
            lambda: all(len(flow.acknowledged) > had + 20 for flow, had in zip(flows, before, strict=True)), "appends"
        )
        for proxy in brokers.proxies.values():
            proxy.heal()
