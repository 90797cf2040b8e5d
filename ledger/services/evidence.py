"""What vault and log say of an erasure."""

from __future__ import annotations

from uuid import UUID

from ledger.domain.erasure import ErasureEvidence
from ledger.domain.events import RecordedEvent
from ledger.errors import IntegrityError, NotFoundError
from ledger.ports import ErasureEntry
from ledger.services.dependencies import Dependencies


def entry_of(deps: Dependencies, ledger_id: UUID, erasure_id: UUID) -> ErasureEntry:
    """The erasure of this id. Raises ``NotFoundError``."""
    entry = deps.vault.erasure(ledger_id, erasure_id)
    if entry is None:
        raise NotFoundError("there is no erasure of this id in this ledger")
    return entry


def evidence_of(deps: Dependencies, entry: ErasureEntry) -> ErasureEvidence:
    """What can be seen of an erasure that has begun."""
    event = deps.store.find_events(entry.ledger_id, [entry.erasure_id]).get(entry.erasure_id)
    return ErasureEvidence(begun=True, done=entry.done, event=event)


def event_of(evidence: ErasureEvidence) -> RecordedEvent:
    """The event of an erasure that is recorded. Raises ``IntegrityError``."""
    if evidence.event is None:
        raise IntegrityError("the event of an erasure is missing; run `audit-ledger verify`")
    if not evidence.recorded:
        # I9: a writer's event under this id shreds nothing, so without this the keys would go and nothing say why.
        raise IntegrityError("the id of an erasure was taken by another event, so the erasure cannot be recorded")
    return evidence.event
