"""Statements that look things up by many ids at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from typing import Any, Final, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from ledger.storage.database import one_of
from ledger.storage.tables import Id, abandoned_streams, closed_streams, events, shredded_keys

T = TypeVar("T")

IDS_AT_ONCE: Final = 1000
"""Ids in one IN list: below every engine's limit on parameters, whatever the size of a batch."""

_KEY_ID_BYTES: Final = 32

_SELECT_EVENT: Final = sa.select(events).where(
    events.c.ledger_id == sa.bindparam("ledger", type_=Id), events.c.event_id == sa.bindparam("event", type_=Id)
)
"""Much the most frequent case, made once: to make it takes as long as to run it."""


def in_chunks(values: Collection[T]) -> Iterator[list[T]]:
    """Distinct values, in lists that fit one statement."""
    distinct = list(dict.fromkeys(values))
    for start in range(0, len(distinct), IDS_AT_ONCE):
        yield distinct[start : start + IDS_AT_ONCE]


def select_ids(connection: Connection, ledger_id: UUID, event_ids: Collection[UUID]) -> frozenset[UUID]:
    """Which of these event ids are recorded."""
    return frozenset(
        event_id
        for chunk in in_chunks(event_ids)
        for event_id in connection.execute(
            sa.select(events.c.event_id).where(
                events.c.ledger_id == ledger_id, one_of(connection, events.c.event_id, chunk)
            )
        ).scalars()
    )


def select_events_by_id(connection: Connection, ledger_id: UUID, event_ids: Collection[UUID]) -> list[sa.Row[Any]]:
    """The rows of the events of these ids."""
    found: list[sa.Row[Any]] = []
    for chunk in in_chunks(event_ids):
        if len(chunk) == 1:
            found += connection.execute(_SELECT_EVENT, {"ledger": ledger_id, "event": chunk[0]})
            continue
        wanted = sa.select(events).where(events.c.ledger_id == ledger_id, one_of(connection, events.c.event_id, chunk))
        found += connection.execute(wanted)
    return found


def select_versions(connection: Connection, ledger_id: UUID, stream_refs: Collection[bytes]) -> dict[bytes, int]:
    """The newest version of each of these streams that has events.

    One step down the index for each stream: a ``GROUP BY`` would read all the versions that a stream ever had.
    """
    versions: dict[bytes, int] = {}
    for chunk in in_chunks(stream_refs):
        if len(chunk) == 1:
            # Much the most frequent case, and a statement that SQLAlchemy need not compile anew each time.
            version = connection.execute(_select_newest(ledger_id, sa.literal(chunk[0]))).scalar_one_or_none()
            rows = [(chunk[0], version)]
        else:
            columns = sa.column("stream_ref", sa.LargeBinary)
            wanted = sa.values(columns, name="wanted").data([(ref,) for ref in chunk]).cte()
            newest = _select_newest(ledger_id, wanted.c.stream_ref).scalar_subquery()
            rows = [tuple(row) for row in connection.execute(sa.select(wanted.c.stream_ref, newest))]
        versions.update((ref, version) for ref, version in rows if version is not None)
    return versions


def _select_newest(ledger_id: UUID, stream_ref: sa.ColumnElement[bytes]) -> sa.Select[Any]:
    # Not max(): PostgreSQL, which takes a stream for short as long as it has no statistics, would read all of it.
    columns = events.c
    return (
        sa.select(columns.stream_version)
        .where(columns.ledger_id == ledger_id, columns.stream_ref == stream_ref)
        .order_by(columns.stream_version.desc())
        .limit(1)
    )


def select_dead(connection: Connection, ledger_id: UUID, key_ids: Collection[bytes]) -> frozenset[bytes]:
    """Which of these keys are shredded."""
    dialect = connection.dialect.name
    found: list[bytes] = []
    for chunk in in_chunks(key_ids):
        # What has another length is no key; among the others it would move all that follow.
        keys = [key_id for key_id in chunk if len(key_id) == _KEY_ID_BYTES]
        values = {"ledger": ledger_id, "keys": b"".join(keys) if dialect == "postgresql" else keys}
        found += connection.execute(_select_dead(dialect), values).scalars()
    return frozenset(found)


@cache
def _select_dead(dialect: str) -> sa.Select[Any]:
    """Made once: every page of events asks. To PostgreSQL the keys go as one value, since its driver takes longer over
    each element of an array than the database over a key; ``OFFSET 0`` keeps it to looking each up by the index, where
    it would else expect so many that it reads the whole table."""
    columns = shredded_keys.c
    dead = sa.select(columns.key_id).where(columns.ledger_id == sa.bindparam("ledger", type_=Id))
    if dialect != "postgresql":
        return dead.where(columns.key_id.in_(sa.bindparam("keys", expanding=True)))
    keys = sa.bindparam("keys", type_=sa.LargeBinary)
    zero, one, size = (sa.literal_column(str(number), sa.Integer) for number in (0, 1, _KEY_ID_BYTES))
    # A subquery, whose value the planner does not look at: so it takes one plan for any number of keys.
    last = sa.select(sa.func.length(keys, type_=sa.Integer).op("/", return_type=sa.Integer())(size)).scalar_subquery()
    places = sa.func.generate_series(one, last).table_valued(sa.column("n", sa.Integer)).render_derived()
    key_id = sa.func.substr(keys, (places.c.n - one) * size + one, size)
    found = dead.where(columns.key_id == key_id).offset(zero).lateral()
    return sa.select(found.c.key_id).select_from(places.join(found, sa.true()))


def select_closed(connection: Connection, ledger_id: UUID, stream_refs: Collection[bytes]) -> frozenset[bytes]:
    """Which of these streams have ended."""
    columns = closed_streams.c
    return frozenset(
        stream_ref
        for chunk in in_chunks(stream_refs)
        for stream_ref in connection.execute(
            sa.select(columns.stream_ref).where(
                columns.ledger_id == ledger_id, one_of(connection, columns.stream_ref, chunk)
            )
        ).scalars()
    )


def select_abandoned(connection: Connection, ledger_id: UUID, stream_refs: Collection[bytes]) -> frozenset[bytes]:
    """Which of these refs were given up before their stream had an event."""
    columns = abandoned_streams.c
    return frozenset(
        stream_ref
        for chunk in in_chunks(stream_refs)
        for stream_ref in connection.execute(
            sa.select(columns.stream_ref).where(
                columns.ledger_id == ledger_id, one_of(connection, columns.stream_ref, chunk)
            )
        ).scalars()
    )
