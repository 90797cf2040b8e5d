"""The catalogue: what is registered holds for every append, and old events are shown in the newest shape."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from ledger.domain.catalogue import EventType, TypeDraft
from ledger.domain.events import JsonObject, OpenedEvent, Role
from ledger.domain.query import EventQuery, NameOrRef
from ledger.domain.upcasting import Upcast, Upcasters
from ledger.errors import (
    AlreadyExistsError,
    IntegrityError,
    InvalidError,
    NotFoundError,
    StreamClosedError,
    TooLargeError,
    VersionConflictError,
)
from ledger.services.appending.ingest import LineResult, Source, ingest_lines
from ledger.services.evolution.copying import copy_stream
from ledger.services.evolution.current import open_current
from ledger.services.evolution.types import Registration, get_policy, get_type, list_types, register_type, set_policy
from ledger.services.read import export_events, get_event, query_events
from ledger.storage import tables
from tests.support.ledgers import WRITER, Ledger, a_fact, a_visit, new_event_id, reasons

ADMIN = UUID("0193a5e0-7c00-7000-8000-0000000000cc")
AGE: JsonObject = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0}, "name": {"type": "string", "pattern": "^[A-Z]"}},
    "required": ["age"],
    "additionalProperties": False,
}


def register(ledger: Ledger, event_type: str = "Visit", version: int = 1, **fields: Any) -> Registration:
    """Register a version."""
    draft = TypeDraft(event_type, version, **fields)
    return register_type(ledger.deps, ledger.ledger_id, draft, ADMIN)


def refused(ledger: Ledger, *events: JsonObject) -> list[tuple[str, int]]:
    """Where events of a batch are not valid."""
    with pytest.raises(InvalidError) as caught:
        ledger.append(*events)
    assert ledger.size() == 0
    return [(fault.pointer, fault.index) for fault in caught.value.faults]


def one(ledger: Ledger) -> OpenedEvent:
    """The only event."""
    (event,) = ledger.query()
    return event


def data_of(event: OpenedEvent) -> JsonObject | None:
    """The data of an event as it is shown."""
    return event.subject.data if event.subject is not None else None


# Registering


def test_a_type_is_registered_once(ledger: Ledger) -> None:
    """The same again, in whatever order of members, changes nothing; other content is refused."""
    first = register(ledger, schema=AGE)
    again = register(ledger, schema=dict(reversed(AGE.items())))
    assert (first.duplicate, again.duplicate) == (False, True)
    assert again.event_type == first.event_type
    assert first.event_type.registered_by == ADMIN
    with pytest.raises(AlreadyExistsError):
        register(ledger, schema={"type": "object"})
    assert list(get_type(ledger.deps, ledger.ledger_id, "Visit")) == [first.event_type]


def test_versions_go_up_by_one_and_have_a_way(ledger: Ledger) -> None:
    """A gap, a step backwards and a missing way are refused at registration, and it is said what is missing."""

    def pointers(version: int, **fields: Any) -> list[str]:
        with pytest.raises(InvalidError) as caught:
            register(ledger, version=version, **fields)
        return [fault.pointer for fault in caught.value.faults]

    assert pointers(2, upcast=[]) == ["/version"]
    assert pointers(1, upcast=[]) == ["/upcast"]
    register(ledger)
    assert pointers(3, upcast=[]) == ["/version"]
    assert pointers(2) == ["/upcast"]
    assert pointers(2, upcast=[{"drop": {"path": "age"}}]) == ["/upcast/0/drop/path"]
    assert pointers(2, upcast=[], closes_stream=True) == ["/closes_stream"]
    register(ledger, version=2, upcast=[])
    register(ledger, version=3, upcast=[{"drop": {"path": "/age"}}])
    assert [each.version for each in list_types(ledger.deps, ledger.ledger_id)["Visit"]] == [1, 2, 3]


def test_a_way_may_be_in_code(ledger: Ledger) -> None:
    """Then nothing needs to be registered for it but the version."""
    register(ledger)
    with_code = with_upcasters(ledger, Upcast("Visit", 1, 2))
    assert not register(with_code, version=2).duplicate


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"event_type": "no type"}, "/type"),
        ({"event_type": "SubjectErased"}, "/type"),
        ({"version": 0}, "/version"),
        ({"schema": {"type": "strin"}}, "/schema/type"),
        ({"schema": {"requried": ["a"]}}, "/schema/requried"),
        ({"schema": {"$ref": "https://example.com/schema"}}, "/schema/$ref"),
        ({"schema": {"properties": {"a": {"$ref": "#/$defs/b"}}}}, "/schema/properties/a/$ref"),
        ({"schema": {"$ref": "#"}}, "/schema"),
        ({"schema": {"properties": {"a": {"pattern": "(?=a)"}}}}, "/schema/properties/a/pattern"),
        ({"schema": {"patternProperties": {"^a": {}}}}, "/schema/patternProperties"),
        ({"schema": {"default": 2**64}}, "/schema"),
        ({"nonpersonal_schema": {"$id": "x"}}, "/nonpersonal_schema/$id"),
    ],
)
def test_what_cannot_be_registered(ledger: Ledger, fields: dict[str, Any], pointer: str) -> None:
    """Reserved types, and schemas that are wrong, reach out, run in circles or could hang an append."""
    with pytest.raises(InvalidError) as caught:
        register(ledger, **fields)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]
    assert list_types(ledger.deps, ledger.ledger_id) == {}


def test_a_schema_is_bounded_in_size_and_depth(ledger: Ledger) -> None:
    """64 KiB for a version, and 64 levels."""
    with pytest.raises(TooLargeError):
        register(ledger, schema={"description": "x" * 2**16})
    deep: JsonObject = {}
    for _ in range(40):
        deep = {"properties": {"a": deep}}
    with pytest.raises(InvalidError):
        register(ledger, schema=deep)


def test_of_several_who_register_a_version_at_once_one_wins(ledger: Ledger) -> None:
    """The others are told so, or that theirs is the same; no version ever says two things."""
    outcomes: list[object] = []
    start = threading.Barrier(6)

    def run(number: int) -> None:
        start.wait()
        try:
            outcomes.append(register(ledger, schema={"title": str(number % 2)}).duplicate)
        except AlreadyExistsError:
            outcomes.append("other")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["False", "True", "True", "other", "other", "other"]
    assert len(get_type(ledger.deps, ledger.ledger_id, "Visit")) == 1


def test_ledgers_have_catalogues_of_their_own(ledger: Ledger) -> None:
    """What one registers does not hold for another."""
    register(ledger, schema=AGE)
    other = ledger.backend.new_ledger()
    other.append(a_visit(data={"anything": 1}))
    with pytest.raises(NotFoundError):
        get_type(other.deps, other.ledger_id, "Visit")


def test_the_database_refuses_to_change_what_is_registered(ledger: Ledger) -> None:
    """The catalogue is append-only, too."""
    register(ledger, schema=AGE)
    for statement in (sa.update(tables.event_types).values(definition="{}"), sa.delete(tables.event_types)):
        with pytest.raises(sa.exc.DatabaseError):
            ledger.backend.execute(statement)


# Appending


def test_events_are_held_to_the_schema_of_their_type(ledger: Ledger) -> None:
    """Every event of a batch, with its place; nothing is recorded if one does not fit."""
    register(ledger, schema=AGE, nonpersonal_schema={"required": ["ward"]})
    fits = a_visit(data={"age": 85}, nonpersonal={"ward": "ER"})
    assert refused(
        ledger,
        fits,
        a_visit(data={"age": -1}, nonpersonal={"ward": "ER"}),
        a_visit(data={"age": 1, "name": "ada"}),
        {"stream": "patient-A", "type": "Visit", "nonpersonal": {"ward": "ER"}},
    ) == [
        ("/events/1/data/age", 1),
        ("/events/2/data/name", 2),
        ("/events/2/nonpersonal/ward", 2),
        ("/events/3/data/age", 3),
    ]
    ledger.append(fits, a_fact())
    ledger.assert_intact()


def test_an_error_repeats_nothing_that_the_schema_does_not_say(ledger: Ledger) -> None:
    """I5: neither values nor names of properties that are somebody's data; the keyword, and the place as far as it is
    the schema's."""
    people = {"additionalProperties": {"properties": {"age": {"type": "integer"}}, "additionalProperties": False}}
    register(
        ledger, schema={"properties": {"people": people, "kind": {"enum": ["a"]}}, "propertyNames": {"maxLength": 6}}
    )
    with pytest.raises(InvalidError) as caught:
        ledger.append(
            a_visit(data={"people": {"Ada Lovelace": {"age": "forty-two"}}, "kind": "secret"}),
            a_visit(data={"people": {"Ada": {"Lovelace": 1}}, "Ada Lovelace": 1}),
        )
    faults = {(fault.pointer, fault.details["keyword"]) for fault in caught.value.faults}
    assert faults == {
        ("/events/0/data/people", "type"),
        ("/events/0/data/kind", "enum"),
        ("/events/1/data/people", "additionalProperties"),
        ("/events/1/data", "maxLength"),
    }
    told = repr(caught.value.faults) + str(caught.value)
    assert not any(secret in told for secret in ("Ada", "Lovelace", "forty-two", "secret"))
    assert caught.value.__cause__ is None


def test_writers_upgrade_at_their_own_pace(ledger: Ledger) -> None:
    """Every registered version may still be appended; one that is not registered may not."""
    register(ledger, schema=AGE)
    register(ledger, version=2, schema={"required": ["years"]}, upcast=[{"rename": {"from": "/age", "to": "/years"}}])
    assert refused(ledger, a_visit(schema_version=3, data={"years": 1})) == [("/events/0/schema_version", 0)]
    ledger.append(a_visit(data={"age": 1}), a_visit(schema_version=2, data={"years": 2}))
    assert [data_of(event) for event in ledger.query()] == [{"years": 1}, {"years": 2}]


def test_a_strict_ledger_takes_registered_types_only(ledger: Ledger) -> None:
    """Policy ``strict_types``; what the service itself records is not concerned."""
    assert not get_policy(ledger.deps, ledger.ledger_id).strict_types
    set_policy(ledger.deps, ledger.ledger_id, {"strict_types": True})
    assert get_policy(ledger.deps, ledger.ledger_id).strict_types
    assert refused(ledger, a_visit(), a_fact()) == [("/events/0/type", 0), ("/events/1/type", 1)]
    register(ledger)
    ledger.append(a_visit())
    ledger.erase("patient:A")
    set_policy(ledger.deps, ledger.ledger_id, {})
    ledger.append(a_fact())
    with pytest.raises(InvalidError):
        set_policy(ledger.deps, ledger.ledger_id, {"strict": True})


def test_a_repeat_stays_a_repeat(ledger: Ledger) -> None:
    """I4: what was right when it was recorded is answered with the first result, whatever was registered since."""
    event = a_visit(id=new_event_id(), data={"anything": 1})
    first = ledger.append(event)
    register(ledger, schema=AGE)
    register(ledger, version=2, upcast=[{"drop": {"path": "/anything"}}])
    set_policy(ledger.deps, ledger.ledger_id, {"strict_types": True})
    again = ledger.append(event)
    assert again.duplicate
    assert again.events == first.events


def test_a_bad_line_does_not_lose_the_good_ones(ledger: Ledger) -> None:
    """NDJSON: each line that does not fit is refused by itself."""
    register(ledger, schema=AGE)
    lines = [b'{"stream":"p-%d","type":"Visit","subject":"p:%d","data":{"age":%d}}' % (n, n, n - 2) for n in range(6)]
    results = list(ingest_lines(ledger.deps, ledger.ledger_id, lines, Source(WRITER, None)))
    assert [result.error is None for result in results] == [False, False, True, True, True, True]
    assert [fault.pointer for fault in _faults(results[0])] == ["/data/age"]
    assert ledger.size() == 4


def _faults(result: LineResult) -> Iterator[Any]:
    assert result.error is not None
    yield from result.error.faults


def test_many_bad_events_are_each_told(ledger: Ledger) -> None:
    """However many faults there are, every event that is wrong has one."""
    register(ledger, schema={"required": [f"field{number}" for number in range(15)]})
    with pytest.raises(InvalidError) as caught:
        ledger.append(*(a_visit(str(number)) for number in range(50)))
    assert {fault.index for fault in caught.value.faults} == set(range(50))
    assert len(caught.value.faults) < 250


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        ({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 200_000 + "b"}),
        ({"properties": {"a": {"pattern": "(a*)*(a*)*(a*)*(a*)*b"}}}, {"a": "a" * 100_000}),
        ({"properties": {"a": {"uniqueItems": True, "minItems": 30_001}}}, {"a": [{"n": n} for n in range(30_000)]}),
        (
            {"$defs": {"n": {"properties": {"a": {"allOf": [{"$ref": "#/$defs/n"}] * 2}}}}, "$ref": "#/$defs/n"},
            {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}}}}}}}}},
        ),
    ],
)
def test_no_schema_hangs_an_append(ledger: Ledger, schema: JsonObject, data: JsonObject) -> None:
    """Patterns, comparisons and recursion that would take ages elsewhere are refused or answered in a moment."""
    register(ledger, schema=schema)
    assert [pointer for pointer, _ in refused(ledger, a_visit(data=data))] in (["/events/0/data"], ["/events/0/data/a"])


# Reading


def with_upcasters(ledger: Ledger, *ways: Upcast) -> Ledger:
    """The same ledger, as code with ways of its own sees it."""
    return replace(ledger, deps=replace(ledger.deps, upcasters=Upcasters.of(*ways)))


def test_old_events_are_shown_in_the_newest_shape(ledger: Ledger) -> None:
    """The recorded bytes and their version stay; pages, exports and single events show the new shape, or the old one
    where that is asked for."""
    place = ledger.append_one(a_visit(data={"first": "Ada", "last": "Lovelace"}, nonpersonal={"ward": "ER"}))
    before = ledger.recorded()
    register(ledger)
    full_name = {"template": {"path": "/full_name", "template": "{/first} {/last}"}}
    register(ledger, version=2, upcast=[full_name, {"move": {"from": "/ward", "to": "/at/ward"}, "in": "nonpersonal"}])
    register(ledger, version=3, upcast=[{"drop": {"path": "/first"}}, {"default": {"path": "/crp", "value": 0}}])
    deps, ledger_id, question = ledger.deps, ledger.ledger_id, EventQuery()

    shown = [
        one(ledger),
        get_event(deps, ledger_id, place.event_id),
        *next(iter(export_events(deps, ledger_id, question))),
    ]
    raw = [
        *query_events(deps, ledger_id, question, cursor=None, limit=5, as_recorded=True).events,
        get_event(deps, ledger_id, place.event_id, as_recorded=True),
        *next(iter(export_events(deps, ledger_id, question, as_recorded=True))),
    ]

    for event in shown:
        assert (event.schema_status, event.shown_version) == ("upcast", 3)
        assert event.recorded.envelope.schema_version == 1
        assert data_of(event) == {"last": "Lovelace", "full_name": "Ada Lovelace", "crp": 0}
        assert event.nonpersonal == {"at": {"ward": "ER"}}
    for event in raw:
        assert (event.schema_status, event.shown_version) == ("as-recorded", 1)
        assert data_of(event) == {"first": "Ada", "last": "Lovelace"}
    assert ledger.recorded() == before
    ledger.assert_intact()


def test_ways_in_code(ledger: Ledger) -> None:
    """Where the code is; elsewhere the event is shown raw and flagged. What is hidden is not shown to functions."""
    ledger.append(a_visit(data={"crp": 1}), a_visit("B", data={"crp": 2}))
    register(ledger)
    seen: list[object] = []

    def in_milligrams(data: JsonObject) -> JsonObject:
        seen.append(data)
        return {"crp_mg": data["crp"]}

    code = with_upcasters(ledger, Upcast("Visit", 1, 2, data=in_milligrams))
    register(code, version=2)
    ledger.erase("patient:B")
    assert [data_of(event) for event in code.query(category="patient")] == [{"crp_mg": 1}, None]
    assert seen == [{"crp": 1}]
    assert [event.schema_status for event in ledger.query(category="patient")] == ["unknown-version"] * 2
    assert [data_of(event) for event in ledger.query(category="patient")] == [{"crp": 1}, None]


def test_a_way_that_fails_hides_no_event(ledger: Ledger) -> None:
    """It is shown as recorded, flagged, and nobody is alarmed: nothing that is stored is wrong."""
    ledger.append(a_visit(data={"crp": 1}), a_fact())
    register(ledger)
    code = with_upcasters(ledger, Upcast("Visit", 1, 2, data=lambda data: {"crp": data["missing"]}))
    register(code, version=2)
    first, second = code.query()
    assert (first.schema_status, first.shown_version, data_of(first)) == ("failed", 1, {"crp": 1})
    assert second.schema_status == "unregistered"
    assert ledger.alarms == []


def test_redactions_stay_what_they_are(ledger: Ledger) -> None:
    """No default and no template puts anything where somebody's data was erased."""
    ledger.append(a_visit(data={"name": "x"}, nonpersonal={"ward": 1}))
    register(ledger)
    steps = [{"default": {"path": "/d", "value": 1}}, {"default": {"path": "/d", "value": 1}, "in": "nonpersonal"}]
    register(ledger, version=2, upcast=steps)
    ledger.erase("patient:A")
    event = ledger.event_at(0)
    assert data_of(event) is None
    assert event.nonpersonal == {"ward": 1, "d": 1}
    assert reasons(event) == {"/data": "erased"}


def test_only_what_is_opened_is_led_up(ledger: Ledger) -> None:
    """A fold that looks at no personal part gets none by way of an upcast."""
    ledger.append(a_visit(data={"name": "x"}, nonpersonal={"ward": 1}))
    register(ledger)
    register(ledger, version=2, upcast=[{"default": {"path": "/d", "value": 1}}])
    (event,) = open_current(ledger.deps, ledger.ledger_id, ledger.recorded(), [Role.NONPERSONAL])
    assert event.subject is None
    assert event.opened_keys == ()


def test_the_catalogue_is_read_once(ledger: Ledger) -> None:
    """As long as nothing is registered, an append costs one count; and what another process registers holds at once."""
    register(ledger, schema=AGE)
    ledger.append(a_visit(data={"age": 1}))
    counting = _Counting(ledger.deps.catalogues)
    counted = replace(ledger, deps=replace(ledger.deps, catalogues=counting))
    counted.append(a_visit(data={"age": 2}))
    counted.query()
    assert counting.calls == ["catalogue_mark"] * 2
    # Past this process's cache, as another process would.
    event_type = EventType("Opened", 1, {"required": ["doors"]}, None, None, False, 0, uuid4())
    ledger.deps.catalogues.add_event_type(ledger.ledger_id, event_type)
    with pytest.raises(InvalidError):
        counted.append(a_fact(subject="x", data={}))


class _Counting:
    """A catalogue that notes what it is asked."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._inner, name)


@pytest.mark.parametrize("definition", ["", "[]", "{", '{"schema": 1, "upcast": "x"}', "[" * 100_000])
def test_a_catalogue_that_was_altered_by_hand_crashes_nobody(ledger: Ledger, definition: str) -> None:
    """Events are shown, flagged where the way is gone; and what a schema no longer says is not let through."""
    ledger.append(a_visit(), a_fact())
    register(ledger, schema=AGE)
    register(ledger, version=2, upcast=[])
    columns = tables.event_types.c
    ledger.backend.tamper(
        sa.update(tables.event_types)
        .where(columns.ledger_id == ledger.ledger_id, columns.version == 2)
        .values(definition=definition, registered_at=1)
    )
    forgetful = ledger.backend.new_ledger()
    ledger.backend.tamper(
        sa.update(tables.event_types).where(columns.ledger_id == ledger.ledger_id).values(ledger_id=forgetful.ledger_id)
    )
    forgetful.append(a_visit(data={"age": 1}))
    assert [event.schema_status for event in forgetful.query()] == ["unknown-version"]
    with pytest.raises(InvalidError):
        forgetful.append(a_visit(schema_version=2, data={"age": 1}))


def test_a_policy_that_was_altered_by_hand_stops_appends_and_not_readers(ledger: Ledger) -> None:
    """Nobody may guess what a ledger insists on."""
    ledger.append(a_visit())
    ledger.backend.execute(
        sa.update(tables.ledgers).where(tables.ledgers.c.ledger_id == ledger.ledger_id).values(policy="{")
    )
    with pytest.raises(IntegrityError):
        ledger.append(a_visit())
    assert len(ledger.query()) == 1
    set_policy(ledger.deps, ledger.ledger_id, {})
    ledger.append(a_visit())


# Streams that end


def test_a_stream_ends_with_an_event_of_a_closing_type(ledger: Ledger) -> None:
    """For every writer, whatever version is expected; other streams go on."""
    register(ledger, "Discharged", closes_stream=True)
    last = ledger.append_one(a_visit(type="Discharged"))
    for expected in ("any", 1, 5):
        with pytest.raises(StreamClosedError) as caught:
            ledger.append(a_fact(), a_visit(expected_version=expected))
        assert [(fault.pointer, fault.index) for fault in caught.value.faults] == [("/events/1/stream", 1)]
    ledger.append(a_visit("B"))
    assert ledger.size() == 2
    assert last.stream_version == 1
    ledger.assert_intact()


def test_nothing_of_a_batch_stands_behind_the_end_of_its_stream(ledger: Ledger) -> None:
    """An event that ends a stream is its last in the same batch, too."""
    register(ledger, "Discharged", closes_stream=True)
    with pytest.raises(StreamClosedError):
        ledger.append(a_visit(), a_visit(type="Discharged"), a_visit())
    assert ledger.size() == 0
    ledger.append(a_visit(), a_visit("B"), a_visit(type="Discharged"), a_visit("B"))
    with pytest.raises(StreamClosedError):
        ledger.append(a_visit(type="Discharged"))
    with pytest.raises(VersionConflictError):
        ledger.append(a_visit("B", expected_version=7))


def test_ending_a_stream_again_is_a_repeat(ledger: Ledger) -> None:
    """I4: the event that ended it may be sent again."""
    register(ledger, "Discharged", closes_stream=True)
    event = a_visit(type="Discharged", id=new_event_id())
    assert ledger.append(event).events == ledger.append(event).events


def test_of_two_who_race_one_is_behind_the_end(ledger: Ledger) -> None:
    """Under the head lock either the end or the other event comes first; never an event behind the end."""
    register(ledger, "Discharged", closes_stream=True)
    for number in range(10):
        stream = str(number)
        ledger.append(a_visit(stream))
        start = threading.Barrier(2)

        def run(event: JsonObject, start: threading.Barrier = start) -> None:
            start.wait()
            with contextlib.suppress(StreamClosedError):
                ledger.append(event)

        events = [a_visit(stream, type=event_type) for event_type in ("Visit", "Discharged")]
        threads = [threading.Thread(target=run, args=(event,)) for event in events]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    last = {event.recorded.envelope.stream_ref: event.recorded.envelope.event_type for event in ledger.query()}
    assert set(last.values()) == {"Discharged"}
    ledger.assert_intact()


def test_lines_behind_the_end_are_refused_one_by_one(ledger: Ledger) -> None:
    """NDJSON: the others are recorded."""
    register(ledger, "Discharged", closes_stream=True)
    lines = [
        b'{"stream":"p-1","type":"%s","nonpersonal":{}}' % event_type
        for event_type in (b"Visit", b"Discharged", b"Visit", b"Visit")
    ] + [b'{"stream":"p-2","type":"Visit","nonpersonal":{}}']
    results = list(ingest_lines(ledger.deps, ledger.ledger_id, lines, Source(WRITER, None)))
    assert [type(result.error) for result in results] == [
        type(None),
        type(None),
        StreamClosedError,
        StreamClosedError,
        type(None),
    ]


@pytest.mark.parametrize("edit", ["removed", "moved", "before", "beyond"])
def test_verify_sees_an_end_that_was_altered(ledger: Ledger, edit: str) -> None:
    """I10: a stream that was opened again by hand and written to, and an end that is not there."""
    register(ledger, "Discharged", closes_stream=True)
    ledger.append(a_visit(), a_visit(type="Discharged"), a_fact())
    ledger.assert_intact()
    columns = tables.closed_streams.c
    own = columns.ledger_id == ledger.ledger_id
    remove = sa.delete(tables.closed_streams).where(own)
    place = {"moved": 2, "before": 0, "beyond": 3}.get(edit)
    if place is not None:
        ledger.backend.tamper(sa.update(tables.closed_streams).where(own).values(position=place))
        found = [finding.position for finding in ledger.verify().findings]
        assert found == {"moved": [2], "before": [1], "beyond": [2]}[edit]
        return
    (kept,) = ledger.deps.store.closed_streams(ledger.ledger_id).items()
    ledger.backend.tamper(remove)
    ledger.append(a_visit())
    row = {"ledger_id": ledger.ledger_id, "stream_ref": kept[0], "position": kept[1]}
    ledger.backend.tamper(sa.insert(tables.closed_streams).values(**row))
    assert [finding.position for finding in ledger.verify().findings] == [3]


def test_verify_sees_a_superseded_stream_that_was_opened_again(ledger: Ledger) -> None:
    """I10: the log itself says that it has ended."""
    ledger.append(a_visit())
    copy_stream(ledger.deps, ledger.ledger_id, NameOrRef("patient-A", None), "person-A", {}, recorded_by=WRITER)
    ledger.assert_intact()
    own = tables.closed_streams.c.ledger_id == ledger.ledger_id
    ledger.backend.tamper(sa.delete(tables.closed_streams).where(own))
    assert [finding.position for finding in ledger.verify().findings] == [2]
