"""The vault's SQL about erasures: one function a statement."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, and_, func, insert, select, update

from keyvault.store import chunks, living_keys_of, same_subject
from keyvault.tables import erasures, subjects
from keyvault.values import ErasureEntry, Linkage


def insert_erasure(connection: Connection, entry: ErasureEntry) -> None:
    """A new erasure."""
    purposes = None if entry.purposes is None else json.dumps(entry.purposes, separators=(",", ":"))
    connection.execute(
        insert(erasures).values(
            erasure_id=entry.erasure_id,
            ledger_id=entry.ledger_id,
            subject_ref=entry.subject_ref,
            key_ids=encode_key_ids(entry.key_ids),
            purposes=purposes,
            ground=entry.ground,
            reference=entry.reference,
            name_commitment=entry.name_commitment,
            next_state=entry.next_state,
            requested_at=entry.requested_at,
            requested_by=entry.requested_by,
            erased_at=entry.erased_at,
            epoch=entry.epoch,
            state=entry.state,
        )
    )


def erasure(connection: Connection, ledger_id: UUID, erasure_id: UUID) -> ErasureEntry | None:
    """The erasure of this id."""
    statement = select(erasures).where(erasures.c.ledger_id == ledger_id, erasures.c.erasure_id == erasure_id)
    row = connection.execute(statement).one_or_none()
    return None if row is None else entry_of(row)


def erasures_by_id(connection: Connection, ledger_id: UUID, ids: Collection[UUID]) -> Sequence[ErasureEntry]:
    """The erasures among these."""
    found = []
    for chunk in chunks([one.hex for one in ids]):
        statement = select(erasures).where(
            erasures.c.ledger_id == ledger_id, erasures.c.erasure_id.in_([UUID(one) for one in chunk])
        )
        found += [entry_of(row) for row in connection.execute(statement)]
    return found


def open_erasures_of(connection: Connection, ledger_id: UUID, refs: Collection[bytes]) -> Mapping[bytes, ErasureEntry]:
    """Ref → the erasure of this subject that has begun and is not done; there is at most one."""
    found = {}
    for chunk in chunks(refs):
        statement = select(erasures).where(
            erasures.c.ledger_id == ledger_id, erasures.c.subject_ref.in_(chunk), erasures.c.state != "done"
        )
        found.update({row.subject_ref: entry_of(row) for row in connection.execute(statement)})
    return found


def erasure_of_everything(connection: Connection, ledger_id: UUID, ref: bytes) -> ErasureEntry | None:
    """The first erasure that was done and asked for all of the subject's data."""
    statement = (
        select(erasures)
        .where(
            erasures.c.ledger_id == ledger_id,
            erasures.c.subject_ref == ref,
            erasures.c.state == "done",
            erasures.c.purposes.is_(None),
        )
        .order_by(erasures.c.requested_at, erasures.c.erasure_id)
        .limit(1)
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else entry_of(row)


def erasures_of_subject(connection: Connection, ledger_id: UUID, ref: bytes) -> Sequence[ErasureEntry]:
    """Every erasure of this subject."""
    statement = select(erasures).where(erasures.c.ledger_id == ledger_id, erasures.c.subject_ref == ref)
    return [entry_of(row) for row in connection.execute(statement.order_by(erasures.c.erasure_id))]


def open_erasures(connection: Connection) -> Sequence[ErasureEntry]:
    """Every ledger's erasures that have begun and are not done, oldest first."""
    statement = (
        select(erasures).where(erasures.c.state != "done").order_by(erasures.c.requested_at, erasures.c.erasure_id)
    )
    return [entry_of(row) for row in connection.execute(statement)]


def shredded_erasures(connection: Connection) -> Sequence[ErasureEntry]:
    """Every ledger's erasures whose keys are gone, oldest first."""
    statement = (
        select(erasures).where(erasures.c.state != "begun").order_by(erasures.c.erased_at, erasures.c.erasure_id)
    )
    return [entry_of(row) for row in connection.execute(statement)]


def list_erasures(
    connection: Connection,
    ledger_id: UUID,
    *,
    reference: str | None,
    done: bool | None,
    after: UUID | None,
    limit: int,
) -> Sequence[ErasureEntry]:
    """Erasures in order of their ids."""
    statement = select(erasures).where(erasures.c.ledger_id == ledger_id)
    if reference is not None:
        statement = statement.where(erasures.c.reference == reference)
    if done is not None:
        statement = statement.where(erasures.c.state == "done" if done else erasures.c.state != "done")
    if after is not None:
        statement = statement.where(erasures.c.erasure_id > after)
    statement = statement.order_by(erasures.c.erasure_id).limit(limit)
    return [entry_of(row) for row in connection.execute(statement)]


def mark_shredded(connection: Connection, ledger_id: UUID, erasure_id: UUID, erased_at: int, epoch: int) -> None:
    """Begun → shredded."""
    connection.execute(
        update(erasures)
        .where(erasures.c.ledger_id == ledger_id, erasures.c.erasure_id == erasure_id, erasures.c.state == "begun")
        .values(state="shredded", erased_at=erased_at, epoch=epoch)
    )


def mark_done(connection: Connection, ledger_id: UUID, erasure_id: UUID) -> None:
    """Shredded → done."""
    connection.execute(
        update(erasures)
        .where(erasures.c.ledger_id == ledger_id, erasures.c.erasure_id == erasure_id, erasures.c.state == "shredded")
        .values(state="done")
    )


def change_next_state(connection: Connection, ledger_id: UUID, ref: bytes, old: str, new: str) -> None:
    """What the subject of an open erasure becomes when that is done: ``old`` → ``new``."""
    connection.execute(
        update(erasures)
        .where(
            erasures.c.ledger_id == ledger_id,
            erasures.c.subject_ref == ref,
            erasures.c.state == "begun",
            erasures.c.next_state == old,
        )
        .values(next_state=new)
    )


# An erasure of everything, of which the worker has yet to say that the name is forgotten: an index has just these.
_STILL_LINKED: Final = and_(erasures.c.unlinked_at.is_(None), erasures.c.purposes.is_(None))


def to_unlink(
    connection: Connection, ledger_id: UUID, erased_until: int, after: UUID | None, limit: int
) -> Sequence[ErasureEntry]:
    """Erasures of everything, carried out until then, in order of their ids: of subjects that are erased, of whom no
    key lives, and of which it is still to be stated that their names are forgotten."""
    statement = (
        select(erasures)
        .join(subjects, same_subject(subjects, erasures))
        .where(
            erasures.c.ledger_id == ledger_id,
            _STILL_LINKED,
            erasures.c.erased_at <= erased_until,
            erasures.c.state == "done",
            subjects.c.state == "erased",
            ~living_keys_of(erasures),
        )
    )
    if after is not None:
        statement = statement.where(erasures.c.erasure_id > after)
    return [entry_of(row) for row in connection.execute(statement.order_by(erasures.c.erasure_id).limit(limit))]


def linkages(connection: Connection, ledger_id: UUID, refs: Collection[bytes]) -> Mapping[bytes, Linkage]:
    """Ref → what decides whether its name can be forgotten."""
    found = {}
    whole = and_(same_subject(erasures, subjects), erasures.c.state == "done", erasures.c.purposes.is_(None))
    erased_at = select(func.min(erasures.c.erased_at)).where(whole).scalar_subquery()
    for chunk in chunks(refs):
        statement = select(
            subjects.c.subject_ref,
            subjects.c.state,
            erased_at.label("erased_at"),
            living_keys_of(subjects).label("keys_live"),
        ).where(subjects.c.ledger_id == ledger_id, subjects.c.subject_ref.in_(chunk))
        for row in connection.execute(statement):
            since = row.erased_at if row.state == "erased" else None
            found[row.subject_ref] = Linkage(since, bool(row.keys_live))
    return found


def mark_unlinked(connection: Connection, ledger_id: UUID, erasure_id: UUID, at: int) -> None:
    """It was stated that the name is forgotten."""
    connection.execute(
        update(erasures)
        .where(erasures.c.ledger_id == ledger_id, erasures.c.erasure_id == erasure_id)
        .where(erasures.c.unlinked_at.is_(None))
        .values(unlinked_at=at)
    )


def encode_key_ids(key_ids: Sequence[tuple[bytes, str]]) -> str:
    """(key_id, purpose) pairs as JSON: ``[["<hex>","<purpose>"],…]``."""
    return json.dumps([[key_id.hex(), purpose] for key_id, purpose in key_ids], separators=(",", ":"))


def decode_key_ids(text: str) -> tuple[tuple[bytes, str], ...]:
    """Undo :func:`encode_key_ids`."""
    return tuple((bytes.fromhex(key_id), purpose) for key_id, purpose in json.loads(text))


def entry_of(row: Any) -> ErasureEntry:
    """The erasure of a row."""
    return ErasureEntry(
        erasure_id=row.erasure_id,
        ledger_id=row.ledger_id,
        subject_ref=row.subject_ref,
        key_ids=decode_key_ids(row.key_ids),
        purposes=None if row.purposes is None else tuple(json.loads(row.purposes)),
        ground=row.ground,
        reference=row.reference,
        name_commitment=row.name_commitment,
        next_state=row.next_state,
        requested_at=row.requested_at,
        requested_by=row.requested_by,
        erased_at=row.erased_at,
        epoch=row.epoch,
        state=row.state,
    )
