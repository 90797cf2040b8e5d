"""The statement behind every query: from an ``EventFilter`` to SQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from ledger.domain.query import EventFilter, KeyCondition, Place
from ledger.storage.database import unindexed
from ledger.storage.tables import event_keys, events

REF_BYTES: Final = 16

FEW_OCCURRED: Final = 2_000
"""So few that they are best put in order when they are found by their time of occurrence, for a page of any size."""

_FEW_POSITIONS: Final = 10_000
"""So few that it does no harm to look at each: who follows a stream asks for no more at a time."""


def select_events(
    ledger_id: UUID, which: EventFilter, after: Place | None, limit: int, *, few_occurred: bool = False
) -> sa.Select[Any]:
    """The next events that match, in the filter's order, from the one behind ``after``. ``few_occurred``: that there
    are few in the filter's range of times of occurrence, for a database that cannot know."""
    ordered: list[sa.ColumnElement[int]] = (
        [events.c.position] if which.order_by == "recorded" else [occurred_at(), events.c.position]
    )
    if few_occurred or _is_narrow(which):
        ordered = [unindexed(column) for column in ordered]
    statement = (
        sa.select(events)
        .select_from(_source(ledger_id, which, after))
        .where(events.c.ledger_id == ledger_id, *_conditions(which, few_occurred))
        .order_by(*(column.asc() if which.order == "asc" else column.desc() for column in ordered))
        .limit(limit)
    )
    if after is None:
        return statement
    # A row comparison, so that events of one occurred-at are neither skipped nor given twice between pages.
    here: Any = sa.tuple_(*ordered) if len(ordered) > 1 else ordered[0]
    there: Any = sa.tuple_(after.occurred_at, after.position) if len(ordered) > 1 else after.position
    return statement.where(here > there if which.order == "asc" else here < there)


def select_few_occurred(ledger_id: UUID, which: EventFilter) -> sa.Select[Any] | None:
    """Counts the events in a filter's range of times of occurrence, ``FEW_OCCURRED`` at most; None: it does not matter
    how many there are."""
    by_time = which.occurred_from is not None or which.occurred_to is not None
    if not by_time or which.order_by == "occurred" or which.keys or _is_narrow(which) or _is_short(which):
        return None
    # The index has a ledger's events in just this order, which a plan that looks at few of them needs to see.
    found = sa.select(sa.literal(1)).where(events.c.ledger_id == ledger_id, *_occurrence(which))
    return sa.select(sa.func.count()).select_from(found.order_by(occurred_at()).limit(FEW_OCCURRED).subquery())


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


def _conditions(which: EventFilter, few_occurred: bool) -> list[sa.ColumnElement[bool]]:
    # Where few are found by their times, no index of anything else is to be gone by.
    by: Callable[[Any], sa.ColumnElement[Any]] = unindexed if few_occurred else _as_it_is
    position = by(events.c.position) if few_occurred else _position(which)
    conditions: list[sa.ColumnElement[bool]] = [position.between(which.first_position, which.last_position)]
    for column, value in (
        (events.c.stream_ref, which.stream_ref),
        (events.c.category, which.category),
        (events.c.correlation_id, which.correlation_id),
        (events.c.recorded_by, which.recorded_by),
    ):
        if value is not None:
            conditions.append(by(column) == value)
    if which.share is not None:
        conditions.append(in_share(events.c.stream_ref, which.share))
    if which.after_version:
        conditions.append(events.c.stream_version > which.after_version)
    if which.types:
        conditions.append(by(events.c.event_type).in_(which.types))
    return [*conditions, *_occurrence(which)]


def _occurrence(which: EventFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if which.occurred_from is not None:
        conditions.append(occurred_at() >= which.occurred_from)
    if which.occurred_to is not None:
        conditions.append(occurred_at() < which.occurred_to)
    return conditions


def _as_it_is(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return column


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
