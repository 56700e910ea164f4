"""Why an execution, or a node, is where it is: what must be known is gathered, and a sentence said for each cause."""

from wf_core.store.reads.why.gathering import Surroundings, read_why

__all__ = ["Surroundings", "read_why"]
