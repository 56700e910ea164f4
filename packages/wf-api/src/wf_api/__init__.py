"""REST API server of the wf workflow engine."""
