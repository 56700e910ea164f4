"""The workflow document."""
