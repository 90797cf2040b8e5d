"""The statement behind every query: from an ``EventFilter`` to SQL."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from ledger.domain.query import EventFilter, KeyCondition, Place
from ledger.storage.database import unindexed
from ledger.storage.tables import event_keys, events

REF_BYTES: Final = 16

_FEW_POSITIONS: Final = 10_000
"""So few that it does no harm to look at each: who follows a stream asks for no more at a time."""


def select_events(ledger_id: UUID, which: EventFilter, after: Place | None, limit: int) -> sa.Select[Any]:
    """The next events that match, in the filter's order, from the one behind ``after``."""
    ordered: list[sa.ColumnElement[int]] = (
        [events.c.position] if which.order_by == "recorded" else [occurred_at(), events.c.position]
    )
    if _is_narrow(which):
        ordered = [unindexed(column) for column in ordered]
    statement = (
        sa.select(events)
        .select_from(_source(ledger_id, which, after))
        .where(events.c.ledger_id == ledger_id, *_conditions(which))
        .order_by(*(column.asc() if which.order == "asc" else column.desc() for column in ordered))
        .limit(limit)
    )
    if after is None:
        return statement
    # A row comparison, so that events of one occurred-at are neither skipped nor given twice between pages.
    here: Any = sa.tuple_(*ordered) if len(ordered) > 1 else ordered[0]
    there: Any = sa.tuple_(after.occurred_at, after.position) if len(ordered) > 1 else after.position
    return statement.where(here > there if which.order == "asc" else here < there)


def _position(which: EventFilter) -> sa.ColumnElement[int]:
    """The position, as it bounds what a statement looks at: not by an index where another one leaves less."""
    filtered = which.keys or which.category or which.types or which.recorded_by
    by_occurrence = which.order_by == "occurred" and not filtered and not _is_short(which)
    return unindexed(events.c.position) if by_occurrence or _is_narrow(which) else events.c.position


def _is_narrow(which: EventFilter) -> bool:
    """Whether an index leaves so little that what is left is best put in order then, and not found in order."""
    filtered = which.stream_ref is not None or which.correlation_id is not None
    return filtered and not which.keys and not _is_short(which)


def _is_short(which: EventFilter) -> bool:
    return which.last_position - which.first_position < _FEW_POSITIONS


def occurred_at() -> sa.ColumnElement[int]:
    """An event without occurred-at occurred when it was recorded. Written as in the index."""
    return sa.func.coalesce(events.c.occurred_at, events.c.recorded_at)


def _conditions(which: EventFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [_position(which).between(which.first_position, which.last_position)]
    for column, value in (
        (events.c.stream_ref, which.stream_ref),
        (events.c.category, which.category),
        (events.c.correlation_id, which.correlation_id),
        (events.c.recorded_by, which.recorded_by),
    ):
        if value is not None:
            conditions.append(column == value)
    if which.share is not None:
        conditions.append(in_share(events.c.stream_ref, which.share))
    if which.after_version:
        conditions.append(events.c.stream_version > which.after_version)
    if which.types:
        conditions.append(events.c.event_type.in_(which.types))
    if which.occurred_from is not None:
        conditions.append(occurred_at() >= which.occurred_from)
    if which.occurred_to is not None:
        conditions.append(occurred_at() < which.occurred_to)
    return conditions


def in_share(stream_ref: sa.ColumnElement[bytes], share: tuple[int, int]) -> sa.ColumnElement[bool]:
    """Whether the last byte of a ref lies in a range. The last: the first ones of the ledger's own streams spell the
    time of their making, and would put them all into one share."""
    first, last = (sa.literal(bytes([byte]), sa.LargeBinary) for byte in share)
    return last_byte(stream_ref).between(first, last)


def last_byte(stream_ref: sa.ColumnElement[bytes]) -> sa.ColumnElement[bytes]:
    """The last of the 16 bytes of a ref."""
    return sa.func.substr(stream_ref, REF_BYTES, type_=sa.LargeBinary)


def _source(ledger_id: UUID, which: EventFilter, after: Place | None) -> sa.FromClause:
    """The events, by way of the keys that they must have parts under.

    A join and not ``position IN (…)``: with that, both engines went through the ledger event by event.
    """
    first, last = which.first_position, which.last_position
    if after is not None and which.order_by == "recorded":
        first, last = (max(first, after.position + 1), last) if which.order == "asc" else (first, after.position - 1)
    source: sa.FromClause = events
    for number, condition in enumerate(which.keys):
        positions = positions_under(ledger_id, condition, first, last)
        if which.order_by == "recorded" and which.order == "desc":
            # Else PostgreSQL sorts all that a key ever sealed, and goes through the ledger from its end beside it.
            positions = positions.order_by(event_keys.c.position.desc())
        matching = positions.subquery(f"matching_{number}")
        source = source.join(matching, matching.c.position == events.c.position)
    return source


def positions_under(ledger_id: UUID, condition: KeyCondition, first: int, last: int) -> sa.Select[Any]:
    """The positions, from the first to the last, of the events that a condition holds for."""
    return (
        sa.select(event_keys.c.position)
        .where(
            event_keys.c.ledger_id == ledger_id,
            event_keys.c.key_id.in_(condition.key_ids),
            event_keys.c.role.in_([int(role) for role in condition.roles]),
            event_keys.c.position.between(first, last),
        )
        .distinct()
    )
