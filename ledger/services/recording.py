"""Seal events and write them under the head lock: the last steps of every append, the service's own events too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from ledger.domain.encoding import encode_aads, encode_plaintext
from ledger.domain.events import Appended, Envelope, JsonObject, RecordedEvent, Role, SealedEvent, SealedPart
from ledger.ports import DataKey


@dataclass(slots=True)
class PlainPart:
    """A part before it is sealed. ``key`` None only for ``Role.SHREDDED``, which has nothing to seal. ``stream`` can be
    put in last: which part carries the stream's name is known when all are there."""

    role: Role
    key_id: bytes
    key: DataKey | None
    subject: str | None = None
    stream: str | None = None
    data: JsonObject | None = None


def seal_event(envelope: Envelope, parts: Sequence[PlainPart], recorded_by: UUID) -> SealedEvent:
    """Seal the parts of one event, each under its own key, with all roles and key ids of the event as AAD."""
    aads = encode_aads(envelope, [(part.role, part.key_id) for part in parts])
    sealed = []
    for part, aad in zip(parts, aads, strict=True):
        body = b""
        if part.key is not None:
            body = part.key.seal(encode_plaintext(subject=part.subject, stream=part.stream, data=part.data), aad)
        sealed.append(SealedPart(part.role, part.key_id, body))
    return SealedEvent(envelope, tuple(sealed), recorded_by)


def appended(event: RecordedEvent) -> Appended:
    """What the writer of an event is told."""
    envelope = event.envelope
    return Appended(
        envelope.event_id, event.position, envelope.stream_ref, event.stream_version, event.recorded_at
    )
