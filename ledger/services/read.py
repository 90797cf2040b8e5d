"""Read events: queries, pages, exports, single events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from ledger.domain.cursors import invalid_cursor, other_question
from ledger.domain.events import PERSONAL_ROLES, OpenedEvent, RecordedEvent, Role
from ledger.domain.ids import parse_uuid
from ledger.domain.names import LEDGER_CATEGORY, split_stream
from ledger.domain.query import (
    DEFAULT_LIMIT,
    EventFilter,
    EventQuery,
    KeyCondition,
    Moment,
    NameOrRef,
    PinnedQuery,
    Place,
    decode_cursor,
    encode_cursor,
    narrow,
    same_question,
    window_of,
)
from ledger.errors import NotFoundError
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.current import each_current, each_recorded
from ledger.services.moments import last_position_at, resolve_as_of

EXPORT_PAGE: Final = 2000
"""Events of an export that are in memory at a time, at most; keys are looked at anew for each such page (I7)."""

EXPORT_BYTES: Final = 8 * 2**20
"""Sealed bytes of an export that a page aims at, so that large events make small pages."""

PAGE_BYTES: Final = 32 * 2**20
"""Sealed bytes of a page of a query: one that reaches them ends there, with fewer events than its limit."""

_FIRST_PAGE: Final = DEFAULT_LIMIT + 1
"""A page of the default size, and the one more that tells whether there are others, in one statement."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a query. ``next`` is the cursor of the next one; None at the end."""

    as_of: Moment
    events: Sequence[OpenedEvent]
    next: str | None


@dataclass(frozen=True, slots=True)
class EachPage:
    """A page that opens each event when it is its turn, for who takes all at once and keeps none."""

    as_of: Moment
    events: Iterator[OpenedEvent]
    next: str | None


def query_events(
    deps: Dependencies,
    ledger_id: UUID,
    query: EventQuery | None,
    *,
    cursor: str | None,
    limit: int,
    as_recorded: bool = False,
    disclosing: bool = False,
) -> Page:
    """One page of the events that match, each in the newest shape of its type, or ``as_recorded``, or as recorded and
    ``disclosing`` (see ``open_events``).

    With a cursor the query is what the cursor pins; a ``query`` beside it must be the same question.
    Raises ``InvalidError``.
    """
    page = query_each(
        deps, ledger_id, query, cursor=cursor, limit=limit, as_recorded=as_recorded, disclosing=disclosing
    )
    return Page(page.as_of, list(page.events), page.next)


def query_each(
    deps: Dependencies,
    ledger_id: UUID,
    query: EventQuery | None,
    *,
    cursor: str | None,
    limit: int,
    as_recorded: bool = False,
    disclosing: bool = False,
) -> EachPage:
    """The same page; its keys were looked at when this returns (I7)."""
    place: Place | None = None
    if cursor is None:
        pinned, moment = _pin(deps, ledger_id, query or EventQuery())
    else:
        pinned, place = decode_cursor(ledger_id, cursor)
        if query is not None and not _is_same(deps, ledger_id, query, pinned):
            raise other_question()
        moment = _moment(deps, ledger_id, pinned)
    which = find_filter(deps, ledger_id, pinned)
    rows, more = _page_of(deps, ledger_id, which, place, limit) if which is not None else ([], False)
    events = _opened(deps, ledger_id, rows, as_recorded=as_recorded, disclosing=disclosing)
    following = encode_cursor(ledger_id, pinned, place_of(rows[-1], which)) if more and which else None
    return EachPage(moment, events, following)


def _page_of(
    deps: Dependencies, ledger_id: UUID, which: EventFilter, place: Place | None, limit: int
) -> tuple[Sequence[RecordedEvent], bool]:
    """The next events, at most ``limit`` and about ``PAGE_BYTES``, and whether there are more."""
    rows: list[RecordedEvent] = []
    size = 0
    for chunk in _chunks(deps, ledger_id, which, place, limit + 1):
        rows += chunk
        size += _sealed_bytes(chunk)
        if len(rows) > limit or size >= PAGE_BYTES:
            # The one too many is how we know that there are more. (A page that is full of bytes may be the last after
            # all; then the next one is empty.)
            return rows[:limit], True
    return rows, False


def export_events(
    deps: Dependencies, ledger_id: UUID, query: EventQuery, *, as_recorded: bool = False
) -> Iterator[Sequence[OpenedEvent]]:
    """All events that match, as of one moment, in pages. Memory stays constant, and every page looks at the keys anew:
    an erasure that is acknowledged meanwhile holds for all pages that begin after it (I7)."""
    return map(list, export_each(deps, ledger_id, query, as_recorded=as_recorded))


def export_each(
    deps: Dependencies, ledger_id: UUID, query: EventQuery, *, as_recorded: bool = False
) -> Iterator[Iterator[OpenedEvent]]:
    """The same in pages that open each event when it is its turn, for who takes all of a page at once and keeps none:
    that is a third faster."""
    return _export(deps, ledger_id, pin_query(deps, ledger_id, query), as_recorded=as_recorded, disclosing=False)


def export_pinned(
    deps: Dependencies, ledger_id: UUID, pinned: PinnedQuery, *, as_recorded: bool = False, disclosing: bool = False
) -> Iterator[Sequence[OpenedEvent]]:
    """``export_events`` for a query whose moment was resolved before."""
    return map(list, _export(deps, ledger_id, pinned, as_recorded=as_recorded, disclosing=disclosing))


def _export(
    deps: Dependencies, ledger_id: UUID, pinned: PinnedQuery, *, as_recorded: bool, disclosing: bool
) -> Iterator[Iterator[OpenedEvent]]:
    which = find_filter(deps, ledger_id, pinned)
    if which is None:
        return iter(())
    chunks = _chunks(deps, ledger_id, which, None, None)
    return (_opened(deps, ledger_id, rows, as_recorded=as_recorded, disclosing=disclosing) for rows in chunks)


def _opened(
    deps: Dependencies, ledger_id: UUID, rows: Sequence[RecordedEvent], *, as_recorded: bool, disclosing: bool
) -> Iterator[OpenedEvent]:
    if as_recorded or disclosing:
        return each_recorded(deps, ledger_id, rows, disclosing=disclosing)
    return each_current(deps, ledger_id, rows)


def _chunks(
    deps: Dependencies, ledger_id: UUID, which: EventFilter, place: Place | None, most: int | None
) -> Iterator[Sequence[RecordedEvent]]:
    """The events behind ``place``, at most so many, in chunks that are the smaller the larger the events are."""
    limit = _FIRST_PAGE
    while most is None or most > 0:
        limit = limit if most is None else min(limit, most)
        rows = deps.store.select_events(ledger_id, which, place, limit)
        if rows:
            yield rows
        if len(rows) < limit:
            return
        place = place_of(rows[-1], which)
        most = None if most is None else most - len(rows)
        limit = max(1, min(EXPORT_PAGE, EXPORT_BYTES * len(rows) // max(_sealed_bytes(rows), 1)))


def _sealed_bytes(rows: Sequence[RecordedEvent]) -> int:
    return sum(len(part.sealed) for row in rows for part in row.parts)


def get_event(
    deps: Dependencies, ledger_id: UUID, event_id: UUID, *, as_recorded: bool = False, disclosing: bool = False
) -> OpenedEvent:
    """One event by its id. Raises ``NotFoundError``."""
    row = deps.store.find_events(ledger_id, [event_id]).get(event_id)
    if row is None:
        raise NotFoundError("there is no event of this id in this ledger")
    return next(_opened(deps, ledger_id, [row], as_recorded=as_recorded, disclosing=disclosing))


def find_stream(deps: Dependencies, ledger_id: UUID, stream: NameOrRef) -> tuple[bytes, int]:
    """The ref and version of a stream. Raises ``NotFoundError`` when it has no event."""
    ref = stream_ref_of(deps, ledger_id, stream)
    version = deps.store.versions(ledger_id, [ref]).get(ref, 0) if ref is not None else 0
    if ref is None or version == 0:
        raise NotFoundError("there is no such stream in this ledger")
    return ref, version


def place_of(event: RecordedEvent, which: EventFilter) -> Place:
    """The place of an event in the order of a filter."""
    if which.order_by == "recorded":
        return Place(event.position)
    occurred_at = event.envelope.occurred_at
    return Place(event.position, event.recorded_at if occurred_at is None else occurred_at)


def pin_query(deps: Dependencies, ledger_id: UUID, query: EventQuery) -> PinnedQuery:
    """Turn names into refs and ``as_of`` into a position."""
    return _pin(deps, ledger_id, query)[0]


def _pin(deps: Dependencies, ledger_id: UUID, query: EventQuery) -> tuple[PinnedQuery, Moment]:
    moment = resolve_as_of(deps, ledger_id, query.as_of)
    pinned = _pin_names(deps, ledger_id, query)
    return replace(pinned, as_of=moment.position), moment


def _pin_names(deps: Dependencies, ledger_id: UUID, query: EventQuery) -> PinnedQuery:
    stream_ref = stream_ref_of(deps, ledger_id, query.stream) if query.stream is not None else None
    asked = {field: getattr(query, field) for field in ("subject", "actor", "involving")}
    names = {who.name for who in asked.values() if who is not None and who.name is not None}
    found = deps.vault.find_subjects(ledger_id, names) if names else {}
    refs = {
        field: who.ref if who.ref is not None else (found[who.name].ref if who.name in found else None)
        for field, who in asked.items()
        if who is not None
    }
    return PinnedQuery(
        as_of=-1,
        nothing=None in refs.values() or (query.stream is not None and stream_ref is None),
        stream_ref=stream_ref,
        subject_ref=refs.get("subject"),
        actor_ref=refs.get("actor"),
        involving_ref=refs.get("involving"),
        **window_of(query),
    )


def stream_ref_of(deps: Dependencies, ledger_id: UUID, stream: NameOrRef) -> bytes | None:
    """The ref of a stream; None when its name is not known."""
    if stream.name is None:
        return stream.ref
    split = split_stream(stream.name)
    if split is not None and split[0] == LEDGER_CATEGORY:
        # The ledger's own streams are not in the name index: their names spell their refs.
        own = parse_uuid(split[1])
        return own.bytes if own is not None else None
    entry = deps.vault.find_streams(ledger_id, [stream.name]).get(stream.name)
    return entry.ref if entry is not None else None


def find_filter(deps: Dependencies, ledger_id: UUID, pinned: PinnedQuery) -> EventFilter | None:
    """What the store has to select for a pinned query; None when nothing can match."""
    if pinned.nothing:
        return None
    keys = []
    for ref, roles in (
        (pinned.subject_ref, (Role.SUBJECT,)),
        (pinned.actor_ref, (Role.ACTOR,)),
        (pinned.involving_ref, PERSONAL_ROLES),
    ):
        if ref is None:
            continue
        subject = deps.vault.subject(ledger_id, ref)
        if subject is None or not subject.key_ids:
            return None
        keys.append(KeyCondition(roles, tuple(key_id for key_id, _ in subject.key_ids)))
    first, last = _recorded_range(deps, ledger_id, pinned)
    which = narrow(pinned, first, last, tuple(keys))
    return which if which.first_position <= which.last_position else None


def _recorded_range(deps: Dependencies, ledger_id: UUID, pinned: PinnedQuery) -> tuple[int, int]:
    """The positions of a half-open recorded range. Recorded-at never decreases with position, so no index is needed."""
    first, last = 0, pinned.as_of
    if pinned.recorded_from is None and pinned.recorded_to is None:
        return first, last
    head = deps.store.head(ledger_id)
    if pinned.recorded_from is not None:
        first = last_position_at(deps, ledger_id, pinned.recorded_from - 1, head.size, head.last_recorded_at) + 1
    if pinned.recorded_to is not None:
        last = last_position_at(deps, ledger_id, pinned.recorded_to - 1, head.size, head.last_recorded_at)
    return first, last


def _moment(deps: Dependencies, ledger_id: UUID, pinned: PinnedQuery) -> Moment:
    position = pinned.as_of
    if position >= deps.store.head(ledger_id).size:
        raise invalid_cursor()
    return Moment(position, deps.store.recorded_at(ledger_id, position) if position >= 0 else None)


def _is_same(deps: Dependencies, ledger_id: UUID, query: EventQuery, pinned: PinnedQuery) -> bool:
    if not same_question(_pin_names(deps, ledger_id, query), pinned):
        return False
    return query.as_of is None or resolve_as_of(deps, ledger_id, query.as_of).position == pinned.as_of
