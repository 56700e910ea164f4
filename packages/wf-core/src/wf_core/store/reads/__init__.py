"""What the API answers, read from Redis in a fixed number of round trips. Views encode to the documented JSON."""

from wf_core.store.reads.definitions import list_definitions, read_definition
from wf_core.store.reads.documents import read_document
from wf_core.store.reads.events import read_events
from wf_core.store.reads.executions import read_execution, read_results
from wf_core.store.reads.layout import UnknownNodeError
from wf_core.store.reads.listing import Filters, list_executions
from wf_core.store.reads.nodes import read_node, read_nodes
from wf_core.store.reads.orchestrators import count_orchestrators
from wf_core.store.reads.snapshot import Located, read_layout
from wf_core.store.reads.views import (
    AttemptErrorView,
    AttemptView,
    ChildView,
    ErrorView,
    EventPage,
    EventView,
    ExecutionPage,
    ExecutionSummary,
    ExecutionView,
    NodeDetail,
    NodeErrorView,
    NodePage,
    NodeSummary,
    NodeView,
    ParentView,
    ProgressView,
    ResultsView,
    TaskView,
    WorkerView,
)
from wf_core.store.reads.workers import read_catalogue, read_tasks, read_workers

__all__ = [
    "AttemptErrorView",
    "AttemptView",
    "ChildView",
    "ErrorView",
    "EventPage",
    "EventView",
    "ExecutionPage",
    "ExecutionSummary",
    "ExecutionView",
    "Filters",
    "Located",
    "NodeDetail",
    "NodeErrorView",
    "NodePage",
    "NodeSummary",
    "NodeView",
    "ParentView",
    "ProgressView",
    "ResultsView",
    "TaskView",
    "UnknownNodeError",
    "WorkerView",
    "count_orchestrators",
    "list_definitions",
    "list_executions",
    "read_catalogue",
    "read_definition",
    "read_document",
    "read_events",
    "read_execution",
    "read_layout",
    "read_node",
    "read_nodes",
    "read_results",
    "read_tasks",
    "read_workers",
]
