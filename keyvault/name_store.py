"""The vault's SQL about subjects, streams and the name index: one function a statement. What the rows of the index hold
is sealed; ``linking.py`` opens it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Integer,
    LargeBinary,
    and_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal_column,
    null,
    select,
    union_all,
    update,
)

from keyvault.database import Question, among, insert_missing, joined
from keyvault.envelope import NAME_HASH_SIZE
from keyvault.link_store import FROM_NAMES, LinkRow, same_link
from keyvault.store import chunks
from keyvault.tables import link_keys, streams, subject_names, subjects
from keyvault.values import SubjectState


@dataclass(frozen=True, slots=True)
class SubjectRow:
    """A subject's ref and state."""

    ref: bytes
    state: SubjectState
    changed_at: int


class NameRow(NamedTuple):
    """A row of the name index, with the link key that opens it as far as that is there. ``clear_ref``: of a stream that
    nobody owns."""

    name_hash: bytes
    link_id: bytes | None
    sealed: bytes | None
    link: LinkRow | None
    clear_ref: bytes | None = None


# Subjects


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
    return _subject(connection, select(subjects).where(_is_subject(ledger_id, ref)))


def subjects_by_ref(connection: Connection, ledger_id: UUID, refs: Collection[bytes]) -> Mapping[bytes, SubjectRow]:
    """Ref → subject."""
    found = {}
    for chunk in chunks(refs):
        statement = select(subjects).where(subjects.c.ledger_id == ledger_id, subjects.c.subject_ref.in_(chunk))
        found.update({row.subject_ref: _subject_row(row) for row in connection.execute(statement)})
    return found


def lock_subject(connection: Connection, ledger_id: UUID, ref: bytes) -> SubjectRow | None:
    """The subject of this ref, for this transaction alone: nobody mints for it, nobody else changes its state."""
    return _subject(connection, select(subjects).where(_is_subject(ledger_id, ref)).with_for_update())


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
    connection.execute(update(subjects).where(_is_subject(ledger_id, ref)).values(state=state, changed_at=now))


def mark_unlinked(connection: Connection, ledger_id: UUID, ref: bytes, now: int) -> None:
    """Since when no name leads here: the first time stays."""
    unmarked = subjects.c.unlinked_at.is_(None)
    connection.execute(update(subjects).where(_is_subject(ledger_id, ref), unmarked).values(unlinked_at=now))


def unlinked_at(connection: Connection, ledger_id: UUID, ref: bytes) -> int | None:
    """Since when no name leads to this subject."""
    since: int | None = connection.execute(
        select(subjects.c.unlinked_at).where(_is_subject(ledger_id, ref))
    ).scalar_one_or_none()
    return since


# Names of subjects and of streams


def index_rows(
    connection: Connection, ledger_id: UUID, subject_hashes: Iterable[bytes], stream_hashes: Iterable[bytes]
) -> tuple[Mapping[bytes, NameRow], Mapping[bytes, NameRow]]:
    """Name hash → row, of subjects and of streams, as far as they are in the index; as of one moment."""
    found: tuple[dict[bytes, NameRow], dict[bytes, NameRow]] = ({}, {})
    of_subjects, of_streams = joined(subject_hashes, NAME_HASH_SIZE), joined(stream_hashes, NAME_HASH_SIZE)
    if of_subjects or of_streams:
        values = {"ledger": ledger_id, "subjects": of_subjects, "streams": of_streams}
        for kind, digest, link_id, sealed, clear_ref, wrapped, epoch in _INDEX_ROWS.ask(connection, values):
            link = None if wrapped is None else FROM_NAMES.row(ledger_id, link_id, wrapped, epoch)
            found[kind][digest] = NameRow(digest, link_id, sealed, link, clear_ref)
    return found


def _index_rows(dialect: str) -> CompoundSelect[Any]:
    subject_kind, stream_kind = (literal_column(str(number), Integer).label("kind") for number in (0, 1))
    link, name, stream = link_keys.c, subject_names.c, streams.c
    of_subjects = (
        select(
            subject_kind,
            name.name_hash,
            name.link_id,
            name.sealed_ref.label("sealed"),
            cast(null(), LargeBinary).label("clear_ref"),
            link.wrapped,
            link.epoch,
        )
        .join_from(subject_names, link_keys, same_link(subject_names), isouter=True)
        .where(name.ledger_id == bindparam("ledger"))
    )
    of_streams = (
        select(
            stream_kind,
            stream.name_hash,
            stream.link_id,
            stream.sealed_refs.label("sealed"),
            stream.stream_ref.label("clear_ref"),
            link.wrapped,
            link.epoch,
        )
        .join_from(streams, link_keys, same_link(streams), isouter=True)
        .where(stream.ledger_id == bindparam("ledger"))
    )
    hashes = (bindparam("subjects", type_=LargeBinary), bindparam("streams", type_=LargeBinary))
    return union_all(
        among(dialect, of_streams, stream.name_hash, hashes[1], NAME_HASH_SIZE),
        among(dialect, of_subjects, name.name_hash, hashes[0], NAME_HASH_SIZE),
    )


_INDEX_ROWS: Final = Question(_index_rows)


# Names of subjects


def names_by_hash(connection: Connection, ledger_id: UUID, name_hashes: Iterable[bytes]) -> Mapping[bytes, NameRow]:
    """Name hash → row, as far as they are in the index."""
    return index_rows(connection, ledger_id, name_hashes, ())[0]


def lock_name(connection: Connection, ledger_id: UUID, name_hash: bytes) -> None:
    """Hold a name's row until the end, in place of its subject's, to which nothing leads from it any more."""
    statement = select(subject_names.c.link_id).where(
        subject_names.c.ledger_id == ledger_id, subject_names.c.name_hash == name_hash
    )
    connection.execute(statement.with_for_update()).all()


def hashes_of_link(connection: Connection, ledger_id: UUID, link_id: bytes) -> Sequence[bytes]:
    """The hashes of all names of one subject, in order."""
    statement = select(subject_names.c.name_hash).where(_has_link(subject_names, ledger_id, link_id))
    return list(connection.execute(statement.order_by(subject_names.c.name_hash)).scalars())


def insert_names(connection: Connection, ledger_id: UUID, rows: Collection[NameRow]) -> None:
    """Rows, where the name is not in the index yet."""
    insert_missing(
        connection,
        subject_names,
        [
            {"ledger_id": ledger_id, "name_hash": row.name_hash, "link_id": row.link_id, "sealed_ref": row.sealed}
            for row in sorted(rows, key=lambda row: row.name_hash)
        ],
    )


def unlinked_subjects(connection: Connection) -> Sequence[tuple[UUID, bytes]]:
    """To whom no name leads any more, in any ledger."""
    statement = select(subjects.c.ledger_id, subjects.c.subject_ref).where(subjects.c.unlinked_at.is_not(None))
    return [(row.ledger_id, row.subject_ref) for row in connection.execute(statement)]


def rewrite_subject(connection: Connection, ledger_id: UUID, ref: bytes) -> None:
    """The same row, as another transaction's."""
    statement = update(subjects).where(_is_subject(ledger_id, ref))
    connection.execute(statement.values(changed_at=subjects.c.changed_at))


def restricted_subjects(connection: Connection) -> Sequence[tuple[UUID, bytes]]:
    """Who is restricted, in any ledger."""
    statement = select(subjects.c.ledger_id, subjects.c.subject_ref).where(subjects.c.state == "restricted")
    return [(row.ledger_id, row.subject_ref) for row in connection.execute(statement)]


def count_names(connection: Connection, ledger_id: UUID, link_ids: Collection[bytes]) -> Mapping[bytes, int]:
    """Link id → how many names have it."""
    found: dict[bytes, int] = {}
    for chunk in chunks(link_ids):
        statement = (
            select(subject_names.c.link_id, func.count().label("names"))
            .where(subject_names.c.ledger_id == ledger_id, subject_names.c.link_id.in_(chunk))
            .group_by(subject_names.c.link_id)
        )
        found.update({row.link_id: row.names for row in connection.execute(statement)})
    return found


def move_name(connection: Connection, ledger_id: UUID, old_link_id: bytes, new: NameRow) -> None:
    """Let a name of one subject lead to another."""
    connection.execute(
        update(subject_names)
        .where(_has_link(subject_names, ledger_id, old_link_id), subject_names.c.name_hash == new.name_hash)
        .values(link_id=new.link_id, sealed_ref=new.sealed)
    )


def cut_names(connection: Connection, ledger_id: UUID, link_id: bytes) -> None:
    """Names and own streams of a subject lead nowhere any more. Their rows stay, so that late writers are refused."""
    connection.execute(
        update(subject_names).where(_has_link(subject_names, ledger_id, link_id)).values(sealed_ref=None)
    )
    connection.execute(update(streams).where(_has_link(streams, ledger_id, link_id)).values(sealed_refs=None))


# Streams


def streams_by_hash(connection: Connection, ledger_id: UUID, name_hashes: Iterable[bytes]) -> Mapping[bytes, NameRow]:
    """Name hash → row, as far as they are in the index."""
    return index_rows(connection, ledger_id, (), name_hashes)[1]


def insert_streams(connection: Connection, ledger_id: UUID, rows: Collection[NameRow]) -> None:
    """Rows, where the name is not in the index yet."""
    insert_missing(
        connection,
        streams,
        [
            {
                "ledger_id": ledger_id,
                "name_hash": row.name_hash,
                "link_id": row.link_id,
                "sealed_refs": row.sealed,
                "stream_ref": row.clear_ref,
            }
            for row in sorted(rows, key=lambda row: row.name_hash)
        ],
    )


def delete_stream(connection: Connection, ledger_id: UUID, row: NameRow) -> None:
    """Forget a stream's index row, if it is still this one."""
    same = and_(
        streams.c.sealed_refs.is_not_distinct_from(row.sealed), streams.c.stream_ref.is_not_distinct_from(row.clear_ref)
    )
    connection.execute(
        delete(streams).where(streams.c.ledger_id == ledger_id, streams.c.name_hash == row.name_hash, same)
    )


def delete_streams_of(connection: Connection, ledger_id: UUID, link_id: bytes) -> None:
    """Forget the index rows of every stream whose owner has this link."""
    connection.execute(delete(streams).where(_has_link(streams, ledger_id, link_id)))


def _has_link(table: Any, ledger_id: UUID, link_id: bytes) -> ColumnElement[bool]:
    return and_(table.c.ledger_id == ledger_id, table.c.link_id == link_id)


def _is_subject(ledger_id: UUID, ref: bytes) -> ColumnElement[bool]:
    return and_(subjects.c.ledger_id == ledger_id, subjects.c.subject_ref == ref)


def _subject(connection: Connection, statement: Any) -> SubjectRow | None:
    row = connection.execute(statement).one_or_none()
    return None if row is None else _subject_row(row)


def _subject_row(row: Any) -> SubjectRow:
    return SubjectRow(row.subject_ref, row.state, row.changed_at)
