"""RFC 6901 JSON pointers."""

from __future__ import annotations

from collections.abc import Iterable


def escape(part: str | int) -> str:
    """A key or an index as one part of a pointer."""
    text = str(part)
    return text.replace("~", "~0").replace("/", "~1") if "~" in text or "/" in text else text


def child(pointer: str, part: str | int) -> str:
    """The pointer to what is `part` of what `pointer` points to."""
    return f"{pointer}/{escape(part)}"


def join(parts: Iterable[str | int], start: str = "") -> str:
    """The pointer that goes through `parts`, from `start`."""
    return start + "".join(f"/{escape(part)}" for part in parts)


def parts(pointer: str) -> list[str]:
    """The keys and indexes that a pointer goes through, as text."""
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
