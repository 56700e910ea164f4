"""Documents that are right in themselves. Small ones are remembered: who submits one mostly submits it again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wf_core import payload
from wf_core.catalogue import Catalogue
from wf_core.errors import PayloadError, Problem
from wf_core.plan import rules_of
from wf_core.schema.document import WorkflowSchema
from wf_core.schema.inputs import Inputs
from wf_core.schema.tasks import check_tasks
from wf_core.schema.validation import canonical_bytes, check_policies, document_hash, parse_document

if TYPE_CHECKING:
    from wf_api.policies import Policies
    from wf_api.recent import Recent


@dataclass(frozen=True, slots=True)
class Known:
    """The names that a document may use. No tasks, or None for policies: nobody here knows, so any will do."""

    catalogue: Catalogue
    policies: Policies | None

    def unknown_in(self, document: WorkflowSchema) -> list[Problem]:
        """The names in a document that are not among them, and parameters that a task does not take."""
        problems = check_tasks(document, self.catalogue) if self.catalogue.tasks else []
        if self.policies is not None:
            problems += check_policies(document, self.policies.retry, self.policies.scheduling)
        return problems


@dataclass(frozen=True, slots=True)
class Reading:
    """A document and what follows from it. `rules` is the version of the rules that it needs."""

    document: WorkflowSchema
    canonical: bytes
    hash: str
    rules: int
    inputs: Inputs
    known: Known | None = None
    """What its names were found among; None: they were not looked at."""


def read(value: Any, known: Known | None) -> Reading:
    """The document that `value` is, its names checked unless nothing is `known`. Raises DocumentError."""
    document = parse_document(value, lambda found: [] if known is None else known.unknown_in(found))
    canonical = canonical_bytes(document)
    return Reading(document, canonical, document_hash(canonical), rules_of(document), Inputs(document.input), known)


def read_again(value: Any, known: Known | None, recent: Recent[Reading]) -> Reading:
    """As `read`, without the work where the same value was read lately and the same names were known."""
    try:
        digest = hashlib.sha256(payload.encode(value)).hexdigest()
    except PayloadError:
        return read(value, known)
    found = recent.get(digest)
    if found is None or (known is not None and not _holds(found, known)):
        found = read(value, known)
        recent.put(digest, found)
    return found


def _holds(found: Reading, known: Known) -> bool:
    return (
        found.known is not None and found.known.catalogue is known.catalogue and found.known.policies is known.policies
    )
