"""Apache Kafka's jars: fetched once through Maven into a folder (`WF_KAFKA_CACHE`, default `~/.cache/wf-kafka`)."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

from wf_testservers.process import ServerError

_POM = files("wf_testservers") / "pom.xml"
_TEXT = _POM.read_text()
VERSION = (re.search(r"<artifactId>kafka_[\d.]+</artifactId>\s*<version>([\d.]+)<", _TEXT) or [""])[1]


def folder() -> Path:
    """Where this pom's jars are, or will be."""
    cache = os.environ.get("WF_KAFKA_CACHE")
    root = Path(cache) if cache else Path.home() / ".cache" / "wf-kafka"
    return root / f"{VERSION}-{hashlib.sha256(_TEXT.encode()).hexdigest()[:12]}"


def missing() -> str:
    """Why the jars cannot be had; empty when they are here or can be fetched."""
    if folder().is_dir() or shutil.which("mvn"):
        return ""
    return f"no mvn on the PATH and no jars in {folder()}"


def fetch() -> list[Path]:
    """The jars, fetched when they are not there yet. Raises ServerError with Maven's words when that fails."""
    target = folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _download(target)
    return sorted(target.glob("*.jar"))


def _download(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as unfinished, as_file(_POM) as pom:
        copy = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        done = subprocess.run(
            [*copy, f"-DoutputDirectory={unfinished}/jars"], capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            raise ServerError(f"Maven cannot fetch Apache Kafka: {done.stdout}{done.stderr}")
        (Path(unfinished) / "jars").rename(target)
