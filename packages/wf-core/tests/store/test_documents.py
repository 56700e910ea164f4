"""The memo of node tables, and the names of keys."""

from __future__ import annotations

import re

from wf_core.store.keys import InstallationKeys, PartitionKeys
from wf_core.store.reads.documents import NodeTables, node_table


def test_a_table_holds_the_nodes_in_order():
    """Cells are numbered in the order of the canonical document."""
    table = node_table(b'{"name":"x","nodes":{"z":{"task":"t","queue":"gpu"},"a":{"task":"u","params":{"n":[1e400]}}}}')
    assert table.names == ("z", "a")
    assert table.tasks == ("t", "u")
    assert table.queues == ("gpu", "default")
    assert table.index == {"z": 0, "a": 1}


def test_the_memo_is_bounded_by_nodes():
    """Tables that nobody used for longest make room; one that is larger than the bound is kept alone."""
    small = node_table(b'{"nodes":{"a":{"task":"t"}}}')
    tables = NodeTables(limit=2)
    for name in ("one", "two"):
        tables.keep(name, small)
    assert tables.get("one") is small
    tables.keep("three", small)
    assert [name for name in ("one", "two", "three") if tables.get(name)] == ["one", "three"]
    tables.keep("huge", node_table(b'{"nodes":{"a":{"task":"t"},"b":{"task":"t"},"c":{"task":"t"}}}'))
    assert [name for name in ("one", "three", "huge") if tables.get(name)] == ["huge"]


def test_keys_of_a_partition_share_a_slot():
    """Every key of a partition carries its tag and no other, so a script runs in one slot of a cluster."""
    keys = PartitionKeys.of("wf", 12)
    names = [
        keys.meta,
        keys.execution("x{1}"),
        keys.nodes("x"),
        keys.results("x"),
        keys.history("x"),
        keys.in_flight,
        keys.sent,
        keys.queues,
        keys.outbox("q"),
        keys.messages,
        keys.timers,
        keys.claims,
        keys.progress,
        keys.heartbeats,
        keys.accepted,
        keys.document("h"),
        keys.index("s", "RUNNING"),
        InstallationKeys("wf").log("wf.events", 12),
    ]
    assert [re.search(r"\{(.*?)\}", name)[1] for name in names] == ["12"] * len(names)
    assert len(set(names)) == len(names)
