"""Live executions in memory, shared by the partitions of a process."""

from __future__ import annotations

from collections import OrderedDict

from wf_orchestrator.machine.state import Execution

MOST_NODES = 500_000
MOST_EXECUTIONS = 20_000


class Executions:
    """An LRU of live executions, shared by all partitions of a process.

    `take` removes: whoever folds an execution holds it alone, and puts it back once what was decided is written.
    """

    def __init__(self, most_nodes: int = MOST_NODES, most_executions: int = MOST_EXECUTIONS) -> None:
        self._kept: OrderedDict[str, tuple[int, Execution]] = OrderedDict()
        self._nodes = 0
        self._most_nodes = most_nodes
        self._most_executions = most_executions

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, execution_id: str) -> Execution | None:
        """The execution, which is not here afterwards."""
        kept = self._kept.pop(execution_id, None)
        if kept is None:
            return None
        self._nodes -= len(kept[1].cells)
        return kept[1]

    def peek(self, execution_id: str) -> Execution | None:
        """The execution, to be read only."""
        kept = self._kept.get(execution_id)
        return kept[1] if kept else None

    def put(self, partition: int, execution: Execution) -> None:
        """Keeps the execution; the ones that were not used for the longest time leave."""
        self.take(execution.id)
        self._kept[execution.id] = (partition, execution)
        self._nodes += len(execution.cells)
        while len(self._kept) > 1 and (self._nodes > self._most_nodes or len(self._kept) > self._most_executions):
            self.take(next(iter(self._kept)))

    def forget(self, partition: int) -> None:
        """Drops the executions of a partition."""
        for execution_id in [i for i, (number, _) in self._kept.items() if number == partition]:
            self.take(execution_id)
