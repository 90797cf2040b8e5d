"""Leaves of made-up events."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from ledger.domain.encoding import encode_leaf
from ledger.domain.events import Envelope, Role, SealedPart

LEDGER_ID = UUID(int=7)


def leaf(
    position: int,
    *,
    keys: Sequence[bytes] = (),
    shreds: Sequence[bytes] = (),
    recorded_at: int | None = None,
    ledger_id: UUID = LEDGER_ID,
) -> bytes:
    """The leaf of an event with a part under each of ``keys`` that names ``shreds`` as shredded; a key is a letter."""
    envelope = Envelope(
        ledger_id=ledger_id,
        event_id=UUID(int=position + 1),
        stream_ref=bytes(16),
        category="patient",
        event_type="Noted",
        schema_version=1,
        occurred_at=None,
        correlation_id=None,
        causation_id=None,
    )
    parts = [SealedPart(Role.SUBJECT, key * 32, b"sealed") for key in keys]
    parts += [SealedPart(Role.SHREDDED, key * 32, b"") for key in shreds]
    time = 1000 + position if recorded_at is None else recorded_at
    return encode_leaf(
        envelope, parts, position=position, stream_version=position + 1, recorded_at=time, recorded_by=UUID(int=1)
    )
