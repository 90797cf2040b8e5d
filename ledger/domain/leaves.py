"""Leaves, read back: what an event's leaf says to somebody who has nothing else."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.encoding import FORMAT_1, encode_aad
from ledger.domain.events import PARTS, Envelope, Role
from ledger.domain.merkle import HASH_BYTES
from ledger.domain.names import WORD_BYTES, word_fault
from ledger.errors import UnknownFormatError

_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class LeafPart:
    """What a leaf says of one part. ``sealed_hash``: SHA-256 of the sealed part."""

    role: Role
    key_id: bytes
    sealed_hash: bytes


@dataclass(frozen=True, slots=True)
class Leaf:
    """All that is recorded of an event, its parts by their hashes."""

    envelope: Envelope
    parts: tuple[LeafPart, ...]
    position: int
    stream_version: int
    recorded_at: int
    recorded_by: UUID

    @property
    def roles(self) -> Sequence[tuple[Role, bytes]]:
        """Role and key id of each part, as the AAD binds them."""
        return [(part.role, part.key_id) for part in self.parts]

    def aad(self, number: int) -> bytes:
        """The AAD of part ``number``."""
        return encode_aad(self.envelope, self.roles, number)


def parse_leaf(raw: bytes) -> Leaf:
    """Read a leaf. Raises ``UnknownFormatError`` for anything that ``encode_leaf`` cannot give for an event."""
    reader = _Reader(raw)
    if reader.take(1) != FORMAT_1:
        raise UnknownFormatError("the leaf has a layout that this version does not know")
    try:
        leaf = _read(reader)
    except ValueError as error:
        raise UnknownFormatError("the leaf cannot be read") from error
    if not reader.at_end:
        raise UnknownFormatError("there are bytes behind the leaf")
    return leaf


class _Reader:
    """Takes bytes from the front, never more than there are."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._offset = 0

    @property
    def at_end(self) -> bool:
        return self._offset == len(self._raw)

    def take(self, size: int) -> bytes:
        end = self._offset + size
        if end > len(self._raw):
            raise UnknownFormatError("the leaf is cut short")
        taken = self._raw[self._offset : end]
        self._offset = end
        return taken

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def time(self) -> int:
        found: int = struct.unpack(">q", self.take(8))[0]
        return found

    def identifier(self) -> UUID:
        return UUID(bytes=self.take(_ID_BYTES))

    def present(self) -> bool:
        flag = self.take(1)
        if flag not in (b"\x00", b"\x01"):
            raise UnknownFormatError("the leaf says neither that a field is there nor that it is not")
        return flag == b"\x01"

    def word(self) -> str:
        size = self.unsigned(2)
        if size > WORD_BYTES:
            raise UnknownFormatError("the leaf has a category or type that is too long")
        text = self.take(size).decode("ascii")
        if word_fault(text) is not None:
            raise UnknownFormatError("the leaf has a category or type that no event can have")
        return text


def _read(reader: _Reader) -> Leaf:
    ledger_id = reader.identifier()
    position = reader.unsigned(8)
    event_id = reader.identifier()
    stream_ref = reader.take(_ID_BYTES)
    stream_version = reader.unsigned(8)
    category, event_type = reader.word(), reader.word()
    schema_version = reader.unsigned(4)
    recorded_at = reader.time()
    occurred_at = reader.time() if reader.present() else None
    correlation_id = reader.identifier() if reader.present() else None
    causation_id = reader.identifier() if reader.present() else None
    recorded_by = reader.identifier()
    count = reader.unsigned(1)
    if count > PARTS:
        raise UnknownFormatError("the leaf has more parts than an event can have")
    parts = tuple(
        LeafPart(Role(reader.unsigned(1)), reader.take(HASH_BYTES), reader.take(HASH_BYTES)) for _ in range(count)
    )
    envelope = Envelope(
        ledger_id=ledger_id,
        event_id=event_id,
        stream_ref=stream_ref,
        category=category,
        event_type=event_type,
        schema_version=schema_version,
        occurred_at=occurred_at,
        correlation_id=correlation_id,
        causation_id=causation_id,
    )
    return Leaf(envelope, parts, position, stream_version, recorded_at, recorded_by)
