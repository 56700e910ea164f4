"""The ready queue: places decide between executions, policies inside of one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wf_core.policies import ReadyNode
from wf_core.wire import TaskMessage
from wf_orchestrator.machine.effects import Dispatch
from wf_orchestrator.machine.snapshot import outbox_score
from wf_orchestrator.policies.scheduling import CriticalPath
from wf_orchestrator.ready import LEVELS, Order, Ranked, ReadyQueue, level_of

tall_first = Order(CriticalPath().order)
by_key = Order(CriticalPath().order, CriticalPath().key)


def node(name: str, height: int, index: int = 0, priority: int = 5) -> ReadyNode:
    return ReadyNode(name, index, priority, 0, height)


def drained(queue: ReadyQueue) -> list[str]:
    """All tokens, in the order in which they are taken."""
    tokens = []
    while taken := queue.take():
        tokens.append(taken[0])
    return tokens


def test_levels_are_priorities():
    """Level 0 is the highest priority; the place of a dispatch says which one it has."""
    message = TaskMessage(execution="x", node="n", attempt=1, task="t", params=b"", workflow="w", queued_at=1)
    places = [outbox_score(Dispatch("x/n/1", "q", p, 2**40, message, node("n", 0), b"")) for p in range(LEVELS)]
    assert [level_of(float(place)) for place in places] == [*range(LEVELS)][::-1]


def test_without_a_policy_places_decide():
    """The lowest place is next, however the executions are mixed; what was dropped is not."""
    queue = ReadyQueue()
    for token, place in (("b/1/1", 4.0), ("a/1/1", 1.0), ("b/2/1", 2.0), ("a/2/1", 3.0)):
        queue.put(token, place)
    queue.drop("b/2/1")
    queue.drop("nobody")
    assert (len(queue), queue.first()) == (3, "a/1/1")
    assert drained(queue) == ["a/1/1", "a/2/1", "b/1/1"]


def test_a_policy_decides_which_node_takes_the_next_place_of_its_execution():
    """What became ready last goes first where the policy wants it, and no other execution notices."""
    queue = ReadyQueue()
    for i in range(3):
        queue.put(f"a/leaf{i}/1", 10.0 + i, Ranked(node(f"leaf{i}", 0, i), tall_first))
        queue.put(f"b/n{i}/1", 10.5 + i)
    queue.put("a/link/1", 20.0, Ranked(node("link", 7), tall_first))
    taken = [queue.take() for _ in range(3)]
    assert taken == [("a/link/1", 10.0), ("b/n0/1", 10.5), ("a/leaf0/1", 11.0)]
    queue.put("a/link2/1", 21.0, Ranked(node("link2", 6), tall_first))
    assert drained(queue) == ["b/n1/1", "a/link2/1", "b/n2/1", "a/leaf1/1", "a/leaf2/1"]


def test_nodes_that_nobody_knows_come_last_of_their_execution():
    """A new owner finds tokens in Redis, and learns of nodes only from what becomes ready later."""
    queue = ReadyQueue()
    for i in range(3):
        queue.put(f"a/old{i}/1", float(i))
    queue.put("a/short/1", 8.0, Ranked(node("short", 1), tall_first))
    queue.put("a/tall/1", 9.0, Ranked(node("tall", 5), tall_first))
    first, second, *others = drained(queue)
    assert (first, second) == ("a/tall/1", "a/short/1")
    assert sorted(others) == ["a/old0/1", "a/old1/1", "a/old2/1"]


def test_a_policy_is_asked_once_for_all_that_joined():
    """Not for each token, of which there may be thousands."""
    asked: list[int] = []

    def sort(ready):
        asked.append(len(ready))
        return ready

    order = Order(sort)
    queue = ReadyQueue()
    for i in range(100):
        queue.put(f"a/{i}/1", float(i), Ranked(node(str(i), 0, i), order))
    drained(queue)
    for i in range(3):
        queue.put(f"a/{i}/2", float(i), Ranked(node(str(i), 0, i), order))
    queue.take()
    assert asked == [100, 3]


def test_a_policy_with_a_key_is_asked_once_for_each_node():
    """However many wait when one more joins."""
    asked: list[str] = []

    def key(one):
        asked.append(one.node)
        return (-one.height, one.index)

    order = Order(CriticalPath().order, key)
    queue = ReadyQueue()
    for i in range(100):
        queue.put(f"a/{i}/1", float(i), Ranked(node(str(i), i % 7, i), order))
        queue.take() if i % 2 else None
    assert len(drained(queue)) == 50
    assert asked == [str(i) for i in range(100)]


def test_what_comes_and_goes_leaves_nothing_behind():
    """Executions, or nodes of one, that are cancelled while no worker lives must not fill the memory."""
    queue = ReadyQueue()
    for i in range(10_000):
        queue.put(f"{i}/n/1", float(i), Ranked(node("n", 0), tall_first))
        queue.drop(f"{i}/n/1")
    assert len(queue._heap) < 100
    assert not queue._groups
    queue.put("x/stays/1", 0.0, Ranked(node("stays", 0), by_key))
    for i in range(1000):
        queue.put(f"x/{i}/1", float(i), Ranked(node(str(i), 0), by_key))
        queue.drop(f"x/{i}/1")
    assert len(queue._groups["x"]._heap) < 100
    assert drained(queue) == ["x/stays/1"]


tokens = st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 9), st.integers(0, 9))
"""Execution, number of its node, height, priority."""


@pytest.mark.parametrize("order", [tall_first, by_key], ids=["sorted", "by key"])
@given(st.lists(st.one_of(tokens, st.just("take"), st.tuples(st.just("drop"), st.integers(0, 30)))))
def test_it_does_what_sorting_everything_each_time_would_do(order, steps):
    """Execution `c` has no policy. A model keeps places and tokens apart and sorts them whenever one is taken."""
    queue, waiting, serial = ReadyQueue(), dict[str, tuple[float, ReadyNode]](), 0
    for step in steps:
        if step == "take":
            taken = queue.take()
            if not waiting:
                assert taken is None
                continue
            next_one = min(waiting, key=lambda token: waiting[token][0])
            place = waiting[next_one][0]
            mine = {token: one for token, one in waiting.items() if token[0] == next_one[0]}
            if next_one[0] != "c":
                best = tall_first.sort([one[1] for one in mine.values()])[0]
                chosen = next(token for token, one in mine.items() if one[1] == best)
                waiting[next_one] = (waiting[chosen][0], waiting[next_one][1])
                next_one = chosen
            del waiting[next_one]
            assert taken == (next_one, place)
        elif step[0] == "drop":
            if token := dict(enumerate(waiting)).get(step[1]):
                del waiting[token]
                queue.drop(token)
        else:
            execution, number, height, priority = step
            serial += 1
            token, place = f"{execution}/{number}.{serial}/1", priority * 2.0**48 + serial
            known = node(f"{number}.{serial}", height, serial)
            waiting[token] = (place, known)
            queue.put(token, place, None if execution == "c" else Ranked(known, order))
        levels = [level_of(place) for place, _ in waiting.values()]
        assert queue.levels == [levels.count(level) for level in range(LEVELS)]
        assert (queue.level, queue.last_level) == (min(levels, default=LEVELS), max(levels, default=-1))
