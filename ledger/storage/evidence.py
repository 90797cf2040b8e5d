"""The reads of ``verify`` behind ``ledger.ports.Evidence``. What can be compared where the rows lie is compared there,
so that nobody holds all streams or all keys in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from ledger.domain.events import Role
from ledger.domain.names import LEDGER_CATEGORY, STREAM_SUPERSEDED, SUBJECT_ERASED
from ledger.domain.tiles import MOST_LEVELS, TILE_WIDTH
from ledger.ports import FullTile, PublishedCheckpoint, StoredReceipt
from ledger.ports.evidence import CosignatureRow, ErasureRoots, KeyRow, LeafRow, RootRecord, ShreddedKey, StrangeVersion
from ledger.storage import raw_rows
from ledger.storage.database import one_of, one_of_hashes, read, reading, take_long
from ledger.storage.statements import in_chunks
from ledger.storage.tables import (
    checkpoints,
    closed_streams,
    cosignatures,
    erasure_roots,
    event_keys,
    events,
    heads,
    receipts,
    shredded_keys,
    tiles,
)

FIRST: Final = -1
"""What a first checkpoint was published behind."""

NOT_ENDED: Final = "closed_streams has a stream that does not end here"
BEHIND_THE_END: Final = "stands behind the event that has ended its stream"
NOT_SAID_TO_END: Final = "ends a stream of which closed_streams says otherwise"


class SqlEvidence:
    """Satisfies ``ledger.ports.Evidence``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def leaf_rows(self, ledger_id: UUID, first: int, last: int) -> Sequence[LeafRow] | None:
        """Rows in the bytes of their leaves."""
        return read(self._engine, lambda connection: raw_rows.leaf_rows(connection, ledger_id, first, last))

    def key_records(self, ledger_id: UUID, first: bytes | None, beyond: bytes | None) -> Iterator[Sequence[bytes]]:
        """Rows of ``event_keys`` in bytes."""
        with reading(self._engine) as connection:
            take_long(connection)
            yield from raw_rows.key_records(connection, ledger_id, first, beyond)

    def key_rows_in(self, ledger_id: UUID, first: int, last: int, limit: int) -> Sequence[KeyRow]:
        """Rows of ``event_keys`` by position."""
        columns = event_keys.c
        statement = (
            sa.select(columns.position, columns.part, columns.role, columns.key_id)
            .where(columns.ledger_id == ledger_id, columns.position.between(first, last))
            .order_by(columns.position, columns.part)
            .limit(limit)
        )
        return [(row.position, row.part, row.role, row.key_id) for row in self._long(statement)]

    def strange_versions(self, ledger_id: UUID, first: int, size: int, limit: int) -> Sequence[StrangeVersion]:
        """Events whose version does not follow that of the event before them in their stream."""
        columns = events.c
        own = (columns.ledger_id == ledger_id, columns.position >= first, columns.position < size)
        previous = sa.func.lag(columns.stream_version).over(partition_by=columns.stream_ref, order_by=columns.position)
        found = sa.select(columns.stream_ref, columns.position, columns.stream_version, previous.label("previous"))
        log = found.where(*own).cte("log")
        before = events.alias("before")
        newest_before = (
            sa.select(before.c.stream_version)
            .where(before.c.ledger_id == ledger_id, before.c.stream_ref == log.c.stream_ref, before.c.position < first)
            .order_by(before.c.stream_version.desc())
            .limit(1)
            .scalar_subquery()
        )
        known = [log.c.previous, newest_before] if first else [log.c.previous]
        expected = sa.func.coalesce(*known, 0) + 1
        statement = (
            sa.select(log.c.position, log.c.stream_version, expected.label("expected"))
            .where(log.c.stream_version != expected)
            .order_by(log.c.position)
            .limit(limit)
        )
        return [
            StrangeVersion(row.position, _number(row.stream_version), _number(row.expected))
            for row in self._long(statement)
        ]

    def shredded_rows(self, ledger_id: UUID, after: bytes | None, limit: int) -> Sequence[ShreddedKey]:
        """Rows of ``shredded_keys`` in order."""
        statement = _select_shredded(ledger_id).order_by(shredded_keys.c.key_id).limit(limit)
        if after is not None:
            statement = statement.where(shredded_keys.c.key_id > after)
        return [_shredded_from(row) for row in self._long(statement)]

    def shredded_among(self, ledger_id: UUID, key_ids: Collection[bytes]) -> Mapping[bytes, ShreddedKey]:
        """Those of these keys that are dead."""

        def look(connection: Connection) -> list[ShreddedKey]:
            statement = _select_shredded(ledger_id)
            return [
                _shredded_from(row)
                for chunk in in_chunks(key_ids)
                for row in connection.execute(statement.where(one_of_hashes(connection, shredded_keys.c.key_id, chunk)))
            ]

        return {row.key_id: row for row in read(self._engine, look)}

    def roots_of(self, ledger_id: UUID, erasure_ids: Collection[UUID]) -> Mapping[UUID, ErasureRoots]:
        """The kept roots of these erasures."""
        columns = erasure_roots.c

        def look(connection: Connection) -> dict[UUID, ErasureRoots]:
            statement = sa.select(erasure_roots).where(columns.ledger_id == ledger_id)
            return {
                row.erasure_id: ErasureRoots(row.root, row.root_before)
                for chunk in in_chunks(erasure_ids)
                for row in connection.execute(statement.where(one_of(connection, columns.erasure_id, chunk)))
            }

        return read(self._engine, look)

    def roots_without_event(self, ledger_id: UUID, limit: int) -> Sequence[UUID]:
        """Kept roots of no erasure."""
        columns = erasure_roots.c
        erased = sa.exists().where(
            events.c.ledger_id == columns.ledger_id,
            events.c.event_id == columns.erasure_id,
            events.c.category == LEDGER_CATEGORY,
            events.c.event_type == SUBJECT_ERASED,
        )
        statement = sa.select(columns.erasure_id).where(columns.ledger_id == ledger_id, ~erased).limit(limit)
        return [row.erasure_id for row in self._long(statement)]

    def root_records(self, ledger_id: UUID, after: UUID | None, limit: int) -> Sequence[RootRecord]:
        """Rows of ``erasure_roots``."""
        columns = erasure_roots.c
        event = sa.and_(events.c.ledger_id == columns.ledger_id, events.c.event_id == columns.erasure_id)
        statement = (
            sa.select(columns.erasure_id, columns.root, columns.root_before, events.c.position)
            .select_from(erasure_roots.join(events, event))
            .where(columns.ledger_id == ledger_id)
        )
        if after is not None:
            statement = statement.where(columns.erasure_id > after)
        return [
            RootRecord(
                row.erasure_id,
                _number(row.position),
                repr((row.erasure_id, row.position, row.root, row.root_before)).encode(),
            )
            for row in self._long(statement.order_by(columns.erasure_id).limit(limit))
        ]

    def broken_chains(self, ledger_id: UUID, limit: int) -> Sequence[tuple[int, int, int]]:
        """Checkpoints whose predecessor is another."""
        columns = checkpoints.c
        before = sa.func.lag(columns.size).over(partition_by=columns.origin, order_by=columns.size)
        own = sa.select(columns.size, columns.previous, sa.func.coalesce(before, FIRST).label("before"))
        chain = own.where(columns.ledger_id == ledger_id).cte("chain")
        statement = sa.select(chain).where(chain.c.previous != chain.c.before).order_by(chain.c.size).limit(limit)
        return [(_number(row.size), _number(row.previous), _number(row.before)) for row in self._long(statement)]

    def cosignature_rows(
        self, ledger_id: UUID, after: tuple[int, str, str] | None, limit: int
    ) -> Sequence[CosignatureRow]:
        """Cosignatures by size."""
        columns = cosignatures.c
        order = (columns.size, columns.origin, columns.name)
        checkpoint = sa.and_(
            checkpoints.c.ledger_id == columns.ledger_id,
            checkpoints.c.origin == columns.origin,
            checkpoints.c.size == columns.size,
        )
        statement = (
            sa.select(*order, columns.line, checkpoints.c.note)
            .select_from(cosignatures.outerjoin(checkpoints, checkpoint))
            .where(columns.ledger_id == ledger_id)
        )
        if after is not None:
            statement = statement.where(sa.tuple_(*order) > sa.tuple_(*(sa.literal(value) for value in after)))
        return [
            CosignatureRow(row.origin, _number(row.size), row.name, row.line, row.note)
            for row in self._long(statement.order_by(*order).limit(limit))
        ]

    def receipt_rows(self, ledger_id: UUID, after: UUID | None, limit: int) -> Sequence[tuple[UUID, StoredReceipt]]:
        """Receipts by the ids of their events."""
        columns = receipts.c
        statement = sa.select(receipts).where(columns.ledger_id == ledger_id)
        if after is not None:
            statement = statement.where(columns.erasure_id > after)
        return [
            (row.erasure_id, StoredReceipt(row.payload, row.signature, row.proof))
            for row in self._long(statement.order_by(columns.erasure_id).limit(limit))
        ]

    def full_tiles(self, ledger_id: UUID, level: int, first: int, count: int) -> Sequence[FullTile]:
        """Stored tiles."""
        columns = tiles.c
        numbers = columns.number.between(first, first + count - 1)
        statement = sa.select(tiles).where(columns.ledger_id == ledger_id, columns.level == level, numbers)
        rows = self._long(statement.order_by(columns.number))
        # SQLite takes anything from a hand; half a number has no place in the tree, which is told elsewhere.
        return [
            FullTile(row.level, row.number, row.root, row.hashes if isinstance(row.hashes, bytes) else b"")
            for row in rows
            if isinstance(row.number, int)
        ]

    def misplaced_tiles(self, ledger_id: UUID, limit: int) -> Sequence[tuple[int, int]]:
        """Stored tiles that have no place."""
        columns = tiles.c
        size = sa.select(heads.c.size).where(heads.c.ledger_id == ledger_id).scalar_subquery()
        statement = sa.select(columns.level, columns.number).where(columns.ledger_id == ledger_id, _has_no_place(size))
        rows = self._long(statement.order_by(columns.level, columns.number).limit(limit))
        return [(_number(row.level), _number(row.number)) for row in rows]

    def checkpoints_between(
        self, ledger_id: UUID, first: int, last: int, after: tuple[int, str] | None, limit: int
    ) -> Sequence[PublishedCheckpoint]:
        """Checkpoints by size."""
        columns = checkpoints.c
        order = (columns.size, columns.origin)
        statement = sa.select(checkpoints).where(
            columns.ledger_id == ledger_id, columns.size > first, columns.size <= last
        )
        if after is not None:
            # Both sides are compared as the database orders text, which need not be the order of code points.
            statement = statement.where(sa.tuple_(*order) > sa.tuple_(*(sa.literal(value) for value in after)))
        return [
            PublishedCheckpoint(row.ledger_id, row.origin, row.size, row.root, row.published_at, row.note)
            for row in self._long(statement.order_by(*order).limit(limit))
        ]

    def strange_ends(self, ledger_id: UUID, first: int, size: int, limit: int) -> Sequence[tuple[int, str]]:
        """Where ``closed_streams`` and the events contradict each other."""
        found: list[tuple[int, str]] = []
        for statement, what in (
            (_ends_without_event(ledger_id), NOT_ENDED),
            (_behind_the_end(ledger_id, first, size), BEHIND_THE_END),
            (_not_said_to_end(ledger_id, first, size), NOT_SAID_TO_END),
        ):
            found += [(_number(row.position), what) for row in self._long(statement.limit(limit))]
        return found

    def _long(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        """For statements that go through a whole table, which takes as long as it takes."""

        def look(connection: Connection) -> Sequence[sa.Row[Any]]:
            take_long(connection)
            return connection.execute(statement).all()

        return read(self._engine, look)


def _select_shredded(ledger_id: UUID) -> sa.Select[Any]:
    columns = shredded_keys.c
    key = sa.and_(
        event_keys.c.ledger_id == columns.ledger_id,
        event_keys.c.key_id == columns.key_id,
        event_keys.c.position == columns.position,
        event_keys.c.role == int(Role.SHREDDED),
    )
    event = sa.and_(
        events.c.ledger_id == columns.ledger_id,
        events.c.position == columns.position,
        events.c.event_id == columns.erasure_id,
        events.c.category == LEDGER_CATEGORY,
        events.c.event_type == SUBJECT_ERASED,
    )
    recorded = sa.and_(sa.exists().where(key), sa.exists().where(event)).label("recorded")
    return sa.select(columns.key_id, columns.position, columns.erasure_id, recorded).where(
        columns.ledger_id == ledger_id
    )


def _has_no_place(size: sa.ScalarSelect[int]) -> sa.ColumnElement[bool]:
    """Whether a tile is not full in the tree of so many leaves."""
    columns = tiles.c
    # A level above would need more leaves than a tree can have.
    levels = range(MOST_LEVELS - 1)
    return sa.or_(
        ~columns.level.between(levels[0], levels[-1]),
        columns.number < 0,
        sa.cast(columns.number, sa.BigInteger) != columns.number,
        *(sa.and_(columns.level == one, columns.number >= size // TILE_WIDTH ** (one + 1)) for one in levels),
    )


def _number(value: object) -> int:
    # SQLite takes anything from a hand.
    return value if isinstance(value, int) else -1


def _shredded_from(row: sa.Row[Any]) -> ShreddedKey:
    key_id = row.key_id if isinstance(row.key_id, bytes) else b""
    return ShreddedKey(key_id, _number(row.position), row.erasure_id, bool(row.recorded))


def _ends_without_event(ledger_id: UUID) -> sa.Select[Any]:
    columns = closed_streams.c
    here = sa.exists().where(
        events.c.ledger_id == columns.ledger_id,
        events.c.position == columns.position,
        events.c.stream_ref == columns.stream_ref,
    )
    return sa.select(columns.position).where(columns.ledger_id == ledger_id, ~here)


def _behind_the_end(ledger_id: UUID, first: int, size: int) -> sa.Select[Any]:
    same = sa.and_(events.c.ledger_id == closed_streams.c.ledger_id, events.c.stream_ref == closed_streams.c.stream_ref)
    return (
        sa.select(events.c.position)
        .select_from(closed_streams.join(events, same))
        .where(
            closed_streams.c.ledger_id == ledger_id,
            events.c.position > closed_streams.c.position,
            events.c.position.between(first, size - 1),
            events.c.event_type != STREAM_SUPERSEDED,
        )
    )


def _not_said_to_end(ledger_id: UUID, first: int, size: int) -> sa.Select[Any]:
    said = sa.exists().where(
        closed_streams.c.ledger_id == events.c.ledger_id,
        closed_streams.c.stream_ref == events.c.stream_ref,
        closed_streams.c.position <= events.c.position,
    )
    return sa.select(events.c.position).where(
        events.c.ledger_id == ledger_id,
        events.c.position.between(first, size - 1),
        events.c.event_type == STREAM_SUPERSEDED,
        ~said,
    )
