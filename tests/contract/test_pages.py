"""Pages of every kind: none is too large, together they are the whole answer, and their cursors are of one ledger."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from ledger.domain.pages import DiffPlace, encode_page
from ledger.domain.query import EventQuery
from ledger.domain.snapshot import EVERY
from ledger.errors import InvalidError
from ledger.services.following.subscriptions import list_parked
from ledger.services.projecting.read_models import list_documents
from ledger.services.projecting.shipped import SHIPPED
from ledger.services.read import query_events
from ledger.services.timetravel import history as history_service
from ledger.services.timetravel import paging
from ledger.services.timetravel.diff import DiffPage, Moments, diff_category, diff_stream
from ledger.services.timetravel.history import HistoryPage, field_history
from ledger.services.timetravel.paging import PAGE_BYTES, json_size
from ledger.services.timetravel.reading import read_onward
from ledger.services.timetravel.states import StatesPage, stream_states
from tests.support.desk import subscribe_to
from tests.support.ledgers import Backend, Ledger, a_fact, who
from tests.support.projecting import run_all
from tests.support.timelines import at, every_page, mixed_ledger, some_occurred, streams


@pytest.fixture(scope="module")
def filled(backend: Backend) -> Ledger:
    """A ledger of many streams; nobody appends to it."""
    return mixed_ledger(backend)


def ask_states(ledger: Ledger, limit: int, cursor: str | None, **asked: Any) -> StatesPage:
    """A page of the states of a category; a cursor goes alone."""
    asked = {"category": "patient", **asked} if cursor is None else {}
    return stream_states(ledger.deps, ledger.ledger_id, cursor=cursor, limit=limit, **asked)


def ask_diff(ledger: Ledger, moments: Moments, limit: int, cursor: str | None) -> DiffPage:
    """The same of what changed in it."""
    asked = ("patient", moments) if cursor is None else ()
    return diff_category(ledger.deps, ledger.ledger_id, *asked, cursor=cursor, limit=limit)


def ask_history(ledger: Ledger, ref: bytes, path: str, limit: int, cursor: str | None, **asked: Any) -> HistoryPage:
    """A page of a history."""
    return field_history(ledger.deps, ledger.ledger_id, who(ref), path, cursor=cursor, limit=limit, **asked)


# How large a page may be


@pytest.mark.parametrize("most", [1, 60, 300, 10**6])
def test_pages_of_any_size_are_the_whole_answer_together(
    filled: Ledger, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On both axes, whether a page ends by its limit or by its bytes."""
    moments = [None, some_occurred(filled)[3]]
    asked: list[tuple[Callable[[int, str | None], Any], Callable[[Any], Any], Callable[[Any], int]]] = []
    for moment in moments:
        about = Moments(old_as_of=at(30), new_as_of=at(100), old_occurred_as_of=moment, new_occurred_as_of=moment)
        asked += [
            (partial(ask_states, filled, occurred_as_of=moment), lambda page: page.states, size_of_states),
            (partial(ask_diff, filled, about), lambda page: page.streams, size_of_diff),
        ]
        asked += [
            (partial(ask_history, filled, ref, path, occurred_as_of=moment), lambda page: page.values, size_of_values)
            for ref in streams(filled, "patient")[:2]
            for path in ("", "/a")
        ]
    whole = [items(ask(1000, None)) for ask, items, _ in asked]
    monkeypatch.setattr(paging, "PAGE_BYTES", most)
    monkeypatch.setattr(paging, "STREAMS_AT_FIRST", 2)
    monkeypatch.setattr(history_service, "PAGE_BYTES", most)
    for (ask, items, size_of), expected in zip(asked, whole, strict=True):
        assert expected
        for limit in (1000, 3):
            pages = every_page(partial(ask, limit), most=200)
            assert [item for page in pages for item in items(page)] == list(expected)
            assert all(size_of(page) <= most or len(items(page)) <= 1 for page in pages)
            assert all(len(items(page)) <= limit for page in pages)


def size_of_states(page: StatesPage) -> int:
    """What a page has of states."""
    return sum(json_size(state.state) for _, state in page.states)


def size_of_diff(page: DiffPage) -> int:
    """The same of what changed."""
    return sum(json_size(stream.old.state) + json_size(stream.new.state) for stream in page.streams)


def size_of_values(page: HistoryPage) -> int:
    """The same of values."""
    return sum(json_size(value.value) for value in page.values)


def test_the_history_of_a_large_document_comes_in_pieces(ledger: Ledger) -> None:
    """Each value has all that came before it: the answer would grow with the square of what was recorded."""
    text = "z" * 900_000
    for number in range(6):
        ledger.append_one(a_fact("ward-1", nonpersonal={f"k{number}": text}))
    (ref,) = streams(ledger, "ward")

    pages = every_page(partial(ask_history, ledger, ref, "", 1000))

    assert [len(page.values) for page in pages] == [3, 2, 1]
    assert [len(value.value) for page in pages for value in page.values] == [1, 2, 3, 4, 5, 6]
    assert all(size_of_values(page) <= PAGE_BYTES for page in pages)
    assert pages[0].values[0].event.position == 0


def test_large_states_come_in_small_pages(ledger: Ledger) -> None:
    """A difference, too: it is made of two states."""
    text = "z" * 900_000
    for number in range(10):
        ledger.append_one(a_fact(f"patient-{number}", nonpersonal={"k": text}))
    moments = Moments(old_as_of=at(-1))

    states = every_page(partial(ask_states, ledger, 1000))
    differences = every_page(partial(ask_diff, ledger, moments, 1000))

    assert [len(page.states) for page in states] == [9, 1]
    assert [len(page.streams) for page in differences] == [9, 1]
    assert [ref for page in states for ref, _ in page.states] == streams(ledger, "patient")
    assert [stream.stream_ref for page in differences for stream in page.streams] == streams(ledger, "patient")


def test_one_stream_is_a_page_however_large(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks in vain."""
    monkeypatch.setattr(paging, "PAGE_BYTES", 1)
    ledger.append(a_fact("ward-1", nonpersonal={"a": 1}), a_fact("ward-1", nonpersonal={"b": 1}))

    page = diff_stream(ledger.deps, ledger.ledger_id, who("ward-1"), Moments(old_as_of=at(0)))

    assert ([stream.new.state for stream in page.streams], page.next) == ([{"a": 1, "b": 1}], None)


def test_the_first_piece_of_many_streams_is_no_larger_than_that_of_one(ledger: Ledger) -> None:
    """Nobody knows yet how large their events are; the next ones go by the size of those before."""
    ledger.append(*[a_fact(f"ward-{number % 5}") for number in range(3 * EVERY)])
    behind = dict.fromkeys(streams(ledger, "ward"), 0)

    pieces = [len(rows) for rows in read_onward(ledger.deps, ledger.ledger_id, behind, ledger.size())]

    assert pieces == [EVERY, 2 * EVERY]


# Whose cursor it is


@pytest.fixture
def twins(backend: Backend) -> tuple[Ledger, Ledger]:
    """Two ledgers in which the same was recorded."""
    ledgers = (backend.new_ledger(), backend.new_ledger())
    for ledger in ledgers:
        desk = subscribe_to(ledger, partitions=1, max_tries=1)
        # Each stream goes on after it began, so that there is something to compare.
        ledger.append(*[a_fact(f"patient-{number % 3}", nonpersonal={"n": number}) for number in range(6)])
        desk.consume(desk.failing_at(0, 1))
        run_all(ledger.deps, ledger.ledger_id)
    return ledgers


def test_a_cursor_is_refused_by_any_other_ledger(twins: tuple[Ledger, Ledger]) -> None:
    """There it would begin in the middle, and an answer without its beginning looks like a whole one."""
    moments = Moments(old_as_of=at(0))
    asked: dict[str, Callable[[Ledger, str | None], Any]] = {
        "query": lambda ledger, cursor: query_events(
            ledger.deps, ledger.ledger_id, EventQuery() if cursor is None else None, cursor=cursor, limit=1
        ),
        "query by occurrence": lambda ledger, cursor: query_events(
            ledger.deps, ledger.ledger_id, EventQuery(order_by="occurred"), cursor=cursor, limit=1
        ),
        "feed": lambda ledger, cursor: query_events(
            ledger.deps, ledger.ledger_id, EventQuery(after_position=0), cursor=cursor, limit=1
        ),
        "states": lambda ledger, cursor: ask_states(ledger, 1, cursor),
        "diff": lambda ledger, cursor: ask_diff(ledger, moments, 1, cursor),
        "read model": lambda ledger, cursor: list_documents(
            ledger.deps, ledger.ledger_id, SHIPPED["current_state"], None, cursor=cursor, limit=1
        ),
        "parked": lambda ledger, cursor: list_parked(ledger.deps, ledger.ledger_id, "mailer", cursor=cursor, limit=1),
    }
    one, other = twins
    for what, ask in asked.items():
        cursor = ask(one, None).next
        assert cursor is not None, what
        assert ask(one, cursor) is not None
        with pytest.raises(InvalidError) as refused:
            ask(other, cursor)
        assert [fault.pointer for fault in refused.value.faults] == ["/cursor"], what


def test_a_parked_cursor_goes_with_its_subscription(twins: tuple[Ledger, Ledger]) -> None:
    """Another one's list begins elsewhere."""
    ledger, _ = twins
    subscribe_to(ledger, "printer")
    cursor = list_parked(ledger.deps, ledger.ledger_id, "mailer", limit=1).next

    with pytest.raises(InvalidError):
        list_parked(ledger.deps, ledger.ledger_id, "printer", cursor=cursor)


def test_a_difference_between_moments_out_of_order_is_refused_in_a_cursor_too(filled: Ledger) -> None:
    """Put together by hand, it would be an answer without changes."""
    place = DiffPlace(category="patient", old=20, as_of=3, after_ref=bytes(16))

    with pytest.raises(InvalidError):
        diff_category(filled.deps, filled.ledger_id, cursor=encode_page(filled.ledger_id, place))
