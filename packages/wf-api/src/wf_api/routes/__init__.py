"""The addresses, one module per area."""
