"""What processes leave out, and what they read once."""

from __future__ import annotations

import subprocess
import sys

import pytest

LEAN = """
import sys
from wf_core.lean import import_structlog
import_structlog()
import structlog
assert not [name for name in sys.modules if name.startswith("rich")], "rich was imported"
import rich.console
print(rich.console.Console)
"""


def test_structlog_without_rich():
    """A service imports structlog without rich, which somebody else may import later."""
    pytest.importorskip("rich")
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
