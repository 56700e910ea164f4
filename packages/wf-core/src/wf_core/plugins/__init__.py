"""Drivers and observers found by entry point."""
