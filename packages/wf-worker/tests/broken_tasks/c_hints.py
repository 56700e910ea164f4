"""A task whose annotations cannot be read."""

from __future__ import annotations

from wf_core import task


@task("b.hints")
async def hints(value: NoSuchType) -> None:  # noqa: F821 - that is what is broken
    """Never runs."""
