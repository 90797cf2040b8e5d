"""Follow a ledger: first what is recorded, then what is recorded next, without a gap or a duplicate in between.

That there is no seam is I2: a page ends at a position, the next one begins behind it, and nothing is ever recorded at
or below a position that was read. Every page looks at the keys anew (I7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from ledger.domain.events import OpenedEvent
from ledger.domain.query import EventQuery, NameOrRef, PinnedQuery
from ledger.errors import Fault, InvalidError
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.current import open_current, open_recorded
from ledger.services.following.scanning import WINDOW, scan
from ledger.services.read import find_filter, pin_query

PAGE: Final = 100
QUIET_SECONDS: Final = 1.0
"""How long nothing may come before whoever follows is given an empty page, and ``stop`` is asked."""

Handler = Callable[[OpenedEvent], None]


@dataclass(frozen=True, slots=True)
class FollowedPage:
    """The next events that match; none when nothing new has come. ``position``: everything up to there was seen."""

    events: Sequence[OpenedEvent]
    position: int


def never() -> bool:
    """For who does not stop."""
    return False


def follow(
    deps: Dependencies,
    ledger_id: UUID,
    *,
    after: int = -1,
    category: str | None = None,
    types: Sequence[str] = (),
    stream: NameOrRef | None = None,
    stop: Callable[[], bool] = never,
) -> Iterator[OpenedEvent]:
    """Every event behind ``after`` that matches, in order and for ever, in the newest shape of its type.

    Ends soon after ``stop`` says so. To go on later, keep the position of the last event. Raises ``InvalidError`` at
    once for an ``after`` that does not exist yet; later what a dependency raises: then follow again from there.
    """
    query = EventQuery(after_position=after, category=category, types=tuple(types), stream=stream)
    pages = follow_pages(deps, ledger_id, query, stop=stop)
    return (event for page in pages for event in page.events)


def run_handler(
    deps: Dependencies,
    ledger_id: UUID,
    handler: Handler,
    *,
    after: int = -1,
    category: str | None = None,
    types: Sequence[str] = (),
    stream: NameOrRef | None = None,
    stop: Callable[[], bool] = never,
) -> int:
    """Hand every event behind ``after`` that matches to a handler, until ``stop`` says so; gives the position of the
    last one (``after`` when there was none). Raises ``InvalidError`` for an ``after`` that does not exist yet.

    Keeps no place: who wants to go on after a restart keeps the position, or uses a durable subscription. What the
    handler raises ends it: nothing is skipped.
    """
    last = after
    for event in follow(deps, ledger_id, after=after, category=category, types=types, stream=stream, stop=stop):
        handler(event)
        last = event.recorded.position
        if stop():
            break
    return last


def follow_pages(
    deps: Dependencies,
    ledger_id: UUID,
    query: EventQuery,
    *,
    stop: Callable[[], bool] = never,
    quiet: float = QUIET_SECONDS,
    as_recorded: bool = False,
) -> Iterator[FollowedPage]:
    """The same in pages, of any query without ``as_of`` in the order of recording.

    The first page comes at once, with events or without; later an empty one whenever nothing came for ``quiet``
    seconds. Events are shown in the newest shape of their types, or ``as_recorded``.
    """
    check_after(deps, ledger_id, query.after_position)
    return _pages(deps, ledger_id, query, stop, quiet, as_recorded)


def check_after(deps: Dependencies, ledger_id: UUID, after: int) -> None:
    """Raises ``InvalidError`` for a place to go on from that this ledger has not come to.

    Who has such a place has it from another ledger, or from before this one was restored from an old backup: to wait
    until the ledger has come there would leave out in silence what is recorded on the way.
    """
    size = deps.store.head(ledger_id).size
    if after >= size:
        fault = Fault("/after", f"must be below the size of the ledger, {size}")
        raise InvalidError("nobody can follow from the future", [fault])


def _pages(
    deps: Dependencies, ledger_id: UUID, query: EventQuery, stop: Callable[[], bool], quiet: float, as_recorded: bool
) -> Iterator[FollowedPage]:
    shown = open_recorded if as_recorded else open_current
    position = query.after_position
    pinned: PinnedQuery | None = None
    settled = False
    while not stop():
        size = deps.store.head(ledger_id).size
        events: Sequence[OpenedEvent] = ()
        # A page without events that is not at the head yet is nobody's business.
        while position < size - 1 and not events and not stop():
            if pinned is None or not settled:
                # A stream or person whose name is not known yet may be by now, and the ref of a stream that has not
                # begun can be given up for another.
                pinned = pin_query(deps, ledger_id, query)
                settled = not pinned.nothing and _has_begun(deps, ledger_id, pinned.stream_ref)
            last = min(size - 1, position + WINDOW)
            which = find_filter(deps, ledger_id, replace(pinned, after_position=position, as_of=last))
            if which is None:
                position = last
                continue
            step = scan(deps, ledger_id, which, PAGE)
            events, position = shown(deps, ledger_id, step.rows), step.end
        yield FollowedPage(events, position)
        if not events:
            deps.store.wait_for_growth(ledger_id, size, quiet)


def _has_begun(deps: Dependencies, ledger_id: UUID, stream_ref: bytes | None) -> bool:
    return stream_ref is None or bool(deps.store.versions(ledger_id, [stream_ref]))
