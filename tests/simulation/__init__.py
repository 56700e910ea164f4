"""Deterministic simulation: the real services on virtual time, with a Redis and a log that fail at every step."""
