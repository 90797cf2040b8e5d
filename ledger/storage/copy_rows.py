"""Rows of events and of their keys in the binary format of PostgreSQL's COPY: its driver takes several times as long to
make them, value by value.

https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format": a header, the rows, a trailer; numbers
big-endian, a row behind the number of its fields, each field behind its length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final
from uuid import UUID

from ledger.domain.encoding import pack_parts
from ledger.domain.events import RecordedEvent, event_key_rows
from ledger.storage.tables import event_keys, events

HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER: Final = b"\xff\xff"

_AT_ONCE: Final = 500
_NULL: Final = b"\xff\xff\xff\xff"
_LENGTH: Final = struct.Struct(">i")
_INT8: Final = struct.Struct(">iq")
_ID: Final = struct.Struct(">i16s")
_INT4_AND_INT8: Final = struct.Struct(">iiiq")
# From the number of fields to the length of the stream's ref.
_PLACE: Final = struct.Struct(">hi16siqi16si")
_KEY: Final = struct.Struct(">hi16si32siqihih")

_EVENT_FIELDS: Final = len(events.c)
_KEY_FIELDS: Final = len(event_keys.c)


def copied_events(recorded: Sequence[RecordedEvent]) -> Iterator[bytes]:
    """What is to be copied into ``events``, in pieces."""
    yield HEADER
    for start in range(0, len(recorded), _AT_ONCE):
        yield b"".join([_event_row(event) for event in recorded[start : start + _AT_ONCE]])
    yield TRAILER


def copied_keys(recorded: Sequence[RecordedEvent]) -> Iterator[bytes]:
    """What is to be copied into ``event_keys``, in pieces."""
    yield HEADER
    for start in range(0, len(recorded), _AT_ONCE):
        yield b"".join([_key_rows(event) for event in recorded[start : start + _AT_ONCE]])
    yield TRAILER


def _event_row(event: RecordedEvent) -> bytes:
    envelope = event.envelope
    stream_ref, leaf_hash, sealed = envelope.stream_ref, event.leaf_hash, pack_parts(event.parts)
    return b"".join(
        (
            _PLACE.pack(
                _EVENT_FIELDS,
                16,
                envelope.ledger_id.bytes,
                8,
                event.position,
                16,
                envelope.event_id.bytes,
                len(stream_ref),
            ),
            stream_ref,
            _INT8.pack(8, event.stream_version),
            _word(envelope.category),
            _word(envelope.event_type),
            _INT4_AND_INT8.pack(4, envelope.schema_version, 8, event.recorded_at),
            _NULL if envelope.occurred_at is None else _INT8.pack(8, envelope.occurred_at),
            _optional_id(envelope.correlation_id),
            _optional_id(envelope.causation_id),
            _ID.pack(16, event.recorded_by.bytes),
            _LENGTH.pack(len(sealed)),
            sealed,
            _LENGTH.pack(len(leaf_hash)),
            leaf_hash,
        )
    )


def _key_rows(event: RecordedEvent) -> bytes:
    ledger_id, position = event.envelope.ledger_id.bytes, event.position
    return b"".join(
        [
            _KEY.pack(_KEY_FIELDS, 16, ledger_id, 32, key_id, 8, position, 2, part, 2, role)
            for part, role, key_id in event_key_rows(event)
        ]
    )


def _optional_id(value: UUID | None) -> bytes:
    return _NULL if value is None else _ID.pack(16, value.bytes)


@lru_cache(maxsize=1024)
def _word(text: str) -> bytes:
    # Remembered: types and categories are few, come again in every event, and are nobody's data.
    encoded = text.encode()
    return _LENGTH.pack(len(encoded)) + encoded
