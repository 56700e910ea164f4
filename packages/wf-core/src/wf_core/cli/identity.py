"""Which execution is meant: a whole id, the unique beginning of one, or `@latest`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wf_core.cli.failures import NotFoundError, UsageError
from wf_core.ids import is_execution_id

if TYPE_CHECKING:
    from wf_core.client import Client

LATEST = "@latest"
MOST_PAGES = 20
_PAGE = 100
_MOST_CHILDREN = 20
SHORT = 12
"""Characters of an id that we show: its millisecond and some chance, so they nearly always name one execution."""


def resolve(client: Client, text: str) -> str:
    """The whole id that `text` means. Raises NotFoundError, or UsageError naming the candidates of an ambiguous one."""
    if is_execution_id(text.lower()):
        return text.lower()
    if text == LATEST:
        return _latest(client)
    if not text:
        raise UsageError("an execution id is empty")
    found = _beginning_with(client, text.lower())
    if not found:
        raise NotFoundError(f"no execution's id begins with {text!r}; `wf ls` lists them")
    if len(found) > 1:
        raise UsageError(f"{text!r} begins several ids: {', '.join(found[:5])}{', ...' if len(found) > 5 else ''}")  # noqa: PLR2004 - enough to choose from
    return found[0]


def _latest(client: Client) -> str:
    """The newest execution that nobody started from inside another; among many children, whatever they run for."""
    newest = client.list(limit=_MOST_CHILDREN).items
    if not newest:
        raise NotFoundError("there is no execution yet")
    for item in newest:
        if client.get(item.execution_id, nodes=False).parent is None:
            return item.execution_id
    found = client.get(newest[0].execution_id, nodes=False)
    while found.parent is not None:
        found = client.get(found.parent.execution_id, nodes=False)
    return found.execution_id


def _beginning_with(client: Client, prefix: str) -> list[str]:
    """Ids that begin so. The server's search looks inside ids, names and labels, and stops for breath now and then."""
    found: list[str] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = client.list(q=prefix, cursor=cursor, limit=_PAGE)
        found += [item.execution_id for item in page.items if item.execution_id.startswith(prefix)]
        cursor = page.next_cursor
        if cursor is None or len(found) > 1:
            break
    return found
