"""Chaos runs: real processes on real servers under load, faults all the time, and an oracle at the end."""
