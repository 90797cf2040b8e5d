"""Events of the ledger's own that say what was done with a subject: nonpersonal, under the ledger's key, refs only."""

from __future__ import annotations

from uuid import UUID

from ledger.domain.events import Envelope, JsonObject, Role, SealedEvent
from ledger.domain.names import LEDGER_CATEGORY
from ledger.services.appending.recording import PlainPart, seal_event
from ledger.services.dependencies import Dependencies


def seal_own_event(
    deps: Dependencies,
    ledger_id: UUID,
    event_id: UUID,
    event_type: str,
    stream: UUID,
    data: JsonObject,
    recorded_by: UUID,
) -> SealedEvent:
    """An event of the stream ``ledger-<stream>``, sealed and ready to be placed."""
    own = deps.vault.reserve(ledger_id, {}, (), mint=False).ledger_key
    envelope = Envelope(
        ledger_id=ledger_id,
        event_id=event_id,
        stream_ref=stream.bytes,
        category=LEDGER_CATEGORY,
        event_type=event_type,
        schema_version=1,
        occurred_at=None,
        correlation_id=None,
        causation_id=None,
    )
    part = PlainPart(Role.NONPERSONAL, own.key_id, own, stream=f"{LEDGER_CATEGORY}-{stream}", data=data)
    return seal_event(envelope, [part], recorded_by)
