"""Schema, log, store, settings and command line of the wf workflow engine."""
