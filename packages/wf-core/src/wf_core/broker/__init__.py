"""The log and its drivers."""
