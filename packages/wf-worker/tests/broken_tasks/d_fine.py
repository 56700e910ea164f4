"""A file beside the broken ones."""

from __future__ import annotations

from wf_core import task


@task("b.fine")
async def fine() -> str:
    """Works."""
    return "fine"
