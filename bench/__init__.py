"""Throughput and latency on both logs: `python -m bench`."""
