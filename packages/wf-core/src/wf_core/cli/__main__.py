"""`python -m wf_core.cli` is `wf`, also where the script's folder is not on the PATH."""

from __future__ import annotations

from wf_core.cli import main

main()
