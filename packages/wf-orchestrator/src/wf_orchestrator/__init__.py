"""Orchestrator of the wf workflow engine: decides what runs next."""
