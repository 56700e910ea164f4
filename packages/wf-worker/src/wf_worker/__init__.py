"""Worker of the wf workflow engine: runs tasks."""
