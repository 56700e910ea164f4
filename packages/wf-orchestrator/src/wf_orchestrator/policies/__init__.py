"""Retry and scheduling policies: pure, found by entry point, named in documents."""
