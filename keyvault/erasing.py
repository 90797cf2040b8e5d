"""The vault's steps of an erasure, and restricting. Each can be repeated; a crash between two leaves work, not damage.

Step 1 is :func:`begin`, one transaction. Step 2 is the ledger's. Steps 3 and 4 are :func:`finish`: fences in, key rows
out and the subject's state, one transaction (``shredded``); then the journal line; then ``done``. A crash before the
line or before ``done`` leaves ``shredded``, and the next call writes the line (again: harmless).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol
from uuid import UUID

from sqlalchemy import Connection, Engine

from keyvault import database, epoch_store, erasure_store, link_store, linking, mark_store, name_store, store
from keyvault.epochs import held_epoch
from keyvault.errors import (
    BusyError,
    NotInitialisedError,
    UnknownErasureError,
    UnknownPurposeError,
    UnknownSubjectError,
    UnlinkedError,
)
from keyvault.journal import Journal
from keyvault.keyring import SERVICE, Keyring
from keyvault.name_store import SubjectRow
from keyvault.scribe import write_line, write_line_in
from keyvault.values import ACTOR_PURPOSE, ErasureEntry, SubjectState

_RESTRICTION_LINES: Final[Mapping[SubjectState, str]] = {"restricted": "restrict", "active": "lift"}


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """What was asked for. ``purposes``: distinct and sorted; None = everything but what the person did as an actor."""

    erasure_id: UUID
    ledger_id: UUID
    purposes: tuple[str, ...] | None
    ground: str | None
    reference: str | None
    name_commitment: bytes | None
    requested_at: int
    requested_by: UUID


class Lost(Protocol):
    """An erasure that the vault does not know any more: as the ledger, the journal or a receipt tells of it."""

    @property
    def erasure_id(self) -> UUID: ...
    @property
    def ledger_id(self) -> UUID: ...
    @property
    def subject_ref(self) -> bytes: ...
    @property
    def keys(self) -> Sequence[tuple[bytes, str | None]]:
        """(key_id, purpose); None: the purpose is not known, and the vault's row decides, if there is one."""

    @property
    def requested_at(self) -> int: ...
    @property
    def requested_by(self) -> UUID | None: ...
    @property
    def next_state(self) -> Literal["active", "restricted", "erased"] | None:
        """The state that its subject got; None: not known."""

    @property
    def purposes(self) -> tuple[str, ...] | None:
        """As requested; see ``request_known``."""

    @property
    def request_known(self) -> bool:
        """Whether ``purposes`` says what was requested. If not, it follows from what became of the subject."""

    @property
    def ground(self) -> str | None: ...
    @property
    def reference(self) -> str | None: ...
    @property
    def name_commitment(self) -> bytes | None: ...


def begin(
    engine: Engine, keyring: Keyring, subject: str | bytes, request: ErasureRequest, *, block_unknown: bool
) -> ErasureEntry:
    """See ``KeyVault.begin_erasure``."""
    with database.writing(engine) as connection:
        ref = _resolve(connection, keyring, subject, request, block_unknown=block_unknown)
        row = name_store.lock_subject(connection, request.ledger_id, ref)
        if row is None:
            raise UnknownSubjectError("the vault knows no subject of this ref")
        return (
            erasure_store.open_erasures_of(connection, request.ledger_id, [ref]).get(ref)
            or _already_done(connection, row, request)
            or _begin_new(connection, row, request)
        )


def begin_again(engine: Engine, lost: Lost) -> ErasureEntry:
    """See :meth:`keyvault.guard.RestoreGuard.begin_again`."""
    with database.writing(engine) as connection:
        known = erasure_store.erasure(connection, lost.ledger_id, lost.erasure_id)
        if known is not None:
            return known
        if name_store.lock_subject(connection, lost.ledger_id, lost.subject_ref) is None:
            # Made and erased since the copy was taken: its name is not known here, its ref must never live again.
            name_store.insert_subjects(connection, lost.ledger_id, [lost.subject_ref], lost.requested_at)
            link_store.insert_mark(connection, lost.ledger_id, lost.subject_ref)
        row = name_store.lock_subject(connection, lost.ledger_id, lost.subject_ref)
        if row is None or erasure_store.open_erasures_of(connection, lost.ledger_id, [row.ref]):
            raise BusyError("another erasure of the subject is open; try again when it is done")
        entry = _lost_entry(connection, row, lost)
        erasure_store.insert_erasure(connection, entry)
        name_store.set_subject_state(connection, lost.ledger_id, row.ref, "erasing", lost.requested_at)
    return entry


def _lost_entry(connection: Connection, row: SubjectRow, lost: Lost) -> ErasureEntry:
    living = {key.key_id: key.purpose for key in store.stored_keys_of(connection, lost.ledger_id, row.ref)}
    keys = {key_id: living.get(key_id, purpose or "") for key_id, purpose in lost.keys}
    next_state = lost.next_state
    if next_state is None or row.state in ("erased", "erasing"):
        # Without a word about it: whoever has nothing left but what it did as an actor was erased.
        kept = {purpose for key_id, purpose in living.items() if key_id not in keys} - {ACTOR_PURPOSE}
        gone = row.state in ("erased", "erasing") or not kept
        next_state = "erased" if gone else "restricted" if row.state == "restricted" else "active"
    return ErasureEntry(
        erasure_id=lost.erasure_id,
        ledger_id=lost.ledger_id,
        subject_ref=row.ref,
        key_ids=tuple(sorted(keys.items())),
        purposes=lost.purposes if lost.request_known else _likely_request(keys.values(), next_state),
        ground=lost.ground,
        reference=lost.reference,
        name_commitment=lost.name_commitment,
        next_state=next_state,
        requested_at=lost.requested_at,
        requested_by=lost.requested_by or SERVICE,
        erased_at=None,
        epoch=None,
        state="begun",
    )


def _likely_request(purposes: Iterable[str], next_state: SubjectState) -> tuple[str, ...] | None:
    """For a subject that lives on, it was some purposes that were asked for."""
    return None if next_state == "erased" else tuple(sorted(set(purposes)))


def finish(
    engine: Engine, keyring: Keyring, journal: Journal, ledger_id: UUID, erasure_id: UUID, erased_at: int, now: int
) -> ErasureEntry:
    """See ``KeyVault.finish_erasure``. ``now``: the time of the journal line."""
    with database.writing(engine) as connection:
        entry = _locked_erasure(connection, ledger_id, erasure_id)
        if entry.state == "begun":
            _shred(connection, entry, erased_at)
    entry = _erasure(engine, ledger_id, erasure_id)
    keyring.forget(key_id for key_id, _ in entry.key_ids)
    if entry.done:
        return entry
    database.scrub(engine)
    line = write_line(engine, keyring, journal, "shred", line_of(entry), now)
    with database.writing(engine) as connection:
        _locked_erasure(connection, ledger_id, erasure_id)
        erasure_store.mark_done(connection, ledger_id, erasure_id)
        mark_store.note_journal(connection, line)
    return _erasure(engine, ledger_id, erasure_id)


def change_restriction(
    engine: Engine,
    keyring: Keyring,
    journal: Journal,
    ledger_id: UUID,
    ref: bytes,
    old: Literal["active", "restricted"],
    new: Literal["active", "restricted"],
    now: int,
) -> None:
    """``old`` → ``new``, at once or, while a part of the subject is being erased, when that is done. Then the journal's
    line, with the subject held: it says what holds *then*, so of two that change it at once the last line is right."""
    with database.writing(engine) as connection:
        row = name_store.lock_subject(connection, ledger_id, ref)
        if row is None:
            raise UnknownSubjectError("the vault knows no subject of this ref")
        if row.state == old:
            name_store.set_subject_state(connection, ledger_id, ref, new, now)
        elif row.state == "erasing":
            erasure_store.change_next_state(connection, ledger_id, ref, old, new)
    with database.writing(engine) as connection:
        row = name_store.lock_subject(connection, ledger_id, ref)
        kind = None if row is None else _RESTRICTION_LINES.get(next_state(connection, ledger_id, row))
        if kind is not None:
            fields = {"ledger_id": str(ledger_id), "subject_ref": ref.hex()}
            write_line_in(connection, keyring, journal, kind, fields, now)


def next_state(connection: Connection, ledger_id: UUID, row: SubjectRow) -> SubjectState:
    """The state that an open erasure leads to; without one, or when it has led there already, the state itself."""
    if row.state != "erasing":
        return row.state
    under_way = erasure_store.open_erasures_of(connection, ledger_id, [row.ref]).get(row.ref)
    return row.state if under_way is None else under_way.next_state


def _resolve(
    connection: Connection,
    keyring: Keyring,
    subject: str | bytes,
    request: ErasureRequest,
    *,
    block_unknown: bool,
) -> bytes:
    if isinstance(subject, bytes):
        return subject
    digest = keyring.open_ledger(store.secrets_of(connection, request.ledger_id)).subject_hash(subject)
    rows = name_store.names_by_hash(connection, request.ledger_id, [digest])
    if digest in rows:
        named = linking.subject_of(keyring, request.ledger_id, rows[digest])
        ref = None if named is None else named.ref
    elif block_unknown:
        epoch, now = held_epoch(connection), request.requested_at
        made = linking.insert_new_subjects(connection, keyring, request.ledger_id, [digest], epoch, now)
        ref = made.get(digest)
        mark_store.count_mint(connection, request.ledger_id)
    else:
        raise UnknownSubjectError("the vault knows no subject of this name")
    if ref is None:
        raise UnlinkedError
    return ref


def _already_done(connection: Connection, row: SubjectRow, request: ErasureRequest) -> ErasureEntry | None:
    """The erasure that has shredded all that is asked for."""
    if request.purposes is None:
        if row.state != "erased":
            return None
        return erasure_store.erasure_of_everything(connection, request.ledger_id, row.ref)
    living = {key.purpose for key in store.stored_keys_of(connection, request.ledger_id, row.ref)}
    fences = store.fences_of_subjects(connection, request.ledger_id, [row.ref])
    unknown = set(request.purposes) - living - {fence.purpose for fence in fences}
    if unknown:
        raise UnknownPurposeError(sorted(unknown))
    if living & set(request.purposes):
        return None
    ids = {fence.erasure_id for fence in fences if fence.purpose in request.purposes}
    entries = erasure_store.erasures_by_id(connection, request.ledger_id, ids)
    # None: a hand has put the fences there, and no erasure says so.
    return max(entries, key=lambda entry: (entry.requested_at, entry.erasure_id), default=None)


def _begin_new(connection: Connection, row: SubjectRow, request: ErasureRequest) -> ErasureEntry:
    # Behind a fence, too: if a hand has put it there, the key is not dead yet.
    keys = [
        (key.key_id, key.purpose)
        for key in store.stored_keys_of(connection, request.ledger_id, row.ref)
        if (key.purpose != ACTOR_PURPOSE if request.purposes is None else key.purpose in request.purposes)
    ]
    # Only an erasure of everything changes the state for good, and then nothing is minted for this subject any more.
    # (``erasing`` without an open erasure is damage by hand; then too nothing is minted.)
    next_state = "erased" if request.purposes is None or row.state == "erasing" else row.state
    entry = ErasureEntry(
        erasure_id=request.erasure_id,
        ledger_id=request.ledger_id,
        subject_ref=row.ref,
        key_ids=tuple(sorted(keys)),
        purposes=request.purposes,
        ground=request.ground,
        reference=request.reference,
        name_commitment=request.name_commitment,
        next_state=next_state,
        requested_at=request.requested_at,
        requested_by=request.requested_by,
        erased_at=None,
        epoch=None,
        state="begun",
    )
    erasure_store.insert_erasure(connection, entry)
    name_store.set_subject_state(connection, request.ledger_id, row.ref, "erasing", request.requested_at)
    return entry


def _shred(connection: Connection, entry: ErasureEntry, erased_at: int) -> None:
    """Step 3, in the transaction that holds subject and erasure: from its commit on the keys are gone for good (I8)."""
    rows = store.stored_keys_of(connection, entry.ledger_id, entry.subject_ref)
    generations = {row.key_id: row.generation for row in rows}
    store.delete_keys(connection, entry.ledger_id, [key_id for key_id, _ in entry.key_ids])
    # Only now, with the rows held: a rotation could else make a new epoch and rewrap them in between, and the fences
    # would say that no copy is under it (docs/adr/0008).
    epoch = epoch_store.newest_epoch(connection)
    if epoch is None:
        raise NotInitialisedError("the vault has no epoch; run `audit-ledger init`")
    fences = [
        {
            "key_id": key_id,
            "ledger_id": entry.ledger_id,
            "subject_ref": entry.subject_ref,
            "purpose": purpose,
            "generation": generations.get(key_id, store.FIRST_GENERATION),
            "shredded_at": erased_at,
            "erasure_id": entry.erasure_id,
            "epoch": epoch,
        }
        for key_id, purpose in entry.key_ids
    ]
    store.insert_fences(connection, fences)
    name_store.set_subject_state(connection, entry.ledger_id, entry.subject_ref, entry.next_state, erased_at)
    erasure_store.mark_shredded(connection, entry.ledger_id, entry.erasure_id, erased_at, epoch)


def line_of(entry: ErasureEntry) -> dict[str, Any]:
    """All that it takes to carry the erasure out again, should an older vault come back. No name, and nothing of the
    request: that stands in the ledger."""
    return {
        "ledger_id": str(entry.ledger_id),
        "erasure_id": str(entry.erasure_id),
        "subject_ref": entry.subject_ref.hex(),
        "key_ids": [key_id.hex() for key_id, _ in entry.key_ids],
        "purposes": [purpose for _, purpose in entry.key_ids],
        "requested": None if entry.purposes is None else list(entry.purposes),
        "next_state": entry.next_state,
        "requested_at": entry.requested_at,
        "requested_by": str(entry.requested_by),
        "erased_at": entry.erased_at,
    }


def _locked_erasure(connection: Connection, ledger_id: UUID, erasure_id: UUID) -> ErasureEntry:
    """The erasure, with its subject held: the same order as :func:`begin`, and two that finish it take turns."""
    found = erasure_store.erasure(connection, ledger_id, erasure_id)
    if found is not None:
        name_store.lock_subject(connection, ledger_id, found.subject_ref)
        found = erasure_store.erasure(connection, ledger_id, erasure_id)
    if found is None:
        raise UnknownErasureError("the vault knows no erasure of this id")
    return found


def _erasure(engine: Engine, ledger_id: UUID, erasure_id: UUID) -> ErasureEntry:
    entry = find(engine, ledger_id, erasure_id)
    if entry is None:
        raise UnknownErasureError("the vault knows no erasure of this id")
    return entry


def find(engine: Engine, ledger_id: UUID, erasure_id: UUID) -> ErasureEntry | None:
    """The erasure of this id."""
    return database.read(engine, lambda connection: erasure_store.erasure(connection, ledger_id, erasure_id))


def open_ones(engine: Engine) -> Sequence[ErasureEntry]:
    """Erasures of any ledger that have begun and are not done, oldest first."""
    return database.read(engine, erasure_store.open_erasures)


def distinct(purposes: Collection[str] | None) -> tuple[str, ...] | None:
    """The purposes of a request in order. Raises :class:`ValueError` for none at all, which nobody can mean."""
    if purposes is None:
        return None
    if not purposes:
        raise ValueError("an erasure of no purposes; None asks for all but the actor's")
    return tuple(sorted(set(purposes)))
