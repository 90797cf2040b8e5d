"""Followers see every event that matches once, in order: those that were there, then those that come."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ledger.domain.events import OpenedEvent
from ledger.domain.query import EventQuery, NameOrRef
from ledger.errors import InvalidError
from ledger.services.following.follow import FollowedPage, follow, follow_pages, run_handler
from tests.support.ledgers import Ledger, a_fact, a_visit, reasons

WRITERS = 3
APPENDS = 40


def followed(ledger: Ledger, **options: Any) -> list[int]:
    """The positions that a follower sees until it has caught up."""
    pages = follow_pages(ledger.deps, ledger.ledger_id, EventQuery(**options), quiet=0.01)
    caught_up = itertools.takewhile(lambda page: page.position < ledger.size() - 1 or page.events, pages)
    return [event.recorded.position for page in caught_up for event in page.events]


def test_there_is_no_seam_between_what_was_there_and_what_comes(ledger: Ledger) -> None:
    """While others append: every position once, in order."""
    ledger.append(*(a_fact(f"ward-{number}") for number in range(250)))
    total = 250 + WRITERS * APPENDS
    seen: list[int] = []

    def write(number: int) -> None:
        for turn in range(APPENDS):
            ledger.append(a_visit(f"{number}-{turn % 5}"))

    with ThreadPoolExecutor(WRITERS) as pool:
        futures = [pool.submit(write, number) for number in range(WRITERS)]
        for event in follow(ledger.deps, ledger.ledger_id, stop=lambda: len(seen) == total):
            seen.append(event.recorded.position)
        for future in futures:
            future.result()

    assert seen == list(range(total))


def test_a_follower_goes_on_behind_a_position(ledger: Ledger) -> None:
    """The position of the last event is all that has to be kept."""
    ledger.append(*(a_fact() for _ in range(5)))
    events = follow(ledger.deps, ledger.ledger_id, after=2)

    assert [next(events).recorded.position for _ in range(2)] == [3, 4]
    ledger.append(a_fact())
    assert next(events).recorded.position == 5


def test_nobody_follows_from_a_position_that_is_not_there_yet(ledger: Ledger) -> None:
    """It is of another ledger, or of this one before it was restored: what comes up to it would be left out unseen."""
    deps, ledger_id = ledger.deps, ledger.ledger_id

    def begin(after: int) -> list[Callable[[], object]]:
        return [
            lambda: follow(deps, ledger_id, after=after),
            lambda: run_handler(deps, ledger_id, lambda _: None, after=after, stop=lambda: True),
            lambda: follow_pages(deps, ledger_id, EventQuery(after_position=after)),
        ]

    for size in (0, 1, 2):
        assert ledger.size() == size
        for ask in begin(size - 1):
            ask()
        for ask in [*begin(size), *begin(2**62)]:
            with pytest.raises(InvalidError) as refused:
                ask()
            assert [fault.pointer for fault in refused.value.faults] == ["/after"]
        ledger.append(a_fact())


def test_the_newest_event_is_a_place_to_go_on_from(ledger: Ledger) -> None:
    """However many come while somebody begins there."""
    for _ in range(5):
        newest = ledger.append_one(a_fact()).position
        events = follow(ledger.deps, ledger.ledger_id, after=newest)
        following = ledger.append_one(a_fact()).position
        assert next(events).recorded.position == following


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"category": "patient"}, [1, 3]),
        ({"types": ("Closed",)}, [2, 3]),
        ({"category": "patient", "types": ("Closed",)}, [3]),
        ({"stream": NameOrRef("ward-ER", None)}, [0, 2]),
        ({"subject": NameOrRef("patient:A", None)}, [1, 3]),
        ({"types": ("Unheard",)}, []),
    ],
)
def test_filters(ledger: Ledger, asked: dict[str, Any], expected: list[int]) -> None:
    """What does not match is passed over."""
    for event in (a_fact(), a_visit(), a_fact(type="Closed"), a_visit(type="Closed")):
        ledger.append(event)

    assert followed(ledger, **asked) == expected


def test_what_does_not_match_is_looked_through_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bounded steps; a wake-up looks at what is new alone."""
    monkeypatch.setattr("ledger.services.following.follow.WINDOW", 10)
    ledger.append(*(a_fact() for _ in range(95)), a_fact(type="Rare"))
    asked: list[tuple[int, int]] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.store, name)

        def select_events(self, ledger_id: Any, which: Any, after: Any, limit: int) -> Any:
            asked.append((which.first_position, which.last_position))
            return ledger.deps.store.select_events(ledger_id, which, after, limit)

    watched = ledger.with_parts(store=Watched())
    pages = follow_pages(watched.deps, ledger.ledger_id, EventQuery(types=("Rare",)), quiet=0.01)
    assert [event.recorded.position for event in next(pages).events] == [95]
    assert asked == [(first, min(first + 9, 95)) for first in range(0, 96, 10)]
    asked.clear()
    assert next(pages) == FollowedPage((), 95)
    ledger.append(a_fact())
    assert next(pages) == FollowedPage([], 96)
    assert asked == [(96, 96)]


def test_a_stream_that_does_not_exist_yet_can_be_followed(ledger: Ledger) -> None:
    """By its name, from its first event on."""
    ledger.append(a_fact())
    pages = follow_pages(ledger.deps, ledger.ledger_id, EventQuery(stream=NameOrRef("patient-A", None)), quiet=0.01)
    assert list(next(pages).events) == []
    ledger.append(a_visit())

    assert [event.stream for event in next(page.events for page in pages if page.events)] == ["patient-A"]


def test_each_page_looks_at_the_keys_anew(ledger: Ledger) -> None:
    """Who was erased between two pages is redacted in the second (I7)."""
    ledger.append(*(a_visit("A") for _ in range(100)))
    ledger.append(a_visit("A"))
    pages = follow_pages(ledger.deps, ledger.ledger_id, EventQuery())
    first = next(pages).events
    ledger.erase("patient:A")
    second = next(pages).events

    assert (len(first), {len(event.redactions) for event in first}) == (100, {0})
    assert reasons(second[0]) == {"/data": "erased"}


def test_a_stream_that_begins_under_another_ref_is_followed(ledger: Ledger) -> None:
    """Its first writer died before the first event; the next one begins it for somebody else."""
    ledger.append(a_fact())
    ledger.deps.vault.reserve(ledger.ledger_id, {"order-1": "person:x"}, [("person:x", "")], mint=True)
    query = EventQuery(stream=NameOrRef("order-1", None))
    pages = follow_pages(ledger.deps, ledger.ledger_id, query, quiet=0.01)
    assert list(next(pages).events) == []
    begun = ledger.append_one({"stream": "order-1", "type": "Ordered", "subject": "person:y", "data": {}})
    assert [event.recorded.position for event in next(pages).events] == [begun.position]
    pages.close()  # type: ignore[attr-defined]  # a generator has it, an iterator in general does not


def test_large_events_make_small_pages(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a follower's memory stays bounded."""
    monkeypatch.setattr("ledger.services.following.scanning.STEP_BYTES", 10_000)
    monkeypatch.setattr("ledger.services.following.scanning._CHUNK", 4)
    ledger.append(*(a_visit("A", data={"text": "x" * 3000}) for _ in range(20)))
    pages = follow_pages(ledger.deps, ledger.ledger_id, EventQuery())
    sizes = [len(next(pages).events) for _ in range(5)]

    assert sizes == [4] * 5


def test_a_handler_gets_every_event_until_it_is_told_to_stop(ledger: Ledger) -> None:
    """And says how far it came."""
    ledger.append(*(a_fact() for _ in range(5)))
    seen: list[OpenedEvent] = []

    last = run_handler(ledger.deps, ledger.ledger_id, seen.append, after=0, stop=lambda: len(seen) == 3)

    assert last == 3
    assert [event.recorded.position for event in seen] == [1, 2, 3]


def test_a_handler_that_fails_ends_it(ledger: Ledger) -> None:
    """Nothing is skipped."""
    ledger.append(a_fact(), a_fact())
    seen: list[int] = []

    def handle(event: OpenedEvent) -> None:
        if event.recorded.position == 1:
            raise ZeroDivisionError
        seen.append(event.recorded.position)

    with pytest.raises(ZeroDivisionError):
        run_handler(ledger.deps, ledger.ledger_id, handle)
    assert seen == [0]


def test_a_follower_that_waits_stops_soon(ledger: Ledger) -> None:
    """Within the second that it may be quiet."""
    stop = threading.Event()

    def run() -> int:
        return run_handler(ledger.deps, ledger.ledger_id, lambda _: None, stop=stop.is_set)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run)
        stop.set()
        assert future.result(10) == -1


def test_pages_without_end_can_be_left(ledger: Ledger) -> None:
    """A generator that is closed holds nothing."""
    ledger.append(a_fact())
    pages: Iterator[FollowedPage] = follow_pages(ledger.deps, ledger.ledger_id, EventQuery())
    next(pages)
    pages.close()  # type: ignore[attr-defined]  # a generator has it, an iterator in general does not

    assert list(pages) == []
