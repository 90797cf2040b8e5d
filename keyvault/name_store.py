"""The vault's SQL about subjects, streams and the name index: one function a statement."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select, update

from keyvault.database import insert_missing
from keyvault.store import chunks, same_subject
from keyvault.tables import streams, subject_names, subjects
from keyvault.values import StreamEntry, SubjectState


@dataclass(frozen=True, slots=True)
class SubjectRow:
    """A subject's ref and state."""

    ref: bytes
    state: SubjectState
    changed_at: int


# Subjects and their names


def subjects_by_name(
    connection: Connection, ledger_id: UUID, name_hashes: Collection[bytes]
) -> Mapping[bytes, SubjectRow]:
    """Name hash → subject, as far as they are in the index."""
    found = {}
    for chunk in chunks(name_hashes):
        statement = (
            select(subject_names.c.name_hash, subjects.c.subject_ref, subjects.c.state, subjects.c.changed_at)
            .join(subjects, same_subject(subject_names, subjects))
            .where(subject_names.c.ledger_id == ledger_id, subject_names.c.name_hash.in_(chunk))
        )
        for row in connection.execute(statement):
            found[row.name_hash] = SubjectRow(row.subject_ref, row.state, row.changed_at)
    return found


def refs_by_name(connection: Connection, ledger_id: UUID, name_hashes: Collection[bytes]) -> Mapping[bytes, bytes]:
    """Name hash → ref, also where the subject's own row is still to come."""
    found = {}
    for chunk in chunks(name_hashes):
        statement = select(subject_names.c.name_hash, subject_names.c.subject_ref).where(
            subject_names.c.ledger_id == ledger_id, subject_names.c.name_hash.in_(chunk)
        )
        found.update({row.name_hash: row.subject_ref for row in connection.execute(statement)})
    return found


def insert_names(connection: Connection, ledger_id: UUID, refs: Mapping[bytes, bytes]) -> None:
    """Name hash → ref, where the name is not in the index yet."""
    insert_missing(
        connection,
        subject_names,
        [{"ledger_id": ledger_id, "name_hash": key, "subject_ref": refs[key]} for key in sorted(refs)],
    )


def count_names(connection: Connection, ledger_id: UUID, refs: Collection[bytes]) -> Mapping[bytes, int]:
    """Ref → how many names lead to it."""
    found: dict[bytes, int] = {}
    for chunk in chunks(refs):
        statement = (
            select(subject_names.c.subject_ref, func.count().label("names"))
            .where(subject_names.c.ledger_id == ledger_id, subject_names.c.subject_ref.in_(chunk))
            .group_by(subject_names.c.subject_ref)
        )
        found.update({row.subject_ref: row.names for row in connection.execute(statement)})
    return found


def insert_subjects(connection: Connection, ledger_id: UUID, refs: Collection[bytes], now: int) -> None:
    """New subjects, active."""
    if refs:
        connection.execute(
            insert(subjects),
            [
                {"ledger_id": ledger_id, "subject_ref": ref, "state": "active", "changed_at": now}
                for ref in sorted(refs)
            ],
        )


def subject(connection: Connection, ledger_id: UUID, ref: bytes) -> SubjectRow | None:
    """The subject of this ref."""
    return _subject(connection, select(subjects).where(_is_subject(subjects, ledger_id, ref)))


def lock_subject(connection: Connection, ledger_id: UUID, ref: bytes) -> SubjectRow | None:
    """The subject of this ref, for this transaction alone: nobody mints for it, nobody else changes its state."""
    return _subject(connection, select(subjects).where(_is_subject(subjects, ledger_id, ref)).with_for_update())


def lock_subjects(connection: Connection, ledger_id: UUID, refs: Collection[bytes]) -> None:
    """Hold these subjects, in order of ref (so that two transactions never wait for each other), until the end.

    FOR NO KEY UPDATE is FOR SHARE that also keeps other minters of the same subject out, so that its purposes are
    counted right; the foreign keys that point here take FOR KEY SHARE and do not wait for it.
    """
    for chunk in chunks(refs):
        connection.execute(
            select(subjects.c.subject_ref)
            .where(subjects.c.ledger_id == ledger_id, subjects.c.subject_ref.in_(chunk))
            .order_by(subjects.c.subject_ref)
            .with_for_update(key_share=True)
        ).all()


def set_subject_state(connection: Connection, ledger_id: UUID, ref: bytes, state: SubjectState, now: int) -> None:
    """Any state → ``state``. The caller holds the row."""
    connection.execute(
        update(subjects).where(_is_subject(subjects, ledger_id, ref)).values(state=state, changed_at=now)
    )


def restricted_subjects(connection: Connection) -> Sequence[tuple[UUID, bytes]]:
    """Who is restricted, in any ledger."""
    statement = select(subjects.c.ledger_id, subjects.c.subject_ref).where(subjects.c.state == "restricted")
    return [(row.ledger_id, row.subject_ref) for row in connection.execute(statement)]


def move_names(connection: Connection, ledger_id: UUID, old_ref: bytes, new_ref: bytes) -> None:
    """Let every name of one subject lead to another."""
    connection.execute(
        update(subject_names).where(_is_subject(subject_names, ledger_id, old_ref)).values(subject_ref=new_ref)
    )


# Streams


def streams_by_name(
    connection: Connection, ledger_id: UUID, name_hashes: Collection[bytes]
) -> Mapping[bytes, tuple[StreamEntry, SubjectState | None]]:
    """Name hash → stream and its owner's state, as far as they are in the index."""
    found = {}
    for chunk in chunks(name_hashes):
        owner = and_(subjects.c.ledger_id == streams.c.ledger_id, subjects.c.subject_ref == streams.c.owner_ref)
        statement = (
            select(streams.c.name_hash, streams.c.stream_ref, streams.c.owner_ref, subjects.c.state)
            .join(subjects, owner, isouter=True)
            .where(streams.c.ledger_id == ledger_id, streams.c.name_hash.in_(chunk))
        )
        for row in connection.execute(statement):
            found[row.name_hash] = (StreamEntry(row.stream_ref, row.owner_ref), row.state)
    return found


def insert_streams(connection: Connection, ledger_id: UUID, entries: Mapping[bytes, StreamEntry]) -> None:
    """Name hash → stream, where the name is not in the index yet."""
    insert_missing(
        connection,
        streams,
        [
            {
                "ledger_id": ledger_id,
                "name_hash": key,
                "stream_ref": entries[key].ref,
                "owner_ref": entries[key].owner_ref,
            }
            for key in sorted(entries)
        ],
    )


def delete_stream(connection: Connection, ledger_id: UUID, name_hash: bytes, ref: bytes) -> None:
    """Forget a stream's index row, if it leads to this ref."""
    connection.execute(
        delete(streams).where(
            streams.c.ledger_id == ledger_id, streams.c.name_hash == name_hash, streams.c.stream_ref == ref
        )
    )


def delete_streams_of(connection: Connection, ledger_id: UUID, owner_ref: bytes) -> None:
    """Forget the index rows of every stream that this subject owns."""
    connection.execute(delete(streams).where(streams.c.ledger_id == ledger_id, streams.c.owner_ref == owner_ref))


def _is_subject(table: Any, ledger_id: UUID, ref: bytes) -> ColumnElement[bool]:
    return and_(table.c.ledger_id == ledger_id, table.c.subject_ref == ref)


def _subject(connection: Connection, statement: Any) -> SubjectRow | None:
    row = connection.execute(statement).one_or_none()
    return None if row is None else SubjectRow(row.subject_ref, row.state, row.changed_at)
