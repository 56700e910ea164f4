"""What the processes wrote: a traceback is a finding even where everything came out right."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from wf_testservers.cluster import EngineProcess

from chaos.journal import Journal

_TRACED = {"exception", "traceback"}
_MOST_FRAMES = 6
_LONGEST = 300
_MOST_IDS, _MOST_LINES = 5, 20
_ID = re.compile(r"\b[0-9a-z]{28}\b")
_VARYING = re.compile(r"\b[0-9a-z]{26,28}\b|\b[0-9a-f]{16,40}\b|\d+")


def examine(processes: Iterable[EngineProcess], journal: Journal) -> None:
    """Counts warnings and errors, and makes a violation of each kind of traceback.

    aiokafka logs one when its producer dies of an unexpected error; the driver makes another one, and nobody notices.
    """
    traced: Counter[str] = Counter()
    first: dict[str, str] = {}
    for process in processes:
        for line, entry in _entries(process.process.log.read_text(errors="replace")):
            what = f"{process.kind}: {_VARYING.sub('…', str(entry.get('event', line)))[:200]}"
            if entry.get("logger") != "aiokafka" and (_TRACED & entry.keys() or "Traceback" in line):
                what = f"{what}: {_VARYING.sub('…', _cause(line, entry))}"
                traced[what] += 1
                first.setdefault(what, f"{process.name} at {entry.get('timestamp')}")
            elif entry.get("level") in ("warning", "error", "critical") or not entry:
                journal.note(what)
    for what, count in traced.items():
        journal.violation(f"{count} × traceback in the log of {what}; first {first[what]}")


def last_words(process: EngineProcess) -> str:
    """Why a process ended, as far as its log says."""
    entries = list(_entries(process.process.tail(30_000)))
    line, entry = next((e for e in reversed(entries) if _is_bad(e[1])), entries[-1] if entries else ("", {}))
    return f"{entry.get('event', line[:_LONGEST])}: {_cause(line, entry)}"


def excerpts(processes: Iterable[EngineProcess], texts: Iterable[str]) -> list[str]:
    """What the logs say of the first executions that `texts` name, in order of time."""
    ids = list(dict.fromkeys(found for text in texts for found in _ID.findall(text)))[:_MOST_IDS]
    lines: dict[str, list[str]] = {found: [] for found in ids}
    for process in processes:
        for line, entry in _entries(process.process.log.read_text(errors="replace")):
            for found in ids:
                if found in line:
                    lines[found].append(f"{entry.get('timestamp', '')} {process.name}: {line[:_LONGEST]}")
    return [line for found in ids for line in (f"--- {found}", *sorted(lines[found])[:_MOST_LINES])]


def _is_bad(entry: dict[str, Any]) -> bool:
    return "exception" in entry or entry.get("level") in ("error", "critical")


def _cause(line: str, entry: dict[str, Any]) -> str:
    """The exception and where it came through our code; else the error that the line names."""
    if chain := entry.get("exception"):
        raised = chain[0]
        ours = [f for f in raised["frames"] if "/wf_" in f["filename"]][-_MOST_FRAMES:]
        where = " > ".join(f"{Path(f['filename']).name}:{f['lineno']} {f['name']}" for f in ours)
        return f"{raised['exc_type']}: {raised['exc_value'][:_LONGEST]} ({where})"
    if text := entry.get("traceback"):
        lines = [part.strip() for part in text.splitlines() if "/wf_" in part or not part.startswith(" ")]
        return " > ".join(part.rpartition("/")[2][:_LONGEST] for part in lines[-_MOST_FRAMES:])
    return str(entry.get("error", line))[:_LONGEST]


def _entries(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line with what it holds as JSON; `{}` for one that is none."""
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            found = {}
        yield line, found if isinstance(found, dict) else {}
