"""Reads of many streams at once: each stream costs a few steps down an index, however long stream and ledger are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from ledger.domain.events import RecordedEvent, Role
from ledger.domain.query import KeyCondition
from ledger.ports import Between, Occurrence, StreamPlace, StreamRange
from ledger.storage import rows
from ledger.storage.database import one_of, read, unindexed
from ledger.storage.selection import occurred_at, positions_under
from ledger.storage.statements import in_chunks
from ledger.storage.tables import event_keys, events


class SqlStreams:
    """Satisfies ``ledger.ports.Streams``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def stream_events(self, ledger_id: UUID, ranges: Sequence[StreamRange], position: int) -> Sequence[RecordedEvent]:
        """The events of these ranges at or before ``position``, in order of stream ref and version."""

        def select(connection: Connection) -> list[RecordedEvent]:
            return [
                rows.event_from(row)
                for chunk in in_chunks(ranges)
                for row in connection.execute(_select_ranges(connection, ledger_id, chunk, position))
            ]

        return read(self._engine, select)

    def occurrences(
        self, ledger_id: UUID, stream_refs: Collection[bytes], position: int, occurred_by: int
    ) -> Sequence[Occurrence]:
        """Which events of these streams had occurred by then, in the order in which they occurred."""
        occurred = occurred_at().label("occurred_at")
        statement = sa.select(events.c.stream_ref, occurred, events.c.position).where(
            events.c.ledger_id == ledger_id,
            # Else SQLite goes through all that had occurred by then in the ledger.
            unindexed(events.c.position) <= position,
            unindexed(occurred_at()) <= occurred_by,
        )

        def select(connection: Connection) -> list[Occurrence]:
            return [
                Occurrence(row.stream_ref, row.occurred_at, row.position)
                for chunk in in_chunks(stream_refs)
                for row in connection.execute(statement.where(one_of(connection, events.c.stream_ref, chunk)))
            ]

        return sorted(read(self._engine, select), key=lambda event: (event.occurred_at, event.position))

    def streams_of_category(
        self, ledger_id: UUID, category: str, position: int, after: bytes | None, limit: int
    ) -> Sequence[bytes]:
        """Streams that had begun at ``position``."""
        columns = events.c
        statement = sa.select(columns.stream_ref).where(
            columns.ledger_id == ledger_id,
            columns.category == category,
            # As it stands in the index ``events_first_of_stream``: with a parameter here neither engine would take it.
            columns.stream_version == sa.literal_column("1"),
            columns.position <= position,
        )
        return self._page_of_refs(statement, columns.stream_ref, after, limit)

    def streams_of_subject(
        self, ledger_id: UUID, key_ids: Collection[bytes], position: int, after: bytes | None, limit: int
    ) -> Sequence[bytes]:
        """Streams with an event whose main subject's part is under one of these keys."""
        condition = KeyCondition((Role.SUBJECT,), tuple(key_ids))
        # A set of its own: else PostgreSQL goes through the whole ledger, and looks for the key at each event.
        matching = positions_under(ledger_id, condition, 0, position).subquery("matching")
        statement = (
            sa.select(events.c.stream_ref)
            .join(matching, matching.c.position == events.c.position)
            .where(events.c.ledger_id == ledger_id)
            .distinct()
        )
        return self._page_of_refs(statement, events.c.stream_ref, after, limit)

    def changed_streams(
        self, ledger_id: UUID, category: str, between: Between, after: bytes | None, limit: int
    ) -> Sequence[bytes]:
        """Streams of a category with an event between two moments."""
        columns = events.c
        later = columns.position > between.first
        statement = sa.select(columns.stream_ref).where(
            columns.ledger_id == ledger_id, columns.category == category, columns.position <= between.last
        )
        if between.first_occurred is not None and between.last_occurred is not None:
            occurred = occurred_at()
            later = sa.or_(later, occurred > between.first_occurred)
            statement = statement.where(occurred <= between.last_occurred)
        return self._page_of_refs(statement.where(later).distinct(), columns.stream_ref, after, limit)

    def streams_under_keys(
        self, ledger_id: UUID, key_ids: Collection[bytes], after: int, limit: int
    ) -> Sequence[StreamPlace]:
        """The next events with a part under one of these keys."""
        columns = event_keys.c
        statement = (
            sa.select(events.c.stream_ref, events.c.stream_version, events.c.position)
            .select_from(_events_of_keys())
            .where(columns.ledger_id == ledger_id, columns.key_id.in_(key_ids), columns.position > after)
            .distinct()
            .order_by(events.c.position)
            .limit(limit)
        )
        return self._places(statement)

    def due_for_snapshot(self, ledger_id: UUID, first: int, last: int, every: int) -> Sequence[StreamPlace]:
        """The events whose stream version is a multiple of ``every``."""
        columns = events.c
        statement = (
            sa.select(columns.stream_ref, columns.stream_version, columns.position)
            .where(
                columns.ledger_id == ledger_id,
                columns.position.between(first, last),
                columns.stream_version % every == 0,
            )
            .order_by(columns.position)
        )
        return self._places(statement)

    def _places(self, statement: sa.Select[Any]) -> list[StreamPlace]:
        found = read(self._engine, lambda connection: connection.execute(statement).all())
        return [StreamPlace(row.stream_ref, row.stream_version, row.position) for row in found]

    def _page_of_refs(
        self, statement: sa.Select[Any], column: sa.Column[bytes], after: bytes | None, limit: int
    ) -> list[bytes]:
        if after is not None:
            statement = statement.where(column > after)
        page = statement.order_by(column).limit(limit)
        return list(read(self._engine, lambda connection: connection.execute(page).scalars().all()))


def _events_of_keys() -> sa.Join:
    same_event = sa.and_(events.c.ledger_id == event_keys.c.ledger_id, events.c.position == event_keys.c.position)
    return event_keys.join(events, same_event)


def _select_ranges(
    connection: Connection, ledger_id: UUID, ranges: Sequence[StreamRange], position: int
) -> sa.Select[Any]:
    """Versions have no gaps (I3), so a range of them is a walk along the index that ends by itself."""
    columns = events.c
    statement = sa.select(events).where(columns.ledger_id == ledger_id, columns.position <= position)
    if len(ranges) == 1:
        # Much the most frequent case.
        (only,) = ranges
        versions = columns.stream_version.between(only.first_version, only.last_version)
        return statement.where(columns.stream_ref == only.stream_ref, versions).order_by(columns.stream_version)
    # As text, in which a value is a number or hexadecimal and nothing else: SQLAlchemy takes longer to put thousands of
    # parameters together than the database to find the events.
    ref = "'\\x{}'::bytea" if connection.dialect.name == "postgresql" else "X'{}'"
    values = ", ".join(
        f"({ref.format(one.stream_ref.hex())}, {one.first_version:d}, {one.last_version:d})" for one in ranges
    )
    wanted: list[sa.ColumnClause[Any]] = [sa.literal_column(f"wanted.column{number}") for number in (1, 2, 3)]
    wanted_ref, first, last = wanted
    return (
        statement.select_from(sa.text(f"(VALUES {values}) AS wanted"))
        .where(columns.stream_ref == wanted_ref, columns.stream_version.between(first, last))
        .order_by(columns.stream_ref, columns.stream_version)
    )
