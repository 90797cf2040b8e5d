"""Prepare an append before the head is locked: refs and keys from the vault, then the sealing (the CPU work)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.events import Envelope, NewEvent, NewPart, Role, SealedEvent
from ledger.domain.intake import EVENT_BYTES
from ledger.domain.sequence import Expectation
from ledger.domain.values import value
from ledger.errors import (
    BusyError,
    CallerError,
    Fault,
    InvalidError,
    StateError,
    SubjectErasedError,
    TooLargeError,
)
from ledger.ports import DataKey, Reservation
from ledger.services.appending.recording import PlainPart, seal_event

_SEALED_BYTES: Final = 4 * EVENT_BYTES
"""Whoever takes an event in holds it to ``EVENT_BYTES`` as it was sent. Sealing adds padding and tags, puts names for
refs and writes 1e15 out: nothing that was within the limit may be refused for that."""

_STREAM_OF_ERASED: Final = "is a stream of one who was erased"


class OvertakenError(Exception):
    """Somebody else changed, before the head was locked, what this append was prepared for. Prepare it again.

    ``dead``: keys that turned out to be shredded. The vault may still hold them for a moment. ``abandoned``: streams,
    by name, whose refs turned out to be given up. The name index may still lead to them.
    """

    def __init__(self, dead: frozenset[bytes] = frozenset(), abandoned: Mapping[str, bytes] | None = None) -> None:
        super().__init__()
        self.dead = dead
        self.abandoned = abandoned or {}


@value(frozen=True, slots=True)
class Candidate:
    """A new event that has its id and its names: ready to be prepared. ``index``: its place in the batch."""

    index: int
    event: NewEvent
    event_id: UUID
    stream: str
    category: str

    def fault(self, where: str, message: str) -> Fault:
        """A fault at a place inside this event."""
        return Fault(self.event.pointer + where, message, self.index)


def seal_batch(
    ledger_id: UUID,
    candidates: Sequence[Candidate],
    recorded_by: UUID,
    reservation: Reservation,
    dead: frozenset[bytes],
) -> list[SealedEvent]:
    """Seal the events of a batch with what was reserved. ``dead``: keys not to be used, whatever the vault says.

    Raises ``SubjectErasedError``, ``BusyError``, ``InvalidError``, ``TooLargeError``.
    """
    keys = _Keys(reservation, dead)
    sealed: list[SealedEvent] = []
    refusals: list[CallerError | StateError] = []
    for candidate in candidates:
        try:
            sealed.append(_seal(ledger_id, candidate, keys, recorded_by))
        except (CallerError, StateError) as refusal:
            refusals.append(refusal)
    if refusals:
        # All that are refused for the same reason at once, so that nobody has to take them out one by one.
        first = refusals[0]
        raise type(first)(first.detail, [fault for one in refusals if type(one) is type(first) for fault in one.faults])
    return sealed


def expectations(candidates: Iterable[Candidate], refs: Iterable[bytes]) -> list[Expectation]:
    """What these events, on the streams of these refs, expect."""
    return [
        Expectation(ref, candidate.event.expected_version, candidate.event.pointer)
        for candidate, ref in zip(candidates, refs, strict=True)
    ]


def erased(faults: Iterable[Fault]) -> SubjectErasedError:
    """The refusal of an append for somebody who was erased."""
    return SubjectErasedError("a subject of the append was erased; nothing was recorded", tuple(faults))


@dataclass(frozen=True, slots=True)
class _Keys:
    """What was reserved, less the keys that are known to be dead."""

    reserved: Reservation
    dead: frozenset[bytes]

    def living(self, ref: bytes, purpose: str) -> DataKey | None:
        """The key of a subject and purpose, if it may be used."""
        key = self.reserved.keys.get((ref, purpose))
        return key if key is not None and key.key_id not in self.dead else None

    def refusal(self, ref: bytes, purpose: str, fault: Fault) -> CallerError | StateError:
        """Why there is no key."""
        match self.reserved.refused.get((ref, purpose)):
            case "erasing":
                return BusyError("an erasure of the subject is under way; try again in a moment", [fault])
            case "full":
                message = "has as many purposes as a subject can have"
                return InvalidError("a subject has too many purposes", [Fault(fault.pointer, message, fault.index)])
            case _:
                return erased([fault])

    def is_erased(self, ref: bytes, purpose: str) -> bool:
        """Whether the key is gone for good."""
        return self.living(ref, purpose) is None and self.reserved.refused.get((ref, purpose), "erased") == "erased"


def _seal(ledger_id: UUID, candidate: Candidate, keys: _Keys, recorded_by: UUID) -> SealedEvent:
    reserved = keys.reserved
    if candidate.stream in reserved.unlinked_streams:
        raise erased([candidate.fault("/stream", _STREAM_OF_ERASED)])
    entry = reserved.streams.get(candidate.stream)
    if entry is None:
        raise _ownerless(candidate, keys)
    if candidate.event.stream_ref not in (None, entry.ref):
        # I8: the stream's name was read before its owner was erased, and begins anew by now.
        raise erased([candidate.fault("/stream_ref", _STREAM_OF_ERASED)])
    parts = _parts(candidate, keys)
    name_key = reserved.ledger_key if entry.owner_ref is None else keys.living(entry.owner_ref, "")
    if name_key is None:
        # Not even `if_erased: omit` gets past this: the name of the stream is the erased person's data.
        raise keys.refusal(entry.owner_ref or b"", "", candidate.fault("/stream", _STREAM_OF_ERASED))
    _put_name(parts, candidate.stream, name_key)
    sealed = seal_event(_envelope(ledger_id, candidate, entry.ref), parts, recorded_by)
    if sum([len(part.sealed) for part in sealed.parts]) > _SEALED_BYTES:
        raise TooLargeError("an event is above 1 MiB; nothing was recorded", [candidate.fault("", "is above 1 MiB")])
    return sealed


def _ownerless(candidate: Candidate, keys: _Keys) -> CallerError | StateError:
    """Why a stream was not made: the subject that would own it gets no key."""
    fault = candidate.fault("/subject", "was erased")
    subject = candidate.event.subject
    ref = keys.reserved.subjects.get(subject.subject or "") if subject is not None else None
    return keys.refusal(ref or b"", "", fault)


def _parts(candidate: Candidate, keys: _Keys) -> list[PlainPart]:
    """The parts of an event in part order, without the stream's name."""
    event = candidate.event
    parts = []
    for number, (role, part) in enumerate(event.personal):
        key = _key_of(candidate, keys, number, part)
        if key is not None:
            parts.append(PlainPart(role, key.key_id, key, subject=part.subject or "", data=part.data))
    if event.nonpersonal is not None:
        own = keys.reserved.ledger_key
        parts.append(PlainPart(Role.NONPERSONAL, own.key_id, own, data=event.nonpersonal))
    return parts


def _key_of(candidate: Candidate, keys: _Keys, number: int, part: NewPart) -> DataKey | None:
    """The key of a person's part, the ``number``-th of its event; None: it is left out, since its person was erased."""
    event, name = candidate.event, part.subject or ""
    if event.omit_erased and name in keys.reserved.unlinked and part.subject_ref is None:
        return None
    ref = keys.reserved.subjects.get(name)
    if ref is None or part.subject_ref not in (None, ref):
        # I8: the name was read, by its ref, before it was erased, and leads to somebody new by now.
        raise erased([_person_fault(candidate, number)])
    key = keys.living(ref, part.purpose)
    if key is None and not (event.omit_erased and keys.is_erased(ref, part.purpose)):
        raise keys.refusal(ref, part.purpose, _person_fault(candidate, number))
    return key


def _person_fault(candidate: Candidate, number: int) -> Fault:
    """That the person of the ``number``-th personal part was erased."""
    event = candidate.event
    role, _ = event.personal[number]
    further = number - len(event.personal) + len(event.further)
    where = {Role.SUBJECT: "/subject", Role.ACTOR: "/actor"}.get(role, f"/parts/{further}/subject")
    return candidate.fault(where, "was erased")


def _put_name(parts: list[PlainPart], stream: str, name_key: DataKey) -> None:
    """Put the stream's name into the first part that is under its key anyway, or else into a part of its own."""
    key_id = name_key.key_id
    for part in parts:
        if part.key_id == key_id:
            part.stream = stream
            return
    parts.append(PlainPart(Role.STREAM_NAME, key_id, name_key, stream=stream))


def _envelope(ledger_id: UUID, candidate: Candidate, stream_ref: bytes) -> Envelope:
    event = candidate.event
    return Envelope(
        ledger_id,
        candidate.event_id,
        stream_ref,
        candidate.category,
        event.event_type,
        event.schema_version,
        event.occurred_at,
        event.correlation_id,
        event.causation_id,
    )
