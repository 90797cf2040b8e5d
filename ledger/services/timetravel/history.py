"""Every value that one field of a stream ever had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from ledger.domain.cursors import invalid_cursor, other_question
from ledger.domain.difference import Path
from ledger.domain.events import OpenedEvent, Role
from ledger.domain.fold import MERGE_PATCH, NOTHING, Fold, Folded, Folding
from ledger.domain.history import FieldHistory, FieldValue
from ledger.domain.pages import HistoryPlace, decode_page, encode_page
from ledger.domain.pointers import POINTER_FORM, parse_pointer
from ledger.domain.query import DEFAULT_LIMIT, AsOf, Moment, NameOrRef
from ledger.errors import Fault, InvalidError
from ledger.ports import StreamRange
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.current import open_current
from ledger.services.moments import resolve_as_of
from ledger.services.read import find_stream
from ledger.services.timetravel.folding import open_in_order
from ledger.services.timetravel.paging import PAGE_BYTES, json_size, pinned_moment
from ledger.services.timetravel.reading import occurrences, read_onward
from ledger.services.timetravel.state import fold_stream

EVENTS_OF_A_PAGE: Final = 10_000
"""Events that one page looks through, at most: one about a field that seldom changes ends there, with what it has."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """One page of values, in the order in which the events count. ``next`` is the cursor of the next one."""

    as_of: Moment
    stream_ref: bytes
    values: Sequence[FieldValue]
    next: str | None


def field_history(
    deps: Dependencies,
    ledger_id: UUID,
    stream: NameOrRef,
    path: str,
    *,
    as_of: AsOf | None = None,
    occurred_as_of: int | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    fold: Fold = MERGE_PATCH,
) -> HistoryPage:
    """What each event of a stream made of the field at ``path`` (a JSON Pointer into the state).

    Events that left it as it was are left out; those of which something is hidden are in, because it could have changed
    the field. A page of large values ends with ``PAGE_BYTES``. A cursor goes with the same stream and path. With
    ``occurred_as_of`` every page folds the stream from its beginning. Raises ``NotFoundError`` and ``InvalidError``.
    """
    pointer = parse_pointer(path)
    if pointer is None:
        raise InvalidError("the path is not valid", [Fault("/path", POINTER_FORM)])
    ref, _ = find_stream(deps, ledger_id, stream)
    place = _pin(deps, ledger_id, ref, as_of, occurred_as_of, cursor)
    moment = pinned_moment(deps, ledger_id, place.as_of)
    roles = fold.roles | {Role.ACTOR}
    if place.occurred is None:
        start, events = _recorded(deps, ledger_id, place, fold, roles)
    else:
        start, events = _occurred(deps, ledger_id, place, place.occurred, fold, roles)
    values, done = _collect(fold, pointer, start, events, limit)
    following = encode_page(ledger_id, replace(place, done=place.done + done)) if done is not None else None
    return HistoryPage(moment, ref, values, following)


def _pin(
    deps: Dependencies, ledger_id: UUID, ref: bytes, as_of: AsOf | None, occurred_as_of: int | None, cursor: str | None
) -> HistoryPlace:
    if cursor is None:
        position = resolve_as_of(deps, ledger_id, as_of).position
        return HistoryPlace(stream_ref=ref, as_of=position, occurred=occurred_as_of)
    place = decode_page(ledger_id, HistoryPlace, cursor)
    same_moment = as_of is None or resolve_as_of(deps, ledger_id, as_of).position == place.as_of
    if place.stream_ref != ref or not same_moment or occurred_as_of not in (None, place.occurred):
        raise other_question()
    return place


def _collect(
    fold: Fold, pointer: Path, start: Folded, events: Iterator[OpenedEvent], limit: int
) -> tuple[list[FieldValue], int | None]:
    """The next values, and how many events the page is done with; None: with all."""
    history = FieldHistory(fold, pointer, start)
    values: list[FieldValue] = []
    done, used = 0, 0
    for number, event in enumerate(events):
        value = history.add(event)
        if value is not None:
            if len(values) == limit:
                # The one too many is how we know that there are more.
                return values, done
            size = json_size(value.value)
            if values and used + size > PAGE_BYTES:
                return values, done
            used += size
        if number >= EVENTS_OF_A_PAGE:
            return values, number
        if value is not None:
            values.append(value)
            done = number + 1
    return values, None


def _recorded(
    deps: Dependencies, ledger_id: UUID, place: HistoryPlace, fold: Fold, roles: frozenset[Role]
) -> tuple[Folded, Iterator[OpenedEvent]]:
    ref, done = place.stream_ref, place.done
    start = NOTHING
    if done:
        last = deps.store.stream_events(ledger_id, [StreamRange(ref, done, done)], place.as_of)
        if not last:
            raise invalid_cursor()
        start = fold_stream(deps, ledger_id, ref, last[0].position, fold)

    def events() -> Iterator[OpenedEvent]:
        for rows in read_onward(deps, ledger_id, {ref: done}, place.as_of):
            yield from open_current(deps, ledger_id, rows, roles)

    return start, events()


def _occurred(
    deps: Dependencies, ledger_id: UUID, place: HistoryPlace, occurred_as_of: int, fold: Fold, roles: frozenset[Role]
) -> tuple[Folded, Iterator[OpenedEvent]]:
    found = occurrences(deps, ledger_id, [place.stream_ref], place.as_of, occurred_as_of)
    positions = [item.position for item in found]
    before = Folding(fold)
    for opened in open_in_order(deps, ledger_id, positions[: place.done], fold.roles):
        before.extend(opened)

    def events() -> Iterator[OpenedEvent]:
        for opened in open_in_order(deps, ledger_id, positions[place.done :], roles):
            yield from opened

    return before.result(), events()
