"""Conformance: what other engines document, run here. `cases/` is the data, one file a topic."""
