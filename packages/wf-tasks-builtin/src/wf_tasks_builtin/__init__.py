"""Built-in tasks of the wf workflow engine."""
