"""Projections: what readers see is the fold of the log, whatever happens to runners, keys and folds on the way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from ledger.domain.catalogue import TypeDraft
from ledger.domain.events import JsonObject, OpenedEvent, Role
from ledger.domain.partition import BY_CATEGORY, BY_DAY, BY_STREAM, BY_SUBJECT, WHOLE, Partition
from ledger.domain.projection import Projection
from ledger.domain.query import NameOrRef
from ledger.domain.times import format_time
from ledger.domain.upcasting import Upcast, Upcasters
from ledger.errors import BusyError, InvalidError, NotFoundError, StoreUnavailableError
from ledger.ports import CursorKey
from ledger.services.evolution.types import register_type
from ledger.services.projecting import runner
from ledger.services.projecting.generations import rebuild, restart
from ledger.services.projecting.read_models import (
    ReadDocument,
    key_of_stream,
    key_of_subject,
    list_documents,
    read_document,
)
from ledger.services.projecting.runner import LEASE, step
from ledger.services.projecting.shipped import ACTIVITY, CURRENT_STATE, DAILY_COUNTS, SHIPPED
from ledger.services.projecting.status import ProjectionStatus, projection_statuses, wait_for
from ledger.storage import tables
from tests.support.ledgers import WRITER, Ledger, a_fact, a_visit
from tests.support.projecting import HOLDER, assert_is_the_fold_of_the_log, position_of, run_all, shown_of

CANARY = "canary-7f3a"


def a_list(document: JsonObject, event: OpenedEvent) -> JsonObject:
    """The types of the events, in order: shows what went in, and how often."""
    return {"types": [*document.get("types", []), event.recorded.envelope.event_type]}


def seen(name: str = "seen", version: int = 1, **fields: Any) -> Projection:
    """A projection by stream that lists the types of events."""
    return Projection(name, version, fields.pop("partition", BY_STREAM), fields.pop("apply", a_list), **fields)


def state_of(ledger: Ledger, stream: str) -> ReadDocument:
    """The current state of a stream, as the read model has it."""
    key = key_of_stream(ledger.deps, ledger.ledger_id, NameOrRef(stream, None))
    return read_document(ledger.deps, ledger.ledger_id, CURRENT_STATE, key).documents[0]


def activity_of(ledger: Ledger, subject: str) -> ReadDocument:
    """The activity of a person."""
    key = key_of_subject(ledger.deps, ledger.ledger_id, NameOrRef(subject, None))
    return read_document(ledger.deps, ledger.ledger_id, ACTIVITY, key).documents[0]


def run(ledger: Ledger, *projections: Projection, holder: UUID = HOLDER) -> None:
    """Run projections (none given: those that are shipped) until nothing is left to do."""
    run_all(ledger.deps, ledger.ledger_id, projections or tuple(SHIPPED.values()), holder)


def status_of(ledger: Ledger, name: str, generation: int = 1) -> ProjectionStatus:
    """The status of one generation."""
    statuses = projection_statuses(ledger.deps, ledger.ledger_id)
    return next(one for one in statuses if one.cursor.key == CursorKey("projection", name, generation))


def today(ledger: Ledger) -> str:
    """The day that the ledger's clock shows."""
    return format_time(ledger.backend.clock.now)[:10]


def rows_of(ledger: Ledger, name: str) -> Sequence[sa.Row[Any]]:
    """The stored documents of a projection."""
    columns = tables.read_models.c
    statement = sa.select(tables.read_models).where(columns.ledger_id == ledger.ledger_id, columns.projection == name)
    with ledger.backend.engine.connect() as connection:
        return connection.execute(statement).all()


def test_shipped_read_models_say_what_the_log_says(ledger: Ledger) -> None:
    """State by stream, activity by person in any role, counts by day."""
    ledger.append(
        a_visit("A", data={"crp": 12}, actor="nurse:L"),
        a_visit("A", type="Moved", data={"ward": "ICU"}, actor={"subject": "nurse:L", "data": {"ip": "x"}}),
        a_visit("B", data={"crp": 5}, parts=[{"subject": "patient:A", "data": {"contact": "y"}}]),
        a_fact(),
    )
    run(ledger)
    state = state_of(ledger, "patient-A")
    assert (state.document, state.complete, state.events) == ({"crp": 12, "ward": "ICU"}, True, 2)
    assert (state.bucket, state.position) == ("patient", 1)
    assert state_of(ledger, "ward-ER").document == {"beds": 4}
    assert activity_of(ledger, "patient:A").document["types"] == {"Visit": 2, "Moved": 1}
    assert activity_of(ledger, "nurse:L").document["types"] == {"Visit": 1, "Moved": 1}
    assert_is_the_fold_of_the_log(ledger.deps, ledger.ledger_id)
    day = today(ledger)
    page = list_documents(ledger.deps, ledger.ledger_id, DAILY_COUNTS, day[:7], cursor=None, limit=10)
    assert [(one.key.decode(), one.document) for one in page.documents] == [
        (day, {"types": {"Visit": 2, "Moved": 1, "Opened": 1}})
    ]


def test_states_are_listed_by_category(ledger: Ledger) -> None:
    """The current state of every stream of a category, in pages that meet without gap or double."""
    ledger.append(*(a_visit(str(number), data={"number": number}) for number in range(25)), a_fact())
    run(ledger)
    numbers: list[int] = []
    cursor: str | None = None
    for _ in range(3):
        page = list_documents(ledger.deps, ledger.ledger_id, CURRENT_STATE, "patient", cursor=cursor, limit=10)
        numbers += [one.document["number"] for one in page.documents]
        cursor = page.next
    assert (sorted(numbers), cursor) == (list(range(25)), None)


@pytest.mark.parametrize("name", ["no base64!", "W10", "WzEsIm90aGVyIixudWxsLCIwMCJd"])
def test_cursor_of_another_list_is_refused(ledger: Ledger, name: str) -> None:
    """What no page of this list has given is an error of the caller, not of the database."""
    run(ledger)
    with pytest.raises(InvalidError):
        list_documents(ledger.deps, ledger.ledger_id, CURRENT_STATE, None, cursor=name, limit=10)


def test_cursor_belongs_to_its_bucket(ledger: Ledger) -> None:
    """A page of another category cannot be had by swapping the question under a cursor."""
    ledger.append(*(a_visit(str(number)) for number in range(3)))
    run(ledger)
    page = list_documents(ledger.deps, ledger.ledger_id, CURRENT_STATE, "patient", cursor=None, limit=1)
    with pytest.raises(InvalidError):
        list_documents(ledger.deps, ledger.ledger_id, CURRENT_STATE, "ward", cursor=page.next, limit=1)


def test_read_model_that_nobody_runs_is_not_ready(ledger: Ledger) -> None:
    """Before the first step there is nothing to read, which is not the same as an empty read model."""
    ledger.append(a_visit())
    with pytest.raises(BusyError):
        state_of(ledger, "patient-A")
    with pytest.raises(NotFoundError):
        rebuild(ledger.deps, ledger.ledger_id, "current_state")
    with pytest.raises(NotFoundError):
        state_of(ledger, "patient-X")


def test_unknown_types_fall_through(ledger: Ledger) -> None:
    """A fold that knows some types lets all others pass."""

    def balance(document: JsonObject, event: OpenedEvent) -> JsonObject:
        match event.recorded.envelope.event_type, event.subject:
            case "Deposited", subject if subject is not None and subject.data is not None:
                return {"balance": document.get("balance", 0) + subject.data["amount"]}
        return document

    account = {"stream": "account-1", "subject": "person:1"}
    ledger.append(
        {**account, "type": "Deposited", "data": {"amount": 5}},
        {**account, "type": "Audited", "data": {}},
        {**account, "type": "Deposited", "data": {"amount": 7}},
    )
    projection = seen("balance", apply=balance)
    run(ledger, projection)
    assert [document for document, _ in shown_of(ledger.deps, ledger.ledger_id, projection).values()] == [
        {"balance": 12}
    ]


@pytest.mark.parametrize(
    ("partition", "keys"),
    [(BY_CATEGORY, {b"patient", b"ward"}), (WHOLE, {b"whole"}), (BY_DAY, None)],
    ids=["category", "whole", "day"],
)
def test_documents_of_every_partition_can_be_made_again(
    ledger: Ledger, partition: Partition, keys: set[bytes] | None
) -> None:
    """Sealed documents by category, by day and of the whole ledger show an erasure like any other."""
    keys = keys or {today(ledger).encode()}
    ledger.append(a_visit("A", data={"n": 1}), a_visit("B", data={"n": 2}), a_fact())
    projection = Projection(
        "made", 1, partition, lambda document, event: {**document, **data_of(event)}, types=("Visit", "Opened")
    )
    run(ledger, projection)
    assert shown_of(ledger.deps, ledger.ledger_id, projection).keys() == keys
    ledger.erase("patient:B")
    by_category = partition is BY_CATEGORY
    for _ in range(2):
        shown = shown_of(ledger.deps, ledger.ledger_id, projection)
        assert shown[min(keys)] == ({"n": 1} if by_category else {"n": 1, "beds": 4}, False)
        assert {key for key, (_, complete) in shown.items() if complete} == ({b"ward"} if by_category else set())
        run(ledger, projection)


def data_of(event: OpenedEvent) -> JsonObject:
    """What an event says of its subject and of nobody."""
    return {**(event.nonpersonal or {}), **((event.subject.data or {}) if event.subject else {})}


def test_person_sees_only_their_own_parts(ledger: Ledger) -> None:
    """A document by subject is made of that person's parts and sealed under that person's keys alone."""
    events: list[OpenedEvent] = []

    def keep(document: JsonObject, event: OpenedEvent) -> JsonObject:
        events.append(event)
        people = [part for part in (event.subject, event.actor, *event.further) if part is not None]
        return {"names": [*document.get("names", []), *(part.subject for part in people)]}

    ledger.append(
        a_visit(
            "A",
            actor="nurse:L",
            parts=[{"subject": "patient:B", "data": {"b": 1}}, {"subject": "patient:C", "data": {"c": 1}}],
            nonpersonal={"ward": "ER"},
        )
    )
    roles = frozenset({Role.SUBJECT, Role.ACTOR, Role.FURTHER})
    run(ledger, seen("people", partition=BY_SUBJECT, apply=keep, roles=roles))
    own_keys = {ledger.key_of("patient:A"), ledger.key_of("patient:B"), ledger.key_of("patient:C")}
    own_keys.add(ledger.key_of("nurse:L", "actor"))
    assert len(events) == 4
    for event in events:
        people = [part for part in (event.subject, event.actor, *event.further) if part is not None]
        assert len(people) == 1
        assert (event.stream, event.nonpersonal, len(event.opened_keys)) == (None, None, 1)
    assert {event.opened_keys[0] for event in events} == own_keys
    assert all(len(row.key_ids) == 32 for row in rows_of(ledger, "people"))


def test_projection_without_roles_sees_nothing_sealed(ledger: Ledger) -> None:
    """What is kept in clear cannot hold what was sealed: its fold never gets to see it."""
    events: list[OpenedEvent] = []

    def keep(document: JsonObject, event: OpenedEvent) -> JsonObject:
        events.append(event)
        return a_list(document, event)

    ledger.append(a_visit("A", data={CANARY: CANARY}, actor=CANARY, nonpersonal={CANARY: 1}))
    run(ledger, seen("clear", partition=WHOLE, apply=keep, roles=frozenset()))
    event = events[0]
    assert (event.stream, event.subject, event.actor, event.further, event.nonpersonal) == (None, None, None, (), None)
    row = rows_of(ledger, "clear")[0]
    assert row.clear
    assert json.loads(row.body)["document"] == {"types": ["Visit"]}


def test_nothing_personal_stands_in_the_tables(ledger: Ledger) -> None:
    """I5: a search for marked names and data in every stored byte of the read models finds none."""
    ledger.append(
        a_visit(CANARY, data={"note": CANARY}, actor=CANARY, parts=[{"subject": CANARY, "data": {"x": CANARY}}])
    )
    run(ledger)
    for name in SHIPPED:
        assert rows_of(ledger, name)
        assert CANARY not in repr(rows_of(ledger, name))


def test_erased_person_is_gone_from_read_models_at_once(ledger: Ledger) -> None:
    """I7: also before any runner has come by; afterwards the documents are made again, without the key."""
    ledger.append(
        a_visit("A", data={"crp": 12}, actor="nurse:L", nonpersonal={"ward": "ER"}), a_visit("B", actor="nurse:L")
    )
    run(ledger)
    dead = ledger.key_of("patient:A")
    outcome = ledger.erase("patient:A")
    for _ in range(2):
        state = state_by_ref(ledger, ref_of(ledger, 0))
        assert (state.document, state.complete) == ({"ward": "ER"}, False)
        assert [(one.redaction.pointer, one.redaction.reason, one.events) for one in state.hidden] == [
            ("/data", "erased", 1)
        ]
        assert state.hidden[0].redaction.erasure_id == outcome.erasure.entry.erasure_id
        activity = activity_by_ref(ledger, "patient:A")
        assert (activity.document["types"], activity.complete) == ({"Visit": 1}, False)
        assert state_of(ledger, "patient-B").complete
        assert activity_of(ledger, "nurse:L").complete
        run(ledger)
    for name in SHIPPED:
        assert not any(dead in row.key_ids or row.provisional for row in rows_of(ledger, name))
    assert_is_the_fold_of_the_log(ledger.deps, ledger.ledger_id)
    assert ledger.alarms == []


def ref_of(ledger: Ledger, position: int) -> bytes:
    """The ref of the stream of an event."""
    return ledger.recorded()[position].envelope.stream_ref


def state_by_ref(ledger: Ledger, ref: bytes) -> ReadDocument:
    """The current state of a stream."""
    return read_document(ledger.deps, ledger.ledger_id, CURRENT_STATE, ref).documents[0]


def activity_by_ref(ledger: Ledger, subject: str) -> ReadDocument:
    """The activity of a person who may be erased."""
    return read_document(ledger.deps, ledger.ledger_id, ACTIVITY, ledger.subject_ref(subject)).documents[0]


def test_many_documents_of_one_person_are_made_again_bit_by_bit(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nurse with a part in every stream: each step makes a few documents again, and a runner that dies in between
    leaves the rest to the next one."""
    monkeypatch.setattr(runner, "REMADE_AT_ONCE", 2)
    projection = seen("with_actors", apply=actors, roles=frozenset({Role.SUBJECT, Role.ACTOR}))
    ledger.append(*(a_visit(str(number), actor="nurse:L") for number in range(7)))
    run(ledger, projection)
    dead = ledger.key_of("nurse:L", "actor")
    ledger.erase("nurse:L", ["actor"])
    left = []
    while any(dead in row.key_ids for row in rows_of(ledger, "with_actors")):
        left.append(sum(dead in row.key_ids for row in rows_of(ledger, "with_actors")))
        assert position_of(ledger.deps, ledger.ledger_id, projection) == 6
        # Another runner each time: the last one died with its lease.
        ledger.backend.clock.now += LEASE
        assert step(ledger.deps, ledger.ledger_id, [projection], uuid4())
    assert left == [7, 5, 3, 1]
    ledger.backend.clock.now += LEASE
    run(ledger, projection)
    assert position_of(ledger.deps, ledger.ledger_id, projection) == 7
    shown = [shown for key, shown in shown_of(ledger.deps, ledger.ledger_id, projection).items() if shown[0]["actors"]]
    assert shown == [({"actors": [None]}, False)] * 7


def actors(document: JsonObject, event: OpenedEvent) -> JsonObject:
    """Who acted."""
    acted = [event.actor.subject] if event.actor is not None else []
    return {"actors": [*document.get("actors", []), *acted]}


def test_erasures_reach_projections_that_are_told_of_nothing_else(ledger: Ledger) -> None:
    """A filter by category and type does not keep a projection from making documents of the erased again."""
    projection = seen("filtered", category="patient", types=("Visit",))
    ledger.append(a_visit("A"), a_visit("A", type="Moved"), a_fact())
    run(ledger, projection)
    ledger.erase("patient:A")
    run(ledger, projection)
    (row,) = rows_of(ledger, "filtered")
    assert row.key_ids == b""
    assert list(shown_of(ledger.deps, ledger.ledger_id, projection).values()) == [({"types": ["Visit"]}, False)]
    assert status_of(ledger, "filtered").behind == 0


def test_more_erasures_than_one_step_looks_after(ledger: Ledger) -> None:
    """Many erasures one after the other are all looked after."""
    people = [f"patient:{number}" for number in range(3 * runner.ERASURES_AT_ONCE)]
    ledger.append(*(a_visit(str(number)) for number in range(len(people))))
    run(ledger)
    for person in people:
        ledger.erase(person)
    run(ledger)
    assert {row.key_ids for row in rows_of(ledger, "current_state")} == {b""}
    assert_is_the_fold_of_the_log(ledger.deps, ledger.ledger_id)


def test_filter_moves_past_what_it_does_not_match(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A projection of rare events comes to the head in steps of a bounded window."""
    monkeypatch.setattr(runner, "WINDOW", 10)
    ledger.append(*(a_fact() for _ in range(25)), a_visit("A"))
    projection = seen("rare", category="patient")
    positions = []
    while step(ledger.deps, ledger.ledger_id, [projection], HOLDER):
        positions.append(position_of(ledger.deps, ledger.ledger_id, projection))
    assert positions == [9, 19, 25]
    assert list(shown_of(ledger.deps, ledger.ledger_id, projection).values()) == [({"types": ["Visit"]}, True)]


def test_restricted_person_is_hidden_and_comes_back(ledger: Ledger) -> None:
    """A restriction hides at once and is no erasure: when it is lifted, readers see everything again at once, and the
    next event of the document has it kept again."""
    ledger.append(a_visit("A", data={"crp": 12}), a_visit("B"))
    run(ledger)
    ref, vault = ledger.subject_ref("patient:A"), ledger.deps.vault
    vault.restrict(ledger.ledger_id, ref, 1)
    assert (state_of(ledger, "patient-A").document, state_of(ledger, "patient-A").complete) == ({}, False)
    assert [one.redaction.reason for one in state_of(ledger, "patient-A").hidden] == ["restricted"]
    ledger.append(a_visit("A", data={"ward": "ICU"}))
    run(ledger)
    ledger.append(a_visit("A", data={"bed": 3}))
    run(ledger)
    assert state_of(ledger, "patient-A").document == {}
    assert {row.provisional for row in rows_of(ledger, "current_state")} == {True, False}
    assert_is_the_fold_of_the_log(ledger.deps, ledger.ledger_id)
    vault.lift_restriction(ledger.ledger_id, ref, 2)
    # A hand that calls the document final does not make readers believe it.
    mine = (tables.read_models.c.ledger_id == ledger.ledger_id, tables.read_models.c.provisional)
    ledger.backend.tamper(sa.update(tables.read_models).where(*mine).values(provisional=False))
    everything = {"crp": 12, "ward": "ICU", "bed": 3}
    assert (state_of(ledger, "patient-A").document, state_of(ledger, "patient-A").complete) == (everything, True)
    ledger.append(a_visit("A", data={"bed": 4}))
    run(ledger)
    assert not any(row.provisional for row in rows_of(ledger, "current_state"))
    assert state_of(ledger, "patient-A").document == {**everything, "bed": 4}
    assert ledger.alarms == []


def test_key_that_dies_between_fold_and_seal_takes_nothing_along(ledger: Ledger) -> None:
    """An erasure in the middle of a step: what was folded with the dead key is thrown away and folded again."""
    ledger.append(a_visit("A", data={"crp": 12}), a_visit("B", data={"crp": 1}))

    class Vault:
        """Erases a person just before documents are sealed for the first time."""

        def __init__(self) -> None:
            self.armed = True

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.vault, name)

        def seal_documents(self, *arguments: Any) -> Any:
            if self.armed:
                self.armed = False
                ledger.erase("patient:A")
            return ledger.deps.vault.seal_documents(*arguments)

    run(ledger.with_parts(vault=Vault()), CURRENT_STATE)
    dead = ledger.key_of("patient:A")
    assert not any(dead in row.key_ids for row in rows_of(ledger, "current_state"))
    run(ledger)
    assert_is_the_fold_of_the_log(ledger.deps, ledger.ledger_id)


def test_document_that_a_hand_has_changed_is_made_again(ledger: Ledger) -> None:
    """A stored document that is not authentic, is another's, or lies about being in clear is not believed."""
    ledger.append(a_visit("A", data={"crp": 12}), a_visit("B", data={"crp": 1}))
    run(ledger)
    models = tables.read_models
    good = {row.document_key: row.body for row in rows_of(ledger, "current_state")}
    a, b = (key_of_stream(ledger.deps, ledger.ledger_id, NameOrRef(name, None)) for name in ("patient-A", "patient-B"))
    forged = json.dumps(
        {"document": {"crp": 99}, "events": 1, "unknown_versions": 0, "hidden": [], "held": [], "shapes": {}}
    ).encode()
    for change in (
        {"body": good[b]},
        {"body": b"\x01" + bytes(60)},
        {"body": b""},
        {"position": 1},
        {"body": forged, "clear": True},
        {"key_ids": b"x"},
    ):
        mine = (models.c.ledger_id == ledger.ledger_id, models.c.document_key == a)
        ledger.backend.tamper(sa.update(models).where(*mine).values(**{"clear": False, **change}))
        assert state_by_ref(ledger, a).document == {"crp": 12}
    ledger.append(a_visit("A", data={"x": 1}))
    run(ledger)
    assert state_by_ref(ledger, a).document == {"crp": 12, "x": 1}
    assert_is_the_fold_of_the_log(ledger.deps, ledger.ledger_id)


def test_event_that_a_hand_has_changed_is_shown_as_missing(ledger: Ledger) -> None:
    """I9: what was altered is unreadable, not erased; as long as it is, the document says that it is not complete."""
    ledger.append(a_visit("A", data={"crp": 12}), a_visit("A", data={"ward": "ICU"}))
    recorded = ledger.recorded()[0].recorded_at
    ledger.edit(0, recorded_at=recorded + 1)
    run(ledger)
    state = state_of(ledger, "patient-A")
    assert (state.document, state.complete) == ({"ward": "ICU"}, False)
    assert [one.redaction.reason for one in state.hidden] == ["unreadable"]
    ledger.edit(0, recorded_at=recorded)
    assert (state_of(ledger, "patient-A").document, state_of(ledger, "patient-A").complete) == (
        {"crp": 12, "ward": "ICU"},
        True,
    )
    assert ledger.alarms


def test_new_version_of_a_type_shows_at_once_in_every_document(ledger: Ledger) -> None:
    """Documents of events in an older shape are made again: a reader never sees two shapes side by side."""
    ledger.append(a_visit("A", data={"value": 12}), a_visit("B", data={"value": 3}))
    run(ledger)
    register_type(ledger.deps, ledger.ledger_id, TypeDraft("Visit", 1), WRITER)
    renamed = [{"rename": {"from": "/value", "to": "/crp"}}]
    register_type(ledger.deps, ledger.ledger_id, TypeDraft("Visit", 2, upcast=renamed), WRITER)
    assert state_of(ledger, "patient-A").document == {"crp": 12}
    ledger.append(a_visit("A", schema_version=2, data={"crp": 13}), a_visit("B", schema_version=1, data={"value": 4}))
    run(ledger)
    assert state_of(ledger, "patient-A").document == {"crp": 13}
    assert state_of(ledger, "patient-B").document == {"crp": 4}
    assert activity_of(ledger, "patient:A").document["types"] == {"Visit": 2}


def test_version_that_code_led_to_shows_at_once_in_every_document_when_it_is_registered(ledger: Ledger) -> None:
    """Its number stays, and its shape does not: what is registered goes before what is in code."""
    way = Upcast("Visit", 1, 2, data=lambda data: {"by_code": data["value"]})
    code = replace(ledger, deps=replace(ledger.deps, upcasters=Upcasters.of(way)))
    code.append(a_visit("A", data={"value": 12}))
    run(code)
    assert state_of(code, "patient-A").document == {"by_code": 12}
    register_type(code.deps, code.ledger_id, TypeDraft("Visit", 1), WRITER)
    renamed = [{"rename": {"from": "/value", "to": "/crp"}}]
    register_type(code.deps, code.ledger_id, TypeDraft("Visit", 2, upcast=renamed), WRITER)
    assert state_of(code, "patient-A").document == {"crp": 12}
    code.append(a_visit("A", schema_version=2, data={"crp": 13, "note": "x"}))
    run(code)
    assert state_of(code, "patient-A").document == {"crp": 13, "note": "x"}
    assert_is_the_fold_of_the_log(code.deps, code.ledger_id)


def test_event_of_a_version_that_nobody_knows_is_counted(ledger: Ledger) -> None:
    """It goes in as it was recorded, the answer says so, and it shows in its new shape once the way is known."""
    ledger.append(a_visit("A", schema_version=2, data={"value": 12}))
    register_type(ledger.deps, ledger.ledger_id, TypeDraft("Visit", 1), WRITER)
    run(ledger)
    assert (state_of(ledger, "patient-A").document, state_of(ledger, "patient-A").unknown_versions) == (
        {"value": 12},
        1,
    )
    register_type(ledger.deps, ledger.ledger_id, TypeDraft("Visit", 2, upcast=[]), WRITER)
    assert (state_of(ledger, "patient-A").document, state_of(ledger, "patient-A").unknown_versions) == (
        {"value": 12},
        0,
    )


class Broken:
    """A fold that raises at events of one type, until it is mended. What it says holds personal data."""

    def __init__(self) -> None:
        self.mended = False

    def __call__(self, document: JsonObject, event: OpenedEvent) -> JsonObject:
        if event.recorded.envelope.event_type == "Poison" and not self.mended:
            raise KeyError(CANARY)
        return a_list(document, event)


def test_fold_that_raises_stops_its_projection_and_no_other(ledger: Ledger) -> None:
    """Visible, exactly before the event, without a word of what was said, and nothing is skipped: when it is mended it
    goes on from there."""
    ledger.append(a_visit("A"), a_visit("B"), a_visit("A", type="Poison"), a_visit("B"))
    fold = Broken()
    broken, other = seen("broken", apply=fold), seen("other")
    run(ledger, broken, other)
    status = status_of(ledger, "broken")
    assert (status.cursor.state, status.cursor.error, status.cursor.position) == ("stopped", "KeyError", 1)
    assert (status.behind, status.held) == (2, False)
    assert CANARY not in repr(status)
    assert status_of(ledger, "other").behind == 0
    documents = shown_of(ledger.deps, ledger.ledger_id, broken)
    assert [document for document, _ in documents.values()] == [{"types": ["Visit"]}] * 2
    fold.mended = True
    run(ledger, broken, other)
    assert status_of(ledger, "broken").cursor.position == 1
    assert restart(ledger.deps, ledger.ledger_id, "broken")
    assert not restart(ledger.deps, ledger.ledger_id, "broken")
    run(ledger, broken)
    shown = shown_of(ledger.deps, ledger.ledger_id, broken)
    assert shown == shown_of(ledger.deps, ledger.ledger_id, other)


@pytest.mark.parametrize(
    "document", [{"when": object()}, {"pair": (1, 2)}, {"counts": {1: 2}}, {"ratio": float("nan")}, []]
)
def test_fold_that_makes_no_json_stops_its_projection(ledger: Ledger, document: Any) -> None:
    """What would not come back from the store as it was folded is not stored."""
    ledger.append(a_visit("A"), a_visit("A", type="Poison"), a_visit("B"))

    def fold(before: JsonObject, event: OpenedEvent) -> JsonObject:
        poison: JsonObject = document
        return poison if event.recorded.envelope.event_type == "Poison" else a_list(before, event)

    projection = seen("no_json", apply=fold)
    run(ledger, projection)
    status = status_of(ledger, "no_json")
    assert (status.cursor.state, status.cursor.position, status.cursor.error) == ("stopped", 0, "TypeError")
    assert list(shown_of(ledger.deps, ledger.ledger_id, projection).values()) == [({"types": ["Visit"]}, True)]


def test_document_that_cannot_be_made_again_is_not_ready(ledger: Ledger) -> None:
    """A reader gets an error that can be acted on, and nothing of what the fold said."""
    ledger.append(a_visit("A"), a_visit("A", type="Poison"))
    fold = Broken()
    fold.mended = True
    broken = seen("broken", apply=fold)
    run(ledger, broken)
    fold.mended = False
    ledger.erase("patient:A")
    with pytest.raises(BusyError) as caught:
        shown_of(ledger.deps, ledger.ledger_id, broken)
    assert CANARY not in str(caught.value)
    run(ledger, broken)
    assert status_of(ledger, "broken").cursor.state == "stopped"


def test_new_version_builds_beside_the_old_and_takes_over(ledger: Ledger) -> None:
    """Readers see all of the old until they see all of the new; then the old is cleared away."""
    ledger.append(*(a_visit(str(number)) for number in range(6)))
    old = seen("model", 1)
    run(ledger, old)

    def count(document: JsonObject, event: OpenedEvent) -> JsonObject:
        return {"count": document.get("count", 0) + 1}

    new = seen("model", 2, apply=count)
    before = shown_of(ledger.deps, ledger.ledger_id, new)
    assert set(map(str, before.values())) == {str(({"types": ["Visit"]}, True))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "BATCH_EVENTS", 2)
        assert step(ledger.deps, ledger.ledger_id, [new], HOLDER)
        assert step(ledger.deps, ledger.ledger_id, [new], HOLDER)
    building = status_of(ledger, "model", 2)
    assert (building.cursor.state, building.cursor.position, building.seen) == ("building", 3, False)
    assert shown_of(ledger.deps, ledger.ledger_id, new) == before
    # An old process that still runs keeps the old one going meanwhile, and so does nobody harm.
    ledger.append(a_visit("late"))
    run(ledger, old)
    run(ledger, new)
    after = shown_of(ledger.deps, ledger.ledger_id, new)
    assert list(after.values()) == [({"count": 1}, True)] * 7
    statuses = projection_statuses(ledger.deps, ledger.ledger_id)
    assert [(one.cursor.key.number, one.cursor.version, one.cursor.state, one.seen) for one in statuses] == [
        (2, 2, "running", True)
    ]
    assert {row.generation for row in rows_of(ledger, "model")} == {2}
    assert [one.key.number for one in ledger.deps.derived.cursors.cursors(ledger.ledger_id, "projection")] == [2]


def test_older_program_leaves_a_newer_read_model_alone(ledger: Ledger) -> None:
    """After a rollback the newer generation stands still, visibly, until somebody asks for a rebuild."""
    ledger.append(a_visit("A"))
    run(ledger, seen("model", 2))
    ledger.append(a_visit("A"))
    old = seen("model", 1)
    run(ledger, old)
    status = status_of(ledger, "model")
    assert (status.cursor.version, status.behind) == (2, 1)
    assert list(shown_of(ledger.deps, ledger.ledger_id, old).values()) == [({"types": ["Visit"]}, True)]


def test_rebuild_gives_the_same_read_model_without_a_gap(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forced rebuild is seen by nobody until it is done, and asking twice builds once."""
    monkeypatch.setattr(runner, "BATCH_EVENTS", 3)
    ledger.append(*(a_visit(str(number % 4), data={"n": number}) for number in range(10)))
    run(ledger)
    before = shown_of(ledger.deps, ledger.ledger_id, CURRENT_STATE)
    first = rebuild(ledger.deps, ledger.ledger_id, "current_state")
    assert rebuild(ledger.deps, ledger.ledger_id, "current_state") == first
    assert (first.key.number, first.state, first.position) == (2, "building", -1)
    while step(ledger.deps, ledger.ledger_id, [CURRENT_STATE], HOLDER):
        assert shown_of(ledger.deps, ledger.ledger_id, CURRENT_STATE) == before
        assert position_of(ledger.deps, ledger.ledger_id, CURRENT_STATE) == 9
    assert status_of(ledger, "current_state", 2).seen
    assert {row.generation for row in rows_of(ledger, "current_state")} == {2}
    assert_is_the_fold_of_the_log(ledger.deps, ledger.ledger_id)


def test_rebuild_that_fails_leaves_readers_what_they_have(ledger: Ledger) -> None:
    """A new version with a mistake stops while it is built; readers go on with the old one, which goes on too."""
    ledger.append(a_visit("A"), a_visit("A", type="Poison"))
    old = seen("model", 1)
    run(ledger, old)
    new = seen("model", 2, apply=Broken())
    run(ledger, new)
    assert status_of(ledger, "model", 2).cursor.state == "stopped"
    assert status_of(ledger, "model", 1).seen
    ledger.append(a_visit("A"))
    run(ledger, old)
    expected = [({"types": ["Visit", "Poison", "Visit"]}, True)]
    assert list(shown_of(ledger.deps, ledger.ledger_id, old).values()) == expected
    # Asking for a rebuild once the code is mended begins afresh, and what had stopped is retired by it.
    assert rebuild(ledger.deps, ledger.ledger_id, "model").key.number == 3
    run(ledger, seen("model", 2))
    assert [one.cursor.key.number for one in projection_statuses(ledger.deps, ledger.ledger_id)] == [3]
    assert list(shown_of(ledger.deps, ledger.ledger_id, old).values()) == expected


def test_only_the_holder_of_the_lease_works(ledger: Ledger) -> None:
    """A second runner finds nothing to do while the first lives, and takes over when its lease is over."""
    ledger.append(a_visit("A"))
    first, second = uuid4(), uuid4()
    run(ledger, holder=first)
    ledger.append(a_visit("A"))
    assert not step(ledger.deps, ledger.ledger_id, [CURRENT_STATE], second)
    ledger.backend.clock.now += LEASE
    assert step(ledger.deps, ledger.ledger_id, [CURRENT_STATE], second)
    assert status_of(ledger, "current_state").cursor.holder == second
    assert not step(ledger.deps, ledger.ledger_id, [CURRENT_STATE], first)


@pytest.mark.parametrize("overtaken", ["before the commit", "after the other's commit"])
def test_runner_that_was_overtaken_writes_nothing(ledger: Ledger, overtaken: str) -> None:
    """A runner that slept through its lease, in the middle of a step, changes neither document nor cursor."""
    ledger.append(*(a_visit("A", data={"n": number}) for number in range(4)))
    models, cursors = ledger.deps.derived.read_models, ledger.deps.derived.cursors
    other = uuid4()

    class Slow:
        """Another runner takes over just before this one commits."""

        def __getattr__(self, name: str) -> Any:
            return getattr(models, name)

        def commit_documents(self, ledger_id: UUID, key: CursorKey, *rest: Any) -> None:
            ledger.backend.clock.now += LEASE
            now = ledger.backend.clock.now
            assert cursors.take_cursor(ledger_id, key, other, now, now + LEASE) is not None
            if overtaken == "after the other's commit":
                run(ledger, CURRENT_STATE, holder=other)
            models.commit_documents(ledger_id, key, *rest)

    slow = replace(ledger.deps, derived=replace(ledger.deps.derived, read_models=Slow()))
    assert not step(slow, ledger.ledger_id, [CURRENT_STATE], HOLDER)
    cursor = status_of(ledger, "current_state").cursor
    assert (cursor.holder, cursor.position) == (other, -1 if overtaken == "before the commit" else 3)
    assert len(rows_of(ledger, "current_state")) == (0 if overtaken == "before the commit" else 1)
    run(ledger, CURRENT_STATE, holder=other)
    assert state_of(ledger, "patient-A").events == 4


def test_runners_that_race_give_one_read_model(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four runners with leases that are over at once all work at the same time, and nothing is folded twice."""
    monkeypatch.setattr(runner, "LEASE", 0)
    monkeypatch.setattr(runner, "BATCH_EVENTS", 5)
    ledger.append(*(a_visit(str(number % 3), data={"n": number}, actor="nurse:L") for number in range(60)))

    everything = tuple(SHIPPED.values())
    step(ledger.deps, ledger.ledger_id, everything, HOLDER)

    def work(number: int) -> None:
        while any(one.behind for one in projection_statuses(ledger.deps, ledger.ledger_id)):
            step(ledger.deps, ledger.ledger_id, everything, UUID(int=number + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert_is_the_fold_of_the_log(ledger.deps, ledger.ledger_id)
    assert activity_of(ledger, "nurse:L").document["types"] == {"Visit": 60}


def test_dependency_that_fails_stops_nothing(ledger: Ledger) -> None:
    """A store that is away for a moment is told to the worker; the projection goes on when it is back."""
    ledger.append(a_visit("A"))

    class Away:
        """Cannot write."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.derived.read_models, name)

        def commit_documents(self, *_: Any) -> None:
            raise StoreUnavailableError("away")

    away = replace(ledger.deps, derived=replace(ledger.deps.derived, read_models=Away()))
    with pytest.raises(StoreUnavailableError):
        step(away, ledger.ledger_id, [CURRENT_STATE], HOLDER)
    assert status_of(ledger, "current_state").cursor.state == "running"
    run(ledger)
    assert_is_the_fold_of_the_log(ledger.deps, ledger.ledger_id)


def test_lag_is_measured_in_events_and_in_time(ledger: Ledger) -> None:
    """Behind the head, the age of the oldest event that is not projected, and whether anybody is at it."""
    run(ledger, CURRENT_STATE)
    ledger.append(a_visit("A"))
    run(ledger, CURRENT_STATE)
    status = status_of(ledger, "current_state")
    assert (status.behind, status.age, status.held, status.seen) == (0, None, True, True)
    ledger.append(a_visit("A"))
    oldest = ledger.recorded()[-1].recorded_at
    ledger.append(a_visit("A"), a_visit("A"))
    ledger.backend.clock.now += 2 * LEASE
    status = status_of(ledger, "current_state")
    assert (status.behind, status.held) == (3, False)
    assert status.age is not None
    assert 2 * LEASE <= status.age <= ledger.backend.clock.now - oldest


def test_reader_waits_for_its_own_write(ledger: Ledger) -> None:
    """Read-your-writes: an answer with ``min_position`` holds that event, or there is an error and no stale answer."""
    run(ledger)
    place = ledger.append_one(a_visit("A", data={"crp": 7}))
    key = key_of_stream(ledger.deps, ledger.ledger_id, NameOrRef("patient-A", None))

    def read(timeout: float) -> ReadDocument:
        return read_document(
            ledger.deps, ledger.ledger_id, CURRENT_STATE, key, min_position=place.position, timeout=timeout
        ).documents[0]

    with pytest.raises(BusyError):
        read(0.1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(read, 30)
        run(ledger)
        assert waiting.result().document == {"crp": 7}
    with pytest.raises(InvalidError):
        wait_for(ledger.deps, ledger.ledger_id, "current_state", place.position + 1, 0)


def test_definitions_that_cannot_be_right_are_refused() -> None:
    """Misuse is an error at the door."""
    with pytest.raises(ValueError, match="name"):
        seen("no spaces")
    with pytest.raises(ValueError, match="version"):
        seen("name", 0)
    with pytest.raises(ValueError, match="persons"):
        seen("name", partition=BY_SUBJECT, roles=frozenset({Role.NONPERSONAL}))
