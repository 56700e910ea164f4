"""Exit codes of `wf`: what a script may rely on."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
"""Wrong usage, or a document or input that was refused."""
NOT_FOUND: Final = 3
UNREACHABLE: Final = 4
TIMEOUT: Final = 5
DETACHED: Final = 130
"""Ctrl-C."""
