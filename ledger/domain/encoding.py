"""The exact bytes: leaves, AAD, the stored parts, the plaintext of a part. They can never change.

The first byte of each fixes its whole layout; an unknown one is an error and nothing is tried twice.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from ledger.domain.events import Envelope, JsonObject, RecordedEvent, Role, SealedPart
from ledger.errors import UnknownFormatError

FORMAT_1: Final = b"\x01"
PADDING_BLOCK: Final = 64

_ABSENT: Final = b"\x00"
_PRESENT: Final = b"\x01"
_NOTHING_STATED: Final = _ABSENT * 3
_BYTES: Final = tuple(bytes((number,)) for number in range(256))
_ROLES: Final = {int(role): role for role in Role}
_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_I64: Final = struct.Struct(">q")
_PART_HEADER: Final = struct.Struct(">B32sI")
_KEY_RECORD: Final = struct.Struct(">I8sIHIHI32s")
_PLAINTEXT: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@lru_cache(maxsize=1024)
def _word(text: str) -> bytes:
    # Remembered: types and categories are few, come again in every event, and are nobody's data.
    encoded = text.encode("ascii")
    return _U16.pack(len(encoded)) + encoded


@lru_cache(maxsize=1024)
def _kind(category: str, event_type: str, schema_version: int) -> bytes:
    """What kind of event it is: there are few kinds and many events."""
    return _word(category) + _word(event_type) + _U32.pack(schema_version)


def _optional_time(microseconds: int | None) -> bytes:
    return _ABSENT if microseconds is None else _PRESENT + _I64.pack(microseconds)


def _optional_id(value: UUID | None) -> bytes:
    return _ABSENT if value is None else _PRESENT + value.bytes


def _stated(envelope: Envelope) -> bytes:
    """What the writer may state of an event or not."""
    occurred_at, correlation_id, causation_id = envelope.occurred_at, envelope.correlation_id, envelope.causation_id
    if occurred_at is None and correlation_id is None and causation_id is None:
        return _NOTHING_STATED
    return _optional_time(occurred_at) + _optional_id(correlation_id) + _optional_id(causation_id)


def part_hash(part: SealedPart) -> bytes:
    """SHA-256 of a sealed part, as it stands in the leaf."""
    return sha256(part.sealed).digest()


def encode_leaf(
    envelope: Envelope,
    parts: Sequence[SealedPart],
    *,
    position: int,
    stream_version: int,
    recorded_at: int,
    recorded_by: UUID,
) -> bytes:
    """The leaf of an event: commits to all that is recorded of it, by ciphertext only."""
    return b"".join(
        (
            FORMAT_1,
            envelope.ledger_id.bytes,
            _U64.pack(position),
            envelope.event_id.bytes,
            envelope.stream_ref,
            _U64.pack(stream_version),
            _kind(envelope.category, envelope.event_type, envelope.schema_version),
            _I64.pack(recorded_at),
            _stated(envelope),
            recorded_by.bytes,
            bytes((len(parts),)),
            *[_BYTES[part.role] + part.key_id + part_hash(part) for part in parts],
        )
    )


def encode_document_aad(
    ledger_id: UUID,
    kind: int,
    fold_label: str,
    key: bytes,
    position: int,
    leaf_hash: bytes,
    key_ids: Sequence[bytes],
) -> bytes:
    """What a derived document is bound to: its ledger, its fold, what it is about, the event that it ends with (in this
    log and no other), and the subjects' keys that went into it, distinct and in order."""
    if list(key_ids) != sorted(set(key_ids)):
        raise ValueError("the key ids of a document are distinct and in order")
    label = fold_label.encode("ascii")
    return b"".join(
        (
            FORMAT_1,
            bytes((kind,)),
            ledger_id.bytes,
            _U16.pack(len(label)) + label,
            _U16.pack(len(key)) + key,
            _U64.pack(position),
            leaf_hash,
            _U32.pack(len(key_ids)),
            *key_ids,
        )
    )


def leaf_and_shared_aad(event: RecordedEvent) -> tuple[bytes, bytes]:
    """``leaf_of`` and ``encode_shared_aad`` of an event in one go, for who reads many: they have most in common."""
    envelope, parts = event.envelope, event.parts
    ledger_id, event_id = envelope.ledger_id.bytes, envelope.event_id.bytes
    kind = _kind(envelope.category, envelope.event_type, envelope.schema_version)
    stated = _stated(envelope)
    count = bytes((len(parts),))
    leaf = [
        FORMAT_1,
        ledger_id,
        _U64.pack(event.position),
        event_id,
        envelope.stream_ref,
        _U64.pack(event.stream_version),
        kind,
        _I64.pack(event.recorded_at),
        stated,
        event.recorded_by.bytes,
        count,
    ]
    aad = [FORMAT_1, ledger_id, event_id, envelope.stream_ref, kind, stated, count]
    for part in parts:
        owner = _BYTES[part.role] + part.key_id
        aad.append(owner)
        leaf.append(owner)
        leaf.append(sha256(part.sealed).digest())
    return b"".join(leaf), b"".join(aad)


def leaf_of(event: RecordedEvent) -> bytes:
    """The leaf of an event as its row has it now."""
    return encode_leaf(
        event.envelope,
        event.parts,
        position=event.position,
        stream_version=event.stream_version,
        recorded_at=event.recorded_at,
        recorded_by=event.recorded_by,
    )


def encode_aad(envelope: Envelope, parts: Sequence[tuple[Role, bytes]], number: int) -> bytes:
    """The AAD of part ``number`` of an event whose parts have these roles and key ids.

    A part that is moved to another event, stream, ledger, role or number, or that loses a neighbour, does not open.
    """
    return encode_shared_aad(envelope, parts) + bytes((number,))


def encode_aads(envelope: Envelope, parts: Sequence[tuple[Role, bytes]]) -> list[bytes]:
    """The AADs of all parts of an event: they differ in the number alone."""
    shared = encode_shared_aad(envelope, parts)
    return [shared + bytes((number,)) for number in range(len(parts))]


def encode_shared_aad(envelope: Envelope, parts: Sequence[tuple[Role, bytes]]) -> bytes:
    """What the AADs of all parts of an event begin with: only the part's number is left, as one byte."""
    return b"".join(
        (
            FORMAT_1,
            envelope.ledger_id.bytes,
            envelope.event_id.bytes,
            envelope.stream_ref,
            _kind(envelope.category, envelope.event_type, envelope.schema_version),
            _stated(envelope),
            bytes((len(parts),)),
            *[_BYTES[role] + key_id for role, key_id in parts],
        )
    )


def pack_parts(parts: Sequence[SealedPart]) -> bytes:
    """The column ``events.sealed``: 0x01 ‖ count u8 ‖ per part: role u8 ‖ key_id[32] ‖ length u32 ‖ sealed part."""
    return b"".join(
        (
            FORMAT_1,
            bytes((len(parts),)),
            *(_PART_HEADER.pack(part.role, part.key_id, len(part.sealed)) + part.sealed for part in parts),
        )
    )


def unpack_parts(stored: bytes) -> tuple[SealedPart, ...]:
    """Read the column ``events.sealed``. Raises ``UnknownFormatError`` for anything that ``pack_parts`` cannot give."""
    if stored[:1] != FORMAT_1 or len(stored) < 2:
        raise UnknownFormatError("the stored parts of an event have an unknown layout")
    parts = []
    offset = 2
    try:
        for _ in range(stored[1]):
            role, key_id, length = _PART_HEADER.unpack_from(stored, offset)
            offset += _PART_HEADER.size
            if offset + length > len(stored):
                raise UnknownFormatError("the stored parts of an event are cut short")
            parts.append(SealedPart(_ROLES[role], key_id, stored[offset : offset + length]))
            offset += length
    except (struct.error, KeyError) as error:
        raise UnknownFormatError("the stored parts of an event cannot be read") from error
    if offset != len(stored):
        raise UnknownFormatError("there are bytes behind the stored parts of an event")
    return tuple(parts)


def encode_plaintext(*, subject: str | None, stream: str | None, data: JsonObject | None) -> bytes:
    """The plaintext of a part: JSON, padded with spaces to a multiple of 64 bytes, because lengths outlive the erasure.

    Raises ``UnicodeEncodeError`` for a lone surrogate.
    """
    return pad_plaintext(_PLAINTEXT.encode(plaintext_members(subject, stream, data)).encode())


def plaintext_members(subject: str | None, stream: str | None, data: JsonObject | None) -> JsonObject:
    """What stands in a part's JSON text, in this order."""
    members: dict[str, Any] = {}
    if subject is not None:
        members["subject"] = subject
    if stream is not None:
        members["stream"] = stream
    if data is not None:
        members["data"] = data
    return members


def pad_plaintext(text: bytes) -> bytes:
    """The JSON text of a part's members, as ``encode_plaintext`` pads it."""
    return text + b" " * (-len(text) % PADDING_BLOCK)


def decode_plaintext(plaintext: bytes) -> dict[str, Any]:
    """The members ``subject``, ``stream`` and ``data`` of a part, as far as it has them.

    Raises ``ValueError`` for what ``encode_plaintext`` cannot have made.
    """
    members = json.loads(plaintext)
    if not isinstance(members, dict):
        raise ValueError("the plaintext of a part is not a JSON object")
    return members


def key_record(position: bytes, part: int, role: int, key_id: bytes) -> bytes:
    """A row of ``event_keys`` to be compared: position, part, role and key_id, each behind its length, as PostgreSQL
    gives such a row in binary."""
    return _KEY_RECORD.pack(8, position, 2, part, 2, role, 32, key_id)
