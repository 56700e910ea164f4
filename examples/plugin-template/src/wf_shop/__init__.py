"""A task, a retry policy and an observer of a shop."""
