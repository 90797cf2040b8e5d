"""The canary: a person whom a drill makes up, recorded in every way in which the ledger records somebody."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from api.drill.checks import DrillError
from api.drill.marks import Marks
from api.wiring import Service
from keyvault.envelope import DataKey
from keyvault.errors import NotAuthenticError
from ledger.domain.encoding import encode_aad
from ledger.domain.events import OPERATOR, JsonObject, Role
from ledger.domain.fold import MERGE_PATCH
from ledger.errors import BusyError, NotFoundError
from ledger.open_ledger import OpenLedger
from ledger.ports import Snapshot
from ledger.services import documents
from ledger.services.documents import DocumentKind, Sealed
from ledger.services.ledgers import create_ledger, find_ledger
from ledger.services.projecting.shipped import CURRENT_STATE
from ledger.services.timetravel.snapshots import keep
from ledger.services.timetravel.state import fold_stream

LEDGER: Final = "drill"
_EVENTS: Final = 3
_TYPE: Final = "DrillNoted"
_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class SealedPiece:
    """One sealed part of the canary's, with what it is bound to."""

    key_id: bytes
    sealed: bytes
    aad: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Canary:
    """Where the canary stands in the ledger. ``last``: the position of the last event that it has a part in."""

    ledger_id: UUID
    marks: Marks
    subject_ref: bytes
    stream_ref: bytes
    last: int
    pieces: tuple[SealedPiece, ...]
    beside: SealedPiece
    """A part under the ledger's own key, which stays readable."""


def record(service: Service, marks: Marks) -> Canary:
    """Append, in a ledger that is kept for drills and made when it is missing."""
    try:
        ledger_id = find_ledger(service.deps, LEDGER).ledger_id
    except NotFoundError:
        ledger_id = create_ledger(service.deps, LEDGER).ledger_id
    ledger = OpenLedger(service.deps, ledger_id, OPERATOR)
    appended = ledger.append(*_events(marks)).events
    recorded = service.deps.store.find_events(ledger_id, [event.event_id for event in appended]).values()
    subject = service.vault.find_subjects(ledger_id, [marks.subject])[marks.subject]
    pieces: list[SealedPiece] = []
    beside: list[SealedPiece] = []
    for event in recorded:
        roles = [(part.role, part.key_id) for part in event.parts]
        for number, part in enumerate(event.parts):
            piece = SealedPiece(part.key_id, part.sealed, encode_aad(event.envelope, roles, number))
            (beside if part.role is Role.NONPERSONAL else pieces).append(piece)
    return Canary(
        ledger_id, marks, subject.ref, appended[0].stream_ref, appended[-1].position, tuple(pieces), beside[0]
    )


def _events(marks: Marks) -> list[JsonObject]:
    """As main subject, for a purpose, as an actor, as a further person; in a stream of its own and in one of nobody."""
    noted, contact, seen, related = marks.values
    beside = {"beside": marks.beside}
    own: JsonObject = {"stream": marks.stream, "type": _TYPE, "subject": marks.subject, "nonpersonal": beside}
    duty: JsonObject = {"stream": marks.duty, "type": _TYPE, "nonpersonal": beside}
    return [
        *({**own, "data": {"note": noted, "number": number}} for number in range(_EVENTS)),
        {**own, "purpose": "contact", "data": {"contact": contact}},
        {**duty, "actor": {"subject": marks.subject, "data": {"seen": seen}}},
        {**duty, "parts": [{"subject": marks.subject, "purpose": "related", "data": {"related": related}}]},
        {**own, "data": {"note": noted, "number": _EVENTS}},
    ]


def derive(service: Service, canary: Canary) -> None:
    """A snapshot and a read model, without waiting for a worker; where one is at it, it is waited for."""
    folded = fold_stream(service.deps, canary.ledger_id, canary.stream_ref, canary.last)
    keep(service.deps, canary.ledger_id, MERGE_PATCH, [(canary.stream_ref, folded)])
    ledger = OpenLedger(service.deps, canary.ledger_id, OPERATOR)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        ledger.project(CURRENT_STATE)
        try:
            ledger.read_model(CURRENT_STATE, canary.stream_ref, min_position=canary.last, timeout=_PAUSE_SECONDS)
            break
        except BusyError:
            if time.monotonic() > deadline:
                raise
    for cursor in service.deps.derived.cursors.cursors(canary.ledger_id, "projection", CURRENT_STATE.name):
        service.deps.derived.cursors.release_cursor(canary.ledger_id, cursor.key, ledger.worker)


def kept_documents(service: Service, canary: Canary) -> dict[str, Sealed]:
    """The canary's snapshot and read model as they are stored now. Raises ``DrillError`` when one is not there."""
    derived, ledger_id = service.deps.derived, canary.ledger_id
    snapshots = derived.snapshots.nearest_snapshots(ledger_id, MERGE_PATCH.label, [canary.stream_ref], canary.last)
    page = derived.read_models.read_documents(ledger_id, CURRENT_STATE.name, [canary.stream_ref])
    if canary.stream_ref not in snapshots or page is None or not page.rows:
        raise DrillError("the canary's snapshot or read model was not made; look at the worker's log, and drill again")
    row = page.rows[0]
    return {
        "snapshot": _sealed(snapshots[canary.stream_ref]),
        "read model": Sealed(CURRENT_STATE.label, row.key, row.position, row.leaf_hash, row.key_ids, row.body),
    }


def _sealed(snapshot: Snapshot) -> Sealed:
    return Sealed(
        snapshot.fold,
        snapshot.stream_ref,
        snapshot.position,
        snapshot.leaf_hash,
        snapshot.key_ids,
        snapshot.sealed,
    )


def documents_that_open(service: Service, canary: Canary, kept: Mapping[str, Sealed]) -> list[str]:
    """Which of these copies the service would still open."""
    kinds = {"snapshot": DocumentKind.SNAPSHOT, "read model": DocumentKind.READ_MODEL}
    return [
        name
        for name, sealed in kept.items()
        if documents.open_(service.deps, canary.ledger_id, kinds[name], [sealed]) != [None]
    ]


def parts_that_open(pieces: Collection[SealedPiece], keys: Sequence[DataKey]) -> int:
    """How many of these parts any of the keys opens."""
    return sum(any(_opens(key, piece) for key in keys) for piece in pieces)


def _opens(key: DataKey, piece: SealedPiece) -> bool:
    try:
        key.open(piece.sealed, piece.aad)
    except NotAuthenticError:
        return False
    return True
