"""The states of one stream and of many, on both time axes, as a naive reader would work them out from the events."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.domain.events import JsonObject
from ledger.domain.fold import MERGE_PATCH
from ledger.domain.query import AsOf
from ledger.domain.snapshot import EVERY
from ledger.services.timetravel.snapshots import keep
from ledger.services.timetravel.state import stream_state
from ledger.services.timetravel.states import StatesPage, stream_states
from tests.support.ledgers import Backend, Ledger, a_fact, a_visit, who
from tests.support.streams import OBJECTS
from tests.support.timelines import (
    an_occurrence,
    at,
    every_page,
    mixed_ledger,
    naive,
    occurred,
    positions,
    some_occurred,
    streams,
)


@pytest.fixture(scope="module")
def filled(backend: Backend) -> Ledger:
    """A ledger of many streams; nobody appends to it."""
    return mixed_ledger(backend)


# State


def test_a_state_is_the_fold_of_what_was_recorded_by_then_and_had_occurred_by_then(filled: Ledger) -> None:
    """At every combination of moments on the two axes."""
    ref = streams(filled, "patient")[0]
    for position in positions(filled):
        for moment in [None, *some_occurred(filled)]:
            answer = stream_state(filled.deps, filled.ledger_id, who(ref), at(position), moment)
            assert answer.state == naive(filled, ref, position, moment)
            assert answer.as_of.position == position


def test_the_two_axes_agree_when_events_occur_as_they_are_recorded(ledger: Ledger) -> None:
    """Then the state as of a time is the same by either."""
    places = [ledger.append_one(a_visit(data={"n": number, f"k{number}": number})) for number in range(12)]
    stream = who("patient-A")
    for place in places:
        by_record = stream_state(ledger.deps, ledger.ledger_id, stream, AsOf(time=place.recorded_at))
        by_occurrence = stream_state(ledger.deps, ledger.ledger_id, stream, None, place.recorded_at)
        assert by_record.state == by_occurrence.state
        assert by_record.state.stream_version == place.stream_version


def test_what_is_recorded_late_shows_on_the_occurred_axis_from_then_on(ledger: Ledger) -> None:
    """The bitemporal question: what did we believe then about a moment before."""
    ledger.append_one(a_visit(data={"ward": "ER"}, occurred_at="2023-03-01T08:00:00Z"))
    ledger.append_one(a_visit(data={"ward": "ICU"}, occurred_at="2023-03-10T08:00:00Z"))
    believed_then = AsOf(position=1)
    ledger.append_one(a_visit(data={"ward": "ward 5"}, occurred_at="2023-03-05T08:00:00Z"))
    march_6 = 1_678_060_800_000_000

    def ward(as_of: AsOf | None, occurred_as_of: int | None) -> object:
        state = stream_state(ledger.deps, ledger.ledger_id, who("patient-A"), as_of, occurred_as_of).state
        return state.state["ward"]

    assert ward(believed_then, march_6) == "ER"
    assert ward(None, march_6) == "ward 5"
    assert ward(None, march_6 + 30 * 86_400_000_000) == "ICU", "what occurred later counts last"
    assert ward(None, None) == "ward 5", "in the order of versions the late one is the newest"


# States


def test_the_states_of_a_category_are_those_of_its_streams(filled: Ledger) -> None:
    """On both axes, in any pages; a stream that had not begun, or of which nothing had occurred, is left out."""
    for position in positions(filled):
        for moment in [None, *some_occurred(filled)[1:4]]:
            expected = {
                ref: state
                for ref in streams(filled, "patient", position)
                if (state := naive(filled, ref, position, moment)).stream_version
            }
            for limit in (1000, 3):
                pages = every_page(partial(ask_states, filled, position, moment, limit))
                assert [pair for page in pages for pair in page.states] == list(expected.items())
                assert {page.as_of for page in pages} == {pages[0].as_of}
                assert all(len(page.states) <= limit for page in pages)


def ask_states(
    ledger: Ledger, position: int, moment: int | None, limit: int, cursor: str | None, **more: Any
) -> StatesPage:
    """A page of the category's states; a cursor goes alone."""
    if cursor is not None:
        return stream_states(ledger.deps, ledger.ledger_id, cursor=cursor, limit=limit)
    asked = more or {"category": "patient"}
    as_of = at(position)
    return stream_states(ledger.deps, ledger.ledger_id, as_of=as_of, occurred_as_of=moment, limit=limit, **asked)


@pytest.mark.parametrize("name", ["patient:1", "patient:3", "patient:4"])
def test_the_states_of_a_subject_are_those_of_the_streams_that_it_is_the_subject_in(filled: Ledger, name: str) -> None:
    """Also of one who is erased or restricted: their streams are there, and say so."""
    entry = filled.deps.vault.find_subjects(filled.ledger_id, [name])[name]
    keys = {key_id for key_id, _ in entry.key_ids}
    for position in positions(filled):
        refs = sorted(
            {
                row.envelope.stream_ref
                for row in filled.recorded()
                if row.position <= position and any(part.role == 1 and part.key_id in keys for part in row.parts)
            }
        )
        for asked in (who(name), who(entry.ref)):
            pages = every_page(partial(ask_states, filled, position, None, 2, subject=asked))
            found = [pair for page in pages for pair in page.states]
            assert found == [(ref, naive(filled, ref, position)) for ref in refs]


def test_who_is_not_known_has_no_streams(filled: Ledger) -> None:
    """As in a query: an empty answer, and no error."""
    page = stream_states(filled.deps, filled.ledger_id, subject=who("nobody"))

    assert (page.states, page.next) == ([], None)
    assert page.as_of.position == filled.size() - 1
    assert stream_states(filled.deps, filled.ledger_id, subject=who(b"?" * 16)).states == []
    assert stream_states(filled.deps, filled.ledger_id, category="nothing").states == []


def test_a_page_pins_its_moment_while_the_ledger_grows(ledger: Ledger) -> None:
    """What is recorded between two pages is in neither."""
    ledger.append(*[a_fact(f"ward-{number}", nonpersonal={"n": 1}) for number in range(6)])
    first = stream_states(ledger.deps, ledger.ledger_id, category="ward", limit=3)
    ledger.append(*[a_fact(f"ward-{number}", nonpersonal={"n": 2}) for number in range(12)])

    second = stream_states(ledger.deps, ledger.ledger_id, category="ward", cursor=first.next, limit=3)

    assert len(first.states) == len(second.states) == 3
    assert second.next is None
    assert {state.state["n"] for _, state in [*first.states, *second.states]} == {1}


def test_states_use_snapshots_and_leave_them(ledger: Ledger) -> None:
    """One page reads of each stream what lies behind its snapshot."""
    numbers = range(1, 3 * EVERY + 1)
    ledger.append(*[a_fact(f"ward-{n % 2}", nonpersonal={"n": n, f"k{n}": n}) for n in numbers])
    first = stream_states(ledger.deps, ledger.ledger_id, category="ward")
    refs = [ref for ref, _ in first.states]

    found = ledger.deps.derived.snapshots.nearest_snapshots(ledger.ledger_id, MERGE_PATCH.label, refs, 2**62)
    again = stream_states(ledger.deps, ledger.ledger_id, category="ward")

    assert {snapshot.stream_version for snapshot in found.values()} == {EVERY}
    assert again == first
    assert again.states == [(ref, naive(ledger, ref, 2**62)) for ref in refs]


def test_an_erasure_between_two_pages_holds_for_the_second(ledger: Ledger) -> None:
    """Each page looks at the keys anew (I7)."""
    ledger.append(*[a_visit(str(n), stream=f"patient-{n}", subject="patient:A") for n in range(4)])
    first = stream_states(ledger.deps, ledger.ledger_id, category="patient", limit=2)
    ledger.erase("patient:A")

    second = stream_states(ledger.deps, ledger.ledger_id, cursor=first.next, limit=2)

    assert [state.state for _, state in first.states] == [{"crp": 12}] * 2
    assert [(state.state, state.complete) for _, state in second.states] == [({}, False)] * 2


# By Hypothesis


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 2) | OBJECTS, max_size=2),
        st.none() | st.integers(0, 20),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.data())
def test_any_history_is_folded_alike_from_any_snapshot(
    backend: Backend, steps: list[tuple[int, JsonObject, int | None]], data: st.DataObject
) -> None:
    """With a snapshot wherever one could have been left, at any moment of either axis, before and after an erasure."""
    ledger = backend.new_ledger()
    for stream, patch, occurred_at in steps:
        when = {"occurred_at": an_occurrence(occurred_at)} if occurred_at is not None else {}
        event = a_visit(stream="ward-1", subject=f"patient:{stream}", data=patch, **when)
        ledger.append_one({**event, "nonpersonal": {"n": stream}})
    (ref,) = streams(ledger, "ward")

    def check() -> None:
        position = data.draw(st.integers(-1, ledger.size() - 1), label="position")
        moment = data.draw(st.none() | st.sampled_from(sorted({occurred(row) for row in ledger.recorded()})))
        found = stream_state(ledger.deps, ledger.ledger_id, who(ref), at(position), moment).state
        assert found == naive(ledger, ref, position, moment)

    for version in data.draw(st.sets(st.integers(1, len(steps)), max_size=3), label="snapshots"):
        keep(ledger.deps, ledger.ledger_id, MERGE_PATCH, [(ref, naive(ledger, ref, version - 1))])
    check()
    ledger.erase(f"patient:{steps[0][0]}")
    check()
