"""Where the server is: `--server`, `WF_SERVER`, the `wf dev` that runs in this folder, or the default."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT = "http://127.0.0.1:8080"
STATE = ".wf"


@dataclass(frozen=True, slots=True)
class Address:
    """A server's URL; `named` says whether somebody named it, or it was found running."""

    url: str
    named: bool


def find_server(option: str | None, folder: Path | None = None) -> Address:
    """The server to talk to."""
    if url := option or os.environ.get("WF_SERVER"):
        return Address(url if "://" in url else f"http://{url}", named=True)
    if url := _running_here(folder or Path()):
        return Address(url, named=True)
    return Address(DEFAULT, named=False)


def _running_here(folder: Path) -> str | None:
    if not (folder / STATE / "dev.json").exists():
        return None
    from wf_core.dev.state import running

    found = running(folder / STATE)
    return None if found is None or found.private else found.url
