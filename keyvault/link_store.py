"""The vault's SQL about link keys: one function a statement.

A link key stands in two rows: wrapped for its ``link_id`` in ``link_keys``, for the way from the names; and wrapped for
the subject's ref in ``subject_links``, for the way from there. What is the same for both takes a :class:`Side`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.types import NullType

from keyvault.database import insert_missing
from keyvault.store import as_uuid, chunks
from keyvault.tables import link_keys, subject_links, subject_names, subjects


class LinkRow(NamedTuple):
    """A link key, wrapped: for the way from the names (``link_id``), or from the ref (``subject_ref``). The other is
    None."""

    ledger_id: UUID
    link_id: bytes | None
    subject_ref: bytes | None
    wrapped: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two tables, the column that its rows are found by, and what makes a row one that must not be."""

    table: Table
    anchor: Column[bytes]
    dead: ColumnElement[bool]

    def row(self, ledger_id: UUID, anchor: Any, wrapped: Any, epoch: Any) -> LinkRow:
        """The row as far as it could be a link key's. SQLite takes a value of any type from a hand; what no row can
        have does not unwrap (I9)."""
        place = anchor if isinstance(anchor, bytes) else b""
        blob, number = wrapped if isinstance(wrapped, bytes) else b"", epoch if isinstance(epoch, int) else 0
        if self.table is link_keys:
            return LinkRow(ledger_id, place, None, blob, number)
        return LinkRow(ledger_id, None, place, blob, number)


# I8: names that were unlinked stay so, whatever a restored backup or a hand has brought back. A link key that no name
# needs is one of those.
# Two steps, names by link id and then each by itself: in one, SQLite goes through all names of the ledger.
_name: Final = subject_names.alias()
_SEALED: Final = exists().where(
    subject_names.c.ledger_id == _name.c.ledger_id,
    subject_names.c.name_hash == _name.c.name_hash,
    subject_names.c.sealed_ref.is_not(None),
)
_LEADS: Final = (
    select(_name.c.name_hash)
    .where(_name.c.ledger_id == link_keys.c.ledger_id, _name.c.link_id == link_keys.c.link_id, _SEALED)
    .exists()
)
_UNLINKED: Final = exists().where(
    subjects.c.ledger_id == subject_links.c.ledger_id,
    subjects.c.subject_ref == subject_links.c.subject_ref,
    subjects.c.unlinked_at.is_not(None),
)
FROM_NAMES: Final = Side(link_keys, link_keys.c.link_id, ~_LEADS)
FROM_REFS: Final = Side(subject_links, subject_links.c.subject_ref, _UNLINKED)
SIDES: Final = (FROM_NAMES, FROM_REFS)


def insert_links(connection: Connection, rows: Sequence[LinkRow]) -> None:
    """New link keys, of either side, each table in order of its key: never in the order of the other."""
    for side in SIDES:
        placed = [
            (place, row)
            for row in rows
            if (place := row.link_id if side is FROM_NAMES else row.subject_ref) is not None
        ]
        values = [
            {"ledger_id": row.ledger_id, side.anchor.name: place, "wrapped": row.wrapped, "epoch": row.epoch}
            for place, row in sorted(placed, key=lambda one: one[0])
        ]
        if values:
            connection.execute(insert(side.table), values)


def links_of_subjects(connection: Connection, ledger_id: UUID, refs: Collection[bytes]) -> Mapping[bytes, LinkRow]:
    """Ref → its link key. Absent: no name leads there."""
    found = {}
    for chunk in chunks(refs):
        statement = select(subject_links).where(
            subject_links.c.ledger_id == ledger_id,
            subject_links.c.subject_ref.in_(chunk),
            subject_links.c.wrapped.is_not(None),
        )
        for row in connection.execute(statement):
            found[row.subject_ref] = FROM_REFS.row(ledger_id, row.subject_ref, row.wrapped, row.epoch)
    return found


def insert_mark(connection: Connection, ledger_id: UUID, ref: bytes) -> None:
    """A subject to which no name leads, and none ever will."""
    insert_missing(
        connection,
        subject_links,
        [{"ledger_id": ledger_id, "subject_ref": ref, "wrapped": None, "epoch": None}],
    )


def is_cut(connection: Connection, ledger_id: UUID, ref: bytes) -> bool:
    """Whether the row of this ref says that no name leads there any more."""
    statement = select(subject_links.c.wrapped).where(
        subject_links.c.ledger_id == ledger_id, subject_links.c.subject_ref == ref
    )
    row = connection.execute(statement).one_or_none()
    return row is not None and row.wrapped is None


def cut_link(connection: Connection, ledger_id: UUID, ref: bytes, link_id: bytes | None) -> None:
    """Both rows of a link key lose what they hold; that of the ref stays as the mark that it was so."""
    connection.execute(
        delete(link_keys).where(link_keys.c.ledger_id == ledger_id, link_keys.c.link_id == (link_id or b""))
    )
    connection.execute(
        update(subject_links)
        .where(subject_links.c.ledger_id == ledger_id, subject_links.c.subject_ref == ref)
        .values(wrapped=None, epoch=None)
    )


def delete_link_key(connection: Connection, ledger_id: UUID, link_id: bytes) -> None:
    """The way from the names alone."""
    connection.execute(delete(link_keys).where(link_keys.c.ledger_id == ledger_id, link_keys.c.link_id == link_id))


def delete_mark(connection: Connection, ledger_id: UUID, ref: bytes) -> None:
    """The subject itself says by now since when no name leads there."""
    connection.execute(
        delete(subject_links).where(subject_links.c.ledger_id == ledger_id, subject_links.c.subject_ref == ref)
    )


# What a rotation needs, of either side


@dataclass(frozen=True, slots=True)
class FoundLink:
    """A link key's row as a rotation comes across it. ``row`` is None when no link key can have such a row; ``key``:
    its primary key, as the driver gives it; ``dead``: it must not be, and something has brought it back."""

    row: LinkRow | None
    epoch: int
    key: tuple[Any, Any]
    dead: bool

    @property
    def title(self) -> str:
        """What to call it."""
        anchor = self.key[1]
        return f"the link key of {anchor.hex()}" if isinstance(anchor, bytes) else "a link key without an id"


def links_under(
    connection: Connection, side: Side, old: Collection[int], after: tuple[Any, Any] | None, limit: int
) -> Sequence[FoundLink]:
    """The next rows under these epochs, in order of their keys, from the one after ``after`` (None: the first)."""
    table = side.table
    columns = (table.c.ledger_id, side.anchor, table.c.wrapped, table.c.epoch)
    # Without the conversions that a value of the wrong type or size would break.
    ledger_id, anchor, wrapped, epoch = (type_coerce(column, NullType()) for column in columns)
    statement = (
        select(
            ledger_id.label("ledger_id"),
            anchor.label("anchor"),
            wrapped.label("wrapped"),
            epoch.label("epoch"),
            side.dead.label("dead"),
        )
        .where(table.c.epoch.in_(sorted(old)))
        .order_by(table.c.ledger_id, side.anchor)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(tuple_(ledger_id, anchor) > tuple_(*(literal(one, NullType()) for one in after)))
    return [_found(side, row) for row in connection.execute(statement)]


def count_links(connection: Connection) -> Mapping[int, int]:
    """Epoch → how many rows of link keys are wrapped under it."""
    found: dict[int, int] = {}
    for side in SIDES:
        epoch = side.table.c.epoch
        statement = select(epoch, func.count()).where(epoch.is_not(None)).group_by(epoch)
        for number, count in connection.execute(statement):
            found[number] = found.get(number, 0) + count
    return found


def count_links_under(connection: Connection, epoch: int) -> int:
    """How many rows of link keys are wrapped under this epoch."""
    statements = (select(func.count()).select_from(side.table).where(side.table.c.epoch == epoch) for side in SIDES)
    return sum(connection.execute(statement).scalar_one() for statement in statements)


def rewrap_links(connection: Connection, side: Side, rows: Sequence[tuple[LinkRow, LinkRow]]) -> Sequence[LinkRow]:
    """Put the new wraps in place of the old ones, and give the old rows of which that may have been done. As for keys:
    a row that somebody holds is left out, one that is gone stays gone (I8)."""
    held = _hold_free(connection, side, [_place(old) for old, _ in rows])
    free = [(old, new) for old, new in rows if _place(old) in held]
    if free:
        connection.execute(
            _REWRAP[side.table.name],
            [
                {
                    "ledger": _place(old)[0],
                    "place": _place(old)[1],
                    "old": old.epoch,
                    "old_wrap": old.wrapped,
                    "new": new.epoch,
                    "wrap": new.wrapped,
                }
                for old, new in free
            ],
        )
    return [old for old, _ in free]


def delete_dead(connection: Connection, side: Side, rows: Sequence[LinkRow]) -> int:
    """I8: rows of names that were unlinked, and that something has brought back."""
    deleted = 0
    for among in _in_chunks(side, _hold_free(connection, side, [_place(row) for row in rows])):
        deleted += connection.execute(delete(side.table).where(among, side.dead)).rowcount
    return deleted


def _found(side: Side, row: Any) -> FoundLink:
    ledger_id, key = as_uuid(row.ledger_id), (row.ledger_id, row.anchor)
    if ledger_id is None or not isinstance(row.anchor, bytes):
        return FoundLink(None, row.epoch, key, False)
    return FoundLink(side.row(ledger_id, row.anchor, row.wrapped, row.epoch), row.epoch, key, bool(row.dead))


def _place(row: LinkRow) -> tuple[UUID, bytes]:
    return row.ledger_id, row.link_id or row.subject_ref or b""


def _rewrap(side: Side) -> Any:
    table = side.table
    return (
        update(table)
        .where(
            table.c.ledger_id == bindparam("ledger"),
            side.anchor == bindparam("place"),
            table.c.epoch == bindparam("old"),
            table.c.wrapped == bindparam("old_wrap"),
        )
        .values(wrapped=bindparam("wrap"), epoch=bindparam("new"))
    )


_REWRAP: Final = {side.table.name: _rewrap(side) for side in SIDES}


def _hold_free(connection: Connection, side: Side, places: Sequence[tuple[UUID, bytes]]) -> set[tuple[UUID, bytes]]:
    """Those of these rows that nobody else holds, held until the transaction ends."""
    found: set[tuple[UUID, bytes]] = set()
    for among in _in_chunks(side, places):
        statement = (
            select(side.table.c.ledger_id, side.anchor)
            .where(among)
            .order_by(side.table.c.ledger_id, side.anchor)
            .with_for_update(skip_locked=True)
        )
        found.update((row[0], row[1]) for row in connection.execute(statement))
    return found


def _in_chunks(side: Side, places: Collection[tuple[UUID, bytes]]) -> Iterator[ColumnElement[bool]]:
    """What selects these rows, in order, a ledger and so many of its rows at a time: by the primary key."""
    for ledger_id, some in itertools.groupby(sorted(set(places)), key=lambda place: place[0]):
        for chunk in chunks([anchor for _, anchor in some]):
            yield and_(side.table.c.ledger_id == ledger_id, side.anchor.in_(chunk))


def same_link(names: Any) -> ColumnElement[bool]:
    """Joins a table of names with the link keys that they need."""
    return and_(link_keys.c.ledger_id == names.c.ledger_id, link_keys.c.link_id == names.c.link_id)
