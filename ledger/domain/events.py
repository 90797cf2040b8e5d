"""The values: events before they are recorded, sealed, recorded, and opened again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Literal
from uuid import UUID

from ledger.domain.marks import NOTHING_SEEN, VaultMark
from ledger.domain.values import value

JsonObject = dict[str, Any]
"""A JSON object as ``json`` gives it."""

ExpectedVersion = int | Literal["any", "exists"]
RedactionReason = Literal["erased", "restricted", "unreadable"]
SchemaStatus = Literal["unregistered", "current", "upcast", "as-recorded", "unknown-version", "failed"]
"""In which shape an event is shown: as recorded because its type is not registered; as recorded because that is the
newest version; brought to the newest version; or as recorded although there is a newer version, because that was asked
for, because nobody knows the way from its version, or because that way failed on this event."""

PARTS: Final = 64
"""Parts of one event, at most."""

OPERATOR: Final = UUID(int=0)
"""``recorded_by`` of what the operator recorded from the command line, without an API key."""


class Role(IntEnum):
    """What a part is to its event. The numbers stand in leaves and cannot change."""

    SUBJECT = 1
    ACTOR = 2
    FURTHER = 3
    NONPERSONAL = 4
    STREAM_NAME = 5
    SHREDDED = 6


PERSONAL_ROLES: Final = (Role.SUBJECT, Role.ACTOR, Role.FURTHER)
"""The roles in which a person is involved in an event."""


@value(frozen=True, slots=True)
class NewPart:
    """What one event says of one person, for one purpose. A request gives exactly one of ``subject`` and
    ``subject_ref``; when the name behind a ref has been read, both are there."""

    subject: str | None
    subject_ref: bytes | None
    purpose: str
    data: JsonObject | None


@value(frozen=True, slots=True)
class NewEvent:
    """An event that somebody asks to record.

    ``pointer`` is where it stood in the request ("" for a lone event). ``correlation_given`` is False where the
    correlation id was taken from the request's trace, which is another one at each retry. ``closes_stream``: nothing
    can be appended to the stream behind it. ``by_process``: it is one of a process manager's own, in a category that is
    reserved for these.
    """

    pointer: str
    event_id: UUID | None
    stream: str | None
    stream_ref: bytes | None
    expected_version: ExpectedVersion
    event_type: str
    schema_version: int
    subject: NewPart | None
    actor: NewPart | None
    further: tuple[NewPart, ...]
    nonpersonal: JsonObject | None
    occurred_at: int | None
    correlation_id: UUID | None
    correlation_given: bool
    causation_id: UUID | None
    omit_erased: bool
    closes_stream: bool = False
    by_process: bool = False

    @property
    def personal(self) -> tuple[tuple[Role, NewPart], ...]:
        """The parts that belong to persons, in part order."""
        parts: list[tuple[Role, NewPart]] = []
        if self.subject is not None:
            parts.append((Role.SUBJECT, self.subject))
        if self.actor is not None:
            parts.append((Role.ACTOR, self.actor))
        if self.further:
            parts.extend((Role.FURTHER, part) for part in self.further)
        return tuple(parts)


@value(frozen=True, slots=True)
class SealedPart:
    """A part as it is stored. ``sealed`` is empty for ``Role.SHREDDED``, which says only which key is dead."""

    role: Role
    key_id: bytes
    sealed: bytes


@value(frozen=True, slots=True)
class Envelope:
    """What is known of an event before the head is locked: all that its parts' AAD binds."""

    ledger_id: UUID
    event_id: UUID
    stream_ref: bytes
    category: str
    event_type: str
    schema_version: int
    occurred_at: int | None
    correlation_id: UUID | None
    causation_id: UUID | None


@value(frozen=True, slots=True)
class SealedEvent:
    """An event that is ready to be recorded: everything but its place and time."""

    envelope: Envelope
    parts: tuple[SealedPart, ...]
    recorded_by: UUID


@value(frozen=True, slots=True)
class RecordedEvent:
    """A row of the log. Times are microseconds since 1970-01-01 UTC; refs are 16 bytes, key ids and hashes 32."""

    envelope: Envelope
    parts: tuple[SealedPart, ...]
    recorded_by: UUID
    position: int
    stream_version: int
    recorded_at: int
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class Redaction:
    """What stands in place of a part that may not or cannot be read.

    ``at``: since when, in microseconds. ``subject_ref`` is None when nobody knows any more whose key it was.
    """

    pointer: str
    subject_ref: bytes | None
    purpose: str | None
    reason: RedactionReason
    at: int | None
    erasure_id: UUID | None


@value(frozen=True, slots=True)
class OpenedPart:
    """A part of a person as a reader gets to see it; ``subject`` and ``data`` are None behind a redaction."""

    subject: str | None
    subject_ref: bytes | None
    purpose: str | None
    data: JsonObject | None
    readable: bool


@dataclass(frozen=True, slots=True)
class DisclosedPart:
    """What shows somebody without a vault what one part says. ``key``: its single-use key; it opens this part, for
    good, and no other."""

    number: int
    sealed: bytes
    key: bytes = field(repr=False)


@value(frozen=True, slots=True)
class OpenedEvent:
    """An event as a reader gets to see it now.

    ``opened_keys``: of the subjects' keys that parts of it were opened with, in part order (the ledger's own is not
    named). ``shown_version``: the schema version whose shape ``data`` and ``nonpersonal`` have. ``led_by_code``: the
    versions on its way there from which code has led it on. ``disclosed``: the parts that were opened, for a reader who
    asked for a proof of what they say.
    """

    recorded: RecordedEvent
    stream: str | None
    subject: OpenedPart | None
    actor: OpenedPart | None
    further: tuple[OpenedPart, ...]
    nonpersonal: JsonObject | None
    redactions: tuple[Redaction, ...]
    opened_keys: tuple[bytes, ...] = ()
    schema_status: SchemaStatus = "unregistered"
    shown_version: int = 1
    led_by_code: tuple[int, ...] = ()
    disclosed: tuple[DisclosedPart, ...] = ()


@value(frozen=True, slots=True)
class Appended:
    """The answer to an append, for one event."""

    event_id: UUID
    position: int
    stream_ref: bytes
    stream_version: int
    recorded_at: int


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a ledger: its size, its Merkle compact range, the newest recorded-at (0 when empty), and what it
    remembers of the key vault."""

    size: int
    frontier: tuple[bytes, ...]
    last_recorded_at: int
    vault: VaultMark = NOTHING_SEEN


StreamVersions = Mapping[bytes, int]
"""Stream ref → current version; a stream without events is absent."""


def event_key_rows(event: RecordedEvent) -> list[tuple[int, int, bytes]]:
    """The rows (part, role, key_id) of ``event_keys`` that belong to an event.

    Nonpersonal parts have none: they are all under the ledger's own key, from which nobody asks for events.
    """
    return [
        (number, int(part.role), part.key_id)
        for number, part in enumerate(event.parts)
        if part.role is not Role.NONPERSONAL
    ]
