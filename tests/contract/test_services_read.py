"""Query: every filter as a naive reader would apply it, pages that stay right, and moments that never change."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from ledger.domain.events import OpenedEvent, OpenedPart
from ledger.domain.query import AsOf, EventQuery, Moment, NameOrRef
from ledger.errors import DependencyError, InvalidError, NotFoundError
from ledger.ports import HeadLock, KeyVault
from ledger.services.read import export_each, export_events, find_stream, get_event, query_each, query_events
from ledger.services.subjects import describe_subject
from ledger.services.timetravel.state import stream_state
from tests.support.ledgers import PRIVACY_OFFICER, WRITER, Backend, Ledger, a_fact, a_visit, all_positions, who
from tests.support.statements import noted_statements

CORRELATIONS = [f"0193a5e0-7c00-7000-8000-00000000c0{number:02}" for number in range(3)]
PEOPLE = ["patient:A", "patient:B", "patient:C"]
EVERYTHING = EventQuery()


@pytest.fixture(scope="module")
def filled(backend: Backend) -> Ledger:
    """A ledger with fifty events of every kind, in batches, none of them erased."""
    ledger = backend.new_ledger()
    dice = random.Random(7)
    while ledger.size() < 50:
        batch = [_some_event(dice) for _ in range(dice.randint(1, 4))]
        ledger.append(*batch, by=dice.choice([WRITER, PRIVACY_OFFICER]))
    return ledger


def _some_event(dice: random.Random) -> dict[str, Any]:
    event: dict[str, Any] = {
        "stream": dice.choice(["patient-A", "patient-B", "ward-ER", "ward-ICU"]),
        "type": dice.choice(["Visit", "CRP", "Opened"]),
        "nonpersonal": {"n": dice.randint(0, 9)},
    }
    if dice.random() < 0.7:
        purpose = dice.choice(["", "medical"])
        event |= {"subject": dice.choice(PEOPLE), "purpose": purpose, "data": {"x": dice.randint(0, 9)}}
    if dice.random() < 0.5:
        event["actor"] = dice.choice(["group:L", "group:M", "patient:A"])
    if dice.random() < 0.3:
        event["parts"] = [{"subject": name} for name in dice.sample(PEOPLE, dice.randint(1, 2))]
    if dice.random() < 0.5:
        event["correlation_id"] = dice.choice(CORRELATIONS)
    if dice.random() < 0.6:
        event["occurred_at"] = f"2014-10-22T11:15:{dice.randint(0, 9):02}Z"
    return event


def occurred(event: OpenedEvent) -> int:
    """An event without occurred-at occurred when it was recorded."""
    occurred_at = event.recorded.envelope.occurred_at
    return event.recorded.recorded_at if occurred_at is None else occurred_at


def people(event: OpenedEvent) -> list[OpenedPart]:
    """Everybody in an event."""
    return [part for part in (event.subject, event.actor, *event.further) if part is not None]


def naive(events: Sequence[OpenedEvent], query: EventQuery) -> list[int]:
    """The positions that a query must give: each condition as the contract says it, on the opened events."""

    def is_named(part: OpenedPart | None, wanted: NameOrRef) -> bool:
        return part is not None and (part.subject_ref == wanted.ref if wanted.ref else part.subject == wanted.name)

    def within(value: int, first: int | None, beyond: int | None) -> bool:
        return (first is None or value >= first) and (beyond is None or value < beyond)

    def matches(event: OpenedEvent) -> bool:
        recorded, envelope = event.recorded, event.recorded.envelope
        streams = (None, NameOrRef(event.stream, None), NameOrRef(None, envelope.stream_ref))
        return (
            query.stream in streams
            and recorded.stream_version > query.after_version
            and query.category in (None, envelope.category)
            and (not query.types or envelope.event_type in query.types)
            and (query.subject is None or is_named(event.subject, query.subject))
            and (query.actor is None or is_named(event.actor, query.actor))
            and (query.involving is None or any(is_named(part, query.involving) for part in people(event)))
            and query.correlation_id in (None, envelope.correlation_id)
            and query.recorded_by in (None, recorded.recorded_by)
            and within(recorded.recorded_at, query.recorded_from, query.recorded_to)
            and within(occurred(event), query.occurred_from, query.occurred_to)
            and recorded.position > query.after_position
            and (query.as_of is None or query.as_of.position is None or recorded.position <= query.as_of.position)
            and (query.as_of is None or query.as_of.time is None or recorded.recorded_at <= query.as_of.time)
        )

    found = [event for event in events if matches(event)]
    found.sort(key=lambda event: event.recorded.position)
    if query.order_by == "occurred":
        found.sort(key=occurred)
    return all_positions(found if query.order == "asc" else reversed(found))


def paged(ledger: Ledger, query: EventQuery, limit: int, between: Callable[[], None] = lambda: None) -> list[int]:
    """All positions of a query, page by page."""
    page = query_events(ledger.deps, ledger.ledger_id, query, cursor=None, limit=limit)
    found = all_positions(page.events)
    while page.next is not None:
        assert len(page.events) == limit
        between()
        # The query may stand beside its cursor or be left out.
        again = query if len(found) % 2 else None
        page = query_events(ledger.deps, ledger.ledger_id, again, cursor=page.next, limit=limit)
        found += all_positions(page.events)
    return found


def some_values(events: Sequence[OpenedEvent], dice: random.Random) -> dict[str, list[Any]]:
    """For each field of a query some values that matter."""
    times = sorted({event.recorded.recorded_at for event in events})
    near = [time + step for time in dice.sample(times, 3) for step in (-1, 0, 1)]
    occurrences = sorted({occurred(event) for event in events})
    around = [time + step for time in dice.sample(occurrences, 3) for step in (-1, 0, 1)]
    refs = {part.subject: part.subject_ref for event in events for part in people(event) if part.subject}
    persons = [NameOrRef(name, None) for name in refs] + [NameOrRef(None, ref) for ref in refs.values()]
    stream_refs = sorted({event.recorded.envelope.stream_ref for event in events})
    nobody = NameOrRef("nobody", None)
    return {
        "stream": [
            *(NameOrRef(name, None) for name in ("patient-A", "ward-ER", "no-such")),
            *(NameOrRef(None, ref) for ref in stream_refs),
        ],
        "after_version": [0, 1, 5, 99],
        "category": ["patient", "ward", "none"],
        "types": [("Visit",), ("CRP", "Opened"), ("None",), ("Visit", "None")],
        "subject": [*persons, nobody, NameOrRef(None, b"?" * 16)],
        "actor": [*persons, nobody],
        "involving": [*persons, nobody],
        "correlation_id": [UUID(text) for text in CORRELATIONS],
        "recorded_by": [WRITER, PRIVACY_OFFICER, UUID(int=1)],
        "recorded_from": [0, *near],
        "recorded_to": [0, *near, times[-1] + 10**9],
        "occurred_from": [0, *around],
        "occurred_to": [0, *around],
        "after_position": [-1, 0, 20, 49, 70],
        "as_of": [AsOf(position=n) for n in (0, 17, 49)]
        + [AsOf(time=time) for time in (0, *near) if time <= times[-1]],
    }


def test_each_filter_alone(filled: Ledger) -> None:
    """Every value of every filter, in both orders of both axes, gives what a naive reader would pick."""
    events = filled.query()
    assert len(events) >= 50
    dice = random.Random(3)
    for field, values in some_values(events, dice).items():
        for value in values:
            query = EventQuery(
                **{field: value}, order_by=dice.choice(["recorded", "occurred"]), order=dice.choice(["asc", "desc"])
            )
            assert naive(events, query) == filled.positions(
                **{field: value}, order_by=query.order_by, order=query.order
            )


def test_filters_together(filled: Ledger) -> None:
    """Any combination of filters is all of them at once, on pages of any size, and the same as an export."""
    events = filled.query()
    dice = random.Random(11)
    values = some_values(events, dice)
    sizes = []
    for _ in range(120):
        fields = {field: dice.choice(values[field]) for field in dice.sample(sorted(values), dice.randint(1, 3))}
        query = EventQuery(**fields, order_by=dice.choice(["recorded", "occurred"]), order=dice.choice(["asc", "desc"]))
        expected = naive(events, query)
        sizes.append(len(expected))
        assert paged(filled, query, dice.choice([1, 2, 7, 1000]) if len(expected) < 12 else 9) == expected
        if dice.random() < 0.3:
            exported = [event for page in export_events(filled.deps, filled.ledger_id, query) for event in page]
            assert all_positions(exported) == expected
    assert sum(size > 0 for size in sizes) > 20


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("order_by", ["recorded", "occurred"])
def test_pages_join_whatever_their_size(filled: Ledger, order_by: Any, order: Any) -> None:
    """No event is skipped or given twice at a page's edge, events of one occurred-at neither."""
    query = EventQuery(order_by=order_by, order=order)
    expected = naive(filled.query(), query)
    for limit in (1, 2, 3, 10, len(expected) - 1, len(expected), len(expected) + 1):
        assert paged(filled, query, limit) == expected


@pytest.mark.parametrize(("most", "size", "lengths"), [(7, 2**20, {7}), (7, 1, {1}), (50, 3000, set(range(2, 40)))])
def test_pages_of_an_export_join_whatever_their_size(
    filled: Ledger, monkeypatch: pytest.MonkeyPatch, most: int, size: int, lengths: set[int]
) -> None:
    """Pages are bounded by events and by bytes, and neither bound loses an event or gives one twice."""
    monkeypatch.setattr("ledger.services.read._FIRST_PAGE", 3)
    monkeypatch.setattr("ledger.services.read.EXPORT_PAGE", most)
    monkeypatch.setattr("ledger.services.read.EXPORT_BYTES", size)
    pages = list(export_events(filled.deps, filled.ledger_id, EventQuery(order="desc")))
    assert [event for page in pages for event in page] == list(reversed(filled.query()))
    assert len(pages[0]) == 3
    assert {len(page) for page in pages[1:-1]} <= lengths


def test_a_page_that_opens_its_events_one_by_one_is_the_same_page(filled: Ledger) -> None:
    """The same events, moment and cursor; of an export the same events, page by page."""
    deps, ledger_id = filled.deps, filled.ledger_id
    for as_recorded in (False, True):
        whole = query_events(deps, ledger_id, EventQuery(), cursor=None, limit=7, as_recorded=as_recorded)
        each = query_each(deps, ledger_id, EventQuery(), cursor=None, limit=7, as_recorded=as_recorded)
        assert (whole.as_of, whole.events, whole.next) == (each.as_of, list(each.events), each.next)
        pages = export_events(deps, ledger_id, EventQuery(), as_recorded=as_recorded)
        assert list(pages) == [
            list(page) for page in export_each(deps, ledger_id, EventQuery(), as_recorded=as_recorded)
        ]


class NoVault:
    """A vault that cannot be asked for keys."""

    def __init__(self, vault: KeyVault) -> None:
        self._vault = vault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vault, name)

    def look_up_keys(self, *_: object, **__: object) -> Any:
        """It is down."""
        raise DependencyError("the key vault is down")


def test_the_keys_of_a_page_are_looked_at_before_its_first_event_is_taken(ledger: Ledger) -> None:
    """So that a vault that is down is told before anything is sent, and never in the middle of a page."""
    ledger.append(a_visit("A"))
    down = ledger.with_parts(vault=NoVault(ledger.deps.vault))
    with pytest.raises(DependencyError):
        query_each(down.deps, ledger.ledger_id, EventQuery(), cursor=None, limit=7)
    pages = export_each(down.deps, ledger.ledger_id, EventQuery())
    with pytest.raises(DependencyError):
        next(pages)


def test_a_page_asks_for_each_thing_once(ledger: Ledger) -> None:
    """However many people it is about: the head, the events, the dead among their keys, the types; and the vault once,
    for all the keys."""
    ledger.append(*(a_visit(f"{number}") for number in range(60)))
    with (
        noted_statements(ledger.backend.engine) as of_ledger,
        noted_statements(ledger.backend.vault.engine) as of_vault,
    ):
        page = query_each(ledger.deps, ledger.ledger_id, EventQuery(), cursor=None, limit=50)
        shown = list(page.events)
    assert len({event.subject.subject for event in shown if event.subject is not None}) == 50
    assert (len(of_ledger), len(of_vault)) == (4, 1)


def test_an_export_looks_at_the_keys_when_a_page_begins(ledger: Ledger) -> None:
    """What is erased before that is redacted in it, though the export began earlier (I7)."""
    ledger.append(*(a_visit("A") for _ in range(3)))
    pages = export_each(ledger.deps, ledger.ledger_id, EventQuery())
    ledger.erase("patient:A")
    shown = [event for page in pages for event in page if event.recorded.envelope.category == "patient"]
    assert [event.redactions[0].reason for event in shown] == ["erased"] * 3
    assert [event.subject.data for event in shown if event.subject is not None] == [None] * 3


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("order_by", ["recorded", "occurred"])
def test_a_cursor_pins_its_moment(ledger: Ledger, order_by: Any, order: Any) -> None:
    """Events that are appended between two pages are in neither, whenever they occurred."""
    for number in range(7):
        ledger.append(a_visit("A", occurred_at=f"2014-10-22T11:15:{number % 3:02}Z"))
    query = EventQuery(order_by=order_by, order=order)
    expected = naive(ledger.query(), query)

    def append() -> None:
        ledger.append(a_visit("A", occurred_at="2014-10-22T11:15:01Z"), a_visit("B"))

    assert paged(ledger, query, 2, append) == expected
    assert ledger.size() > 7


def test_a_cursor_belongs_to_its_query_and_ledger(filled: Ledger, backend: Backend) -> None:
    """Beside another query, or in another ledger, it is refused with its place."""
    deps, ledger_id = filled.deps, filled.ledger_id
    cursor = query_events(deps, ledger_id, EVERYTHING, cursor=None, limit=2).next
    changes: list[dict[str, Any]] = [{"category": "ward"}, {"order": "desc"}, {"as_of": AsOf(position=3)}]
    for change in changes:
        with pytest.raises(InvalidError) as caught:
            query_events(deps, ledger_id, replace(EVERYTHING, **change), cursor=cursor, limit=2)
        assert [fault.pointer for fault in caught.value.faults] == ["/cursor"]
    other = backend.new_ledger()
    with pytest.raises(InvalidError) as caught:
        query_events(other.deps, other.ledger_id, None, cursor=cursor, limit=2)
    assert [fault.pointer for fault in caught.value.faults] == ["/cursor"]


# Moments


def test_as_of_a_time_includes_exactly_what_was_recorded_by_then(ledger: Ledger) -> None:
    """At a recorded-at: that event too. A microsecond earlier: not. Before the first event: nothing."""
    times = [ledger.append_one(a_fact()).recorded_at for _ in range(4)]
    deps, ledger_id = ledger.deps, ledger.ledger_id

    def answer(as_of: AsOf | None) -> tuple[Moment, list[int]]:
        page = query_events(deps, ledger_id, EventQuery(as_of=as_of), cursor=None, limit=99)
        return page.as_of, all_positions(page.events)

    for position, time in enumerate(times):
        assert answer(AsOf(time=time)) == (Moment(position, time), list(range(position + 1)))
        assert answer(AsOf(position=position)) == (Moment(position, time), list(range(position + 1)))
        before = Moment(position - 1, times[position - 1] if position else None)
        assert answer(AsOf(time=time - 1)) == (before, list(range(position)))
    assert answer(AsOf(time=0)) == answer(AsOf(time=-5)) == (Moment(-1, None), [])
    assert answer(None) == answer(AsOf(time=ledger.backend.clock.now)) == (Moment(3, times[3]), [0, 1, 2, 3])


def test_the_answer_that_a_moment_resolved_to_can_be_asked_again(ledger: Ledger) -> None:
    """The position before the first event too; below it there is nothing to ask about."""
    ledger.append(a_fact())
    assert ledger.positions(as_of=AsOf(position=-1)) == []
    for position in (-2, -(2**70)):
        with pytest.raises(InvalidError) as caught:
            ledger.query(as_of=AsOf(position=position))
        assert [fault.pointer for fault in caught.value.faults] == ["/as_of"]


def test_the_future_is_refused(ledger: Ledger) -> None:
    """Nobody knows what will have been recorded by then: a time ahead of the clock, a position not there yet."""
    for position in (0, 5):
        with pytest.raises(InvalidError):
            ledger.query(as_of=AsOf(position=position))
    ledger.append(a_fact())
    for as_of in (AsOf(position=1), AsOf(position=2**80), AsOf(time=ledger.backend.clock.now + 10**6)):
        with pytest.raises(InvalidError) as caught:
            ledger.query(as_of=as_of)
        assert [fault.pointer for fault in caught.value.faults] == ["/as_of"]


def test_a_moment_waits_for_those_who_may_still_record_in_it(ledger: Ledger) -> None:
    """The answer for one moment never changes: an event that has its recorded-at and is not committed is waited for."""
    ledger.append(a_fact())
    placed, commit = threading.Event(), threading.Event()

    class Holding:
        """Keeps the head lock until the test lets go of it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.store, name)

        @contextmanager
        def locked_head(self, ledger_id: UUID) -> Iterator[HeadLock]:
            with ledger.deps.store.locked_head(ledger_id) as lock:
                yield lock
                placed.set()
                commit.wait(20)

    answers: list[list[int]] = []
    writer = threading.Thread(target=lambda: ledger.with_parts(store=Holding()).append(a_fact()))
    writer.start()
    assert placed.wait(20)
    moment = AsOf(time=ledger.backend.clock.now)
    reader = threading.Thread(target=lambda: answers.append(ledger.positions(as_of=moment)))
    reader.start()
    reader.join(0.1)
    assert reader.is_alive()
    commit.set()
    for thread in (writer, reader):
        thread.join(20)
    assert answers == [[0, 1]]


def test_an_empty_ledger_has_a_past_too(ledger: Ledger) -> None:
    """Every moment of it is empty, and says so."""
    for as_of in (None, AsOf(time=0), AsOf(time=ledger.backend.clock.now)):
        page = query_events(ledger.deps, ledger.ledger_id, EventQuery(as_of=as_of), cursor=None, limit=5)
        assert (page.as_of, page.events, page.next) == (Moment(-1, None), [], None)


def test_an_erasure_holds_for_every_moment_of_the_past(ledger: Ledger) -> None:
    """I7: the past is shown as it was recorded, less what has been forgotten since."""
    ledger.append(a_visit("A"), a_visit("B"))
    before = ledger.query()
    ledger.erase("patient:A")
    for as_of in (AsOf(position=1), AsOf(time=before[1].recorded.recorded_at), None):
        first, second, *_ = ledger.query(as_of=as_of)
        assert (first.stream, first.subject and first.subject.data) == (None, None)
        assert first.recorded == before[0].recorded
        assert second == before[1]


def test_erased_events_are_still_found_by_name_and_ref(ledger: Ledger) -> None:
    """The name index still leads to the redacted events, by every role, until it is unlinked."""
    ledger.append(a_visit("A"), a_visit("B", parts=[{"subject": "patient:A"}]), a_fact(actor="patient:A"), a_visit("C"))
    ref = ledger.subject_ref("patient:A")
    ledger.erase("patient:A")
    for wanted in (who("patient:A"), who(ref)):
        assert ledger.positions(subject=wanted) == [0]
        assert ledger.positions(actor=wanted) == [2]
        assert ledger.positions(involving=wanted) == [0, 1, 2]
    assert ledger.positions(stream=NameOrRef("patient-A", None)) == [0]


def test_the_ledger_s_own_events_can_be_read(ledger: Ledger) -> None:
    """What an erasure recorded is found by category, by the name of its stream, and by id."""
    ledger.append(a_visit("A"))
    entry = ledger.erase("patient:A", reference="case 7").erasure.entry
    name = f"ledger-{entry.erasure_id}"
    assert ledger.positions(category="ledger") == ledger.positions(stream=NameOrRef(name, None)) == [1]
    event = get_event(ledger.deps, ledger.ledger_id, entry.erasure_id)
    assert event.recorded.position == 1
    assert event.stream == name
    assert event.nonpersonal is not None
    assert event.nonpersonal["reference"] == "case 7"
    assert event.nonpersonal["key_ids"] == [ledger.key_of("patient:A").hex()]
    assert event.redactions == ()
    assert find_stream(ledger.deps, ledger.ledger_id, NameOrRef(name, None)) == (entry.erasure_id.bytes, 1)


def test_what_is_not_there_is_not_found(ledger: Ledger) -> None:
    """Events, streams and subjects that nobody recorded."""
    ledger.append(a_visit("A"))
    deps, ledger_id = ledger.deps, ledger.ledger_id
    with pytest.raises(NotFoundError):
        get_event(deps, ledger_id, UUID(int=5))
    for stream in (
        NameOrRef("no-such", None),
        NameOrRef(None, b"?" * 16),
        NameOrRef("ledger-x", None),
        NameOrRef("x", None),
    ):
        with pytest.raises(NotFoundError):
            find_stream(deps, ledger_id, stream)
        with pytest.raises(NotFoundError):
            stream_state(deps, ledger_id, stream, None, None)
    for subject in (who("nobody"), who(b"?" * 16)):
        with pytest.raises(NotFoundError):
            describe_subject(deps, ledger_id, subject)


def test_a_subject_s_summary(ledger: Ledger) -> None:
    """How many events have a part of it in any role, and when; after the erasure the same, and since when."""
    ledger.append(a_visit("A"))
    ledger.append(a_visit("B"))
    ledger.append(a_visit("B", parts=[{"subject": "patient:A"}], actor="patient:A"))
    times = [event.recorded_at for event in ledger.recorded()]
    before = describe_subject(ledger.deps, ledger.ledger_id, who("patient:A"))
    assert (before.state, before.events, before.names, before.erased_at) == ("active", 2, 1, None)
    assert (before.first_recorded_at, before.last_recorded_at) == (times[0], times[2])
    erased_at = ledger.erase("patient:A").erasure.entry.erased_at
    after = describe_subject(ledger.deps, ledger.ledger_id, who(before.subject_ref))
    assert after == replace(before, state="erased", erased_at=erased_at)


# State


def test_state_as_of_a_position_and_a_time(ledger: Ledger) -> None:
    """The fold of the stream's events up to that moment, in the order of their versions."""
    places = [
        ledger.append_one(a_visit("A", data={"age": 85, "crp": 1})),
        ledger.append_one(a_visit("B", data={"age": 1})),
        ledger.append_one(a_visit("A", data={"crp": None, "ward": "ER"}, nonpersonal={"age": 0, "bed": 4})),
        ledger.append_one(a_visit("A", data={"bed": 5})),
    ]
    expected: list[tuple[int, dict[str, Any]]] = [
        (1, {"age": 85, "crp": 1}),
        (1, {"age": 85, "crp": 1}),
        (2, {"age": 0, "ward": "ER", "bed": 4}),
        (3, {"age": 0, "ward": "ER", "bed": 5}),
    ]
    stream = NameOrRef("patient-A", None)
    for place, (version, state) in zip(places, expected, strict=True):
        for as_of in (AsOf(position=place.position), AsOf(time=place.recorded_at)):
            answer = stream_state(ledger.deps, ledger.ledger_id, stream, as_of, None)
            assert answer.as_of == Moment(place.position, place.recorded_at)
            assert (answer.stream_ref, answer.state.stream_version) == (places[0].stream_ref, version)
            assert (answer.state.state, answer.state.complete, answer.state.hidden) == (state, True, ())
    nothing = stream_state(ledger.deps, ledger.ledger_id, stream, AsOf(time=places[0].recorded_at - 1), None)
    assert (nothing.state.stream_version, nothing.state.state) == (0, {})
    with pytest.raises(InvalidError):
        stream_state(ledger.deps, ledger.ledger_id, stream, AsOf(position=4), None)


def test_state_on_both_axes(ledger: Ledger) -> None:
    """What was known at one moment of how things had stood at another: late events count where they occurred."""
    ledger.append(a_visit("A", data={"bp": 1}, occurred_at="2020-01-01T00:00:00Z"))
    ledger.append(a_visit("A", data={"bp": 3, "x": 3}, occurred_at="2020-01-03T00:00:00Z"))
    ledger.append(a_visit("A", data={"bp": 2, "y": 2}, occurred_at="2020-01-02T00:00:00Z"))  # recorded late
    ledger.append(a_visit("A", data={"now": True}))  # occurred when it was recorded
    day = 86_400_000_000
    first = 1_577_836_800_000_000

    def state(as_of: int | None, occurred_as_of: int | None) -> tuple[int, dict[str, Any]]:
        moment = None if as_of is None else AsOf(position=as_of)
        answer = stream_state(ledger.deps, ledger.ledger_id, NameOrRef("patient-A", None), moment, occurred_as_of)
        return answer.state.stream_version, answer.state.state

    assert state(None, first - 1) == (0, {})
    assert state(None, first) == (1, {"bp": 1})
    assert state(None, first + day - 1) == (1, {"bp": 1})
    assert state(None, first + day) == (3, {"bp": 2, "y": 2})
    assert state(1, first + day) == (1, {"bp": 1})
    assert state(None, first + 2 * day) == (3, {"bp": 3, "x": 3, "y": 2})
    assert state(2, None) == (3, {"bp": 2, "x": 3, "y": 2})
    assert state(None, ledger.backend.clock.now) == (4, {"bp": 3, "x": 3, "y": 2, "now": True})


def test_a_state_with_something_hidden_says_so(ledger: Ledger) -> None:
    """An erased, restricted or unreadable part could have superseded what is shown; an actor's could not."""
    ledger.append(
        a_fact("ward-1", subject="patient:A", data={"a": 1}),
        a_fact("ward-1", subject="patient:B", data={"b": 1}, actor="group:L"),
        a_fact("ward-1", parts=[{"subject": "patient:C", "data": {"c": 1}}]),
    )
    stream = NameOrRef("ward-1", None)
    ref = find_stream(ledger.deps, ledger.ledger_id, stream)[0]

    def hidden() -> dict[str, tuple[str, int]]:
        state = stream_state(ledger.deps, ledger.ledger_id, NameOrRef(None, ref), None, None).state
        assert state.complete is (not state.hidden)
        return {entry.redaction.pointer: (entry.redaction.reason, entry.events) for entry in state.hidden}

    ledger.erase("group:L", ["actor"])
    ledger.erase("patient:C")
    assert hidden() == {}
    ledger.deps.vault.restrict(ledger.ledger_id, ledger.subject_ref("patient:B"), 1)
    assert hidden() == {"/data": ("restricted", 1)}
    ledger.deps.vault.lift_restriction(ledger.ledger_id, ledger.subject_ref("patient:B"), 1)
    ledger.erase("patient:B")
    assert hidden() == {"/data": ("erased", 1)}
    state = stream_state(ledger.deps, ledger.ledger_id, stream, None, None).state
    assert state.state == {"beds": 4, "a": 1}
