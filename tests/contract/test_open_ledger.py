"""Every method of ``OpenLedger`` hands on what it was given, to the service that it names."""

from __future__ import annotations

import itertools

import pytest

from ledger.domain.events import OpenedEvent
from ledger.domain.query import AsOf, EventQuery
from ledger.errors import InvalidError
from ledger.open_ledger import OpenLedger
from ledger.services.evolution.copying import Transform
from ledger.services.projecting.shipped import ACTIVITY, CURRENT_STATE
from ledger.services.timetravel.diff import Moments
from tests.support.accounts import ACCOUNT, TRANSFER, Deposit, Open, Transfer
from tests.support.ledgers import WRITER, Ledger, a_fact, a_visit


@pytest.fixture
def opened(ledger: Ledger) -> OpenLedger:
    """Two events of one patient, by the door for Python."""
    opened = OpenLedger(ledger.deps, ledger.ledger_id, WRITER)
    opened.append(a_visit("A", data={"crp": 1}), a_visit("A", data={"crp": 2}))
    return opened


def test_what_is_appended_can_be_asked_for(opened: OpenLedger) -> None:
    """Events, states on both axes, differences, histories; by name and by ref."""
    first, second = opened.query(limit=2).events
    assert opened.event(first.recorded.envelope.event_id) == first
    assert first.recorded.recorded_by == WRITER
    ref = first.recorded.envelope.stream_ref
    for stream in ("patient-A", ref):
        assert opened.state(stream).state.state == {"crp": 2}
        assert opened.state(stream, as_of=AsOf(position=0)).state.state == {"crp": 1}
        assert [value.value for value in opened.history(stream, "/crp").values] == [1, 2]
        (changed,) = opened.diff(stream, Moments(old_as_of=AsOf(position=0))).streams
        assert [change.change.new for change in changed.changes] == [2]
    (listed,) = opened.states(category="patient").states
    assert listed == opened.states(subject="patient:A").states[0]
    assert opened.diff_category("patient", Moments(old_as_of=AsOf(position=0))).streams[0].stream_ref == ref
    assert opened.query(EventQuery(after_position=0)).events == [second]


def test_what_is_recorded_is_followed(opened: OpenLedger) -> None:
    """By an iterator, and by a durable subscription."""
    seen: list[OpenedEvent] = []

    def enough() -> bool:
        return len(seen) >= 2

    for event in opened.follow(stream="patient-A", stop=enough):
        seen.append(event)
        if enough():
            break
    assert [event.recorded.position for event in seen] == [0, 1]
    seen.clear()
    assert opened.subscribe("all", category="patient").created_by == WRITER
    opened.consume("all", seen.append, stop=enough)
    assert [event.recorded.position for event in seen] == [0, 1]


def test_read_models_follow_and_are_read(opened: OpenLedger) -> None:
    """By stream, by subject, in a list; and a writer reads its own write."""
    opened.project(CURRENT_STATE, ACTIVITY)
    (document,) = opened.read_model_of_stream(CURRENT_STATE, "patient-A").documents
    assert document.document == {"crp": 2}
    (activity,) = opened.read_model_of_subject(ACTIVITY, "patient:A").documents
    assert activity.document["types"] == {"Visit": 2}
    assert [one.key for one in opened.read_models(CURRENT_STATE, "patient").documents] == [document.key]
    place = opened.append(a_visit("A", data={"crp": 3})).events[0]
    opened.project(CURRENT_STATE)
    answer = opened.read_model(CURRENT_STATE, document.key, min_position=place.position)
    assert answer.documents[0].document == {"crp": 3}


def test_commands_lead_to_events_and_those_to_commands(opened: OpenLedger) -> None:
    """Aggregates and process managers."""
    for name in ("ann", "bob"):
        opened.handle(ACCOUNT, f"account-{name}", Open(f"person:{name}"))
    opened.handle(ACCOUNT, "account-ann", Deposit(5))
    opened.handle(ACCOUNT, "account-ann", Transfer(5, "account-bob", "person:bob"))
    opened.run_processes(TRANSFER)
    assert opened.state("account-bob", fold=ACCOUNT.fold).state.state == {"balance": 5}


def test_types_are_registered_and_streams_copied(opened: OpenLedger) -> None:
    """A version is held to its schema; a copy ends what it was made from."""
    whole = {"type": "object", "properties": {"crp": {"type": "integer"}}}
    assert opened.register_type("Visit", schema=whole).event_type.registered_by == WRITER
    with pytest.raises(InvalidError):
        opened.append(a_visit("A", data={"crp": "high"}))
    report = opened.copy_stream("patient-A", "case-A", {"Visit": Transform(event_type="CaseVisit")})
    assert (report.events, opened.state("case-A").state.state) == (2, {"crp": 2})


def test_who_is_erased_is_erased_everywhere(opened: OpenLedger) -> None:
    """And the ledger is whole."""
    outcome = opened.erase("patient:A", ground="17(1)(b)", reference="case 1")
    assert outcome.erasure.entry.requested_by == WRITER
    state = opened.state(opened.query().events[0].recorded.envelope.stream_ref).state
    assert (state.state, state.complete) == ({}, False)
    assert opened.verify().findings == ()


def test_each_call_of_consume_is_a_consumer_of_its_own(ledger: Ledger) -> None:
    """So two threads of one process take turns at a partition, too."""
    opened = OpenLedger(ledger.deps, ledger.ledger_id, WRITER)
    opened.subscribe("mailer", partitions=1)
    ledger.append(a_fact(), a_fact())
    seen: list[int] = []

    def handle(event: OpenedEvent) -> None:
        seen.append(event.recorded.position)
        # Whoever asks meanwhile, through the same door, gets nothing.
        looks = itertools.count()
        opened.consume("mailer", lambda other: seen.append(-1), stop=lambda: next(looks) > 1)

    opened.consume("mailer", handle, stop=lambda: len(seen) >= 2)
    assert seen == [0, 1]
