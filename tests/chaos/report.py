"""The report of a run, for people and (`report.json`) for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chaos.oracle import Findings
from chaos.scene import Scene

MOST_VIOLATIONS = 40


def figures(scene: Scene, findings: Findings, load_seconds: float) -> dict[str, Any]:
    """What the run came to."""
    stall, at = findings.runs.longest_silence(findings.spans)
    lasting = sorted(end - begin for begin, end in findings.spans) or [0.0]
    runs = findings.runs
    ended = sum(findings.statuses.values())
    return {
        "faults": dict(sorted(scene.journal.faults.items())),
        "faults in all": scene.journal.faults.total(),
        "deaths": dict(scene.journal.deaths),
        "executions begun": len(scene.load.executions),
        "executions ended": dict(findings.statuses),
        "commands tried": sum(x.tries for x in scene.load.executions),
        "forgotten (truncated redis log), resubmitted": len(scene.load.forgotten),
        "oldest of these, s before the cut": round(max(scene.load.forgotten.values(), default=0.0), 2),
        "attempts": findings.attempts,
        "attempts whose code ran": len(runs.starts),
        "attempts lost": dict(findings.lost),
        "attempts run twice": runs.extra,
        "share run twice, %": round(100 * runs.extra / max(1, len(runs.starts)), 3),
        "truncations of Redis' file": len(scene.truncations),
        "losses of the log": len(scene.losses),
        "records in the events": findings.records,
        "dead letters": f"{findings.dead_letters}, injected {scene.injected}",
        "fold": findings.verified,
        "executions/s": round(ended / load_seconds, 2),
        "execution p50, p99, longest, s": [round(lasting[int(q * (len(lasting) - 1))], 2) for q in (0.5, 0.99, 1)],
        "longest stall, s": round(stall, 2),
        "it began at": round(at - scene.journal.began, 1) if at else 0,
        "notes": dict(scene.journal.notes.most_common(15)),
        "violations": len(scene.journal.violations),
    }


def write(
    path: Path, head: Mapping[str, Any], found: Mapping[str, Any], violations: list[str], excerpts: list[str]
) -> str:
    """Writes `report.json` and returns the report as text, with what the logs say of executions that went wrong."""
    whole = {**head, **found}
    path.write_text(json.dumps({**whole, "what": violations}, indent=1))
    lines = [f"{name}: {_text(value)}" for name, value in whole.items()]
    lines += [f"VIOLATION {text}" for text in violations[:MOST_VIOLATIONS]]
    return "\n".join(lines + excerpts)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    return str(value)
