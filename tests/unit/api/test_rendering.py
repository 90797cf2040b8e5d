"""Answers have the members that the OpenAPI document promises, in the contract's order."""

from __future__ import annotations

import json
from uuid import UUID

from marshmallow import Schema

from api.rendering import (
    event_json,
    render_api_key,
    render_appended,
    render_event,
    render_ledger,
    render_page,
    render_stream,
    render_subject,
)
from api.schemas import answers, timetravel
from api.timetravel_rendering import render_diff, render_history, render_state, render_states
from ledger.domain.access import AccessRole, ApiKey, LedgerInfo
from ledger.domain.difference import AttributedChange, Change, cause_of
from ledger.domain.events import Appended, Envelope, Head, OpenedEvent, OpenedPart, RecordedEvent, Redaction
from ledger.domain.fold import Folded
from ledger.domain.history import FieldValue
from ledger.domain.query import Moment
from ledger.domain.state import HiddenParts
from ledger.services.ledgers import LedgerSummary
from ledger.services.read import Page
from ledger.services.subjects import SubjectSummary
from ledger.services.timetravel.diff import DiffPage, StreamDiff
from ledger.services.timetravel.history import HistoryPage
from ledger.services.timetravel.state import StateAsOf
from ledger.services.timetravel.states import StatesPage

ID = UUID("0193a7f0-8c1d-7e3f-9f3b-2c1d0e4f5a6b")
REF = bytes(range(16))
ERASED = Redaction("/actor", REF, "actor", "erased", 1_000_000, ID)


def members(schema: type[Schema]) -> set[str]:
    """What the document promises."""
    return set(schema().fields)


def event(actor: OpenedPart | None) -> OpenedEvent:
    """An event without a main subject."""
    envelope = Envelope(ID, ID, REF, "ward", "Noted", 1, None, None, ID)
    recorded = RecordedEvent(envelope, (), ID, 3, 1, 1_500_000, b"")
    return OpenedEvent(recorded, "ward-1", None, actor, (), {"n": 1}, (ERASED,) if actor else ())


def test_an_event_has_what_the_document_promises() -> None:
    """Absent is null, and a redacted actor keeps its ref."""
    plain = render_event(event(None))
    redacted = render_event(event(OpenedPart(None, REF, "actor", None, readable=False)))

    assert set(plain) == members(answers.Event)
    assert (plain["subject"], plain["subject_ref"], plain["purpose"], plain["data"]) == (None, None, None, None)
    assert (plain["actor"], plain["occurred_at"], plain["causation_id"]) == (None, None, ID)
    assert plain["recorded_at"] == "1970-01-01T00:00:01.500000Z"
    assert redacted["actor"] == {"subject": None, "subject_ref": f"sub_{REF.hex()}", "data": None}
    assert set(redacted["redactions"][0]) == members(answers.Redaction)


def test_the_other_answers_have_what_the_document_promises() -> None:
    """One by one."""
    head = Head(1, (), 1_000_000)
    summary = LedgerSummary(LedgerInfo(ID, "hospital", 0), head, bytes(32))
    key = ApiKey(ID, "n", "p", frozenset({AccessRole.WRITER, AccessRole.ADMIN}), ID, b"", 0, None, None, None)
    state = Folded(2, state={"a": 1}, hidden=(HiddenParts(ERASED, 2, (3, 9)),))
    subject = SubjectSummary(REF, 1, "active", 0, None, None, None, None, None)

    assert set(render_ledger(summary, "example.org")) == members(answers.Ledger)
    assert set(render_api_key(key, {ID: "hospital"})) == members(answers.ApiKey)
    assert set(render_appended(Appended(ID, 0, REF, 1, 0))) == members(answers.AppendedEvent)
    assert set(render_page(Page(Moment(-1, None), [], None))) == members(answers.Page)
    rendered = render_state(StateAsOf(Moment(9, 1), REF, state))
    assert set(rendered) == members(timetravel.State)
    assert set(rendered["redactions"][0]) == members(answers.HiddenParts)
    assert set(render_subject(subject)) == members(answers.Subject)
    assert set(render_stream(REF, 1)) == members(answers.Stream)


def test_the_answers_of_time_travel_have_what_the_document_promises() -> None:
    """An event that nobody acted in has no actor, and one whose actor is hidden has the ref alone."""
    moment, folded = Moment(9, 1), Folded(2, state={"a": 1}, hidden=(HiddenParts(ERASED, 2, (3, 9)),))
    changes = [
        AttributedChange(Change(("a~", "b/c"), "add", None, 1), cause_of(event(None))),
        AttributedChange(
            Change(("d",), "remove", 1, None), cause_of(event(OpenedPart(None, REF, "actor", None, readable=False)))
        ),
    ]
    values = [FieldValue(1, False, (ERASED,), cause_of(event(None)))]

    states = render_states(StatesPage(moment, [(REF, folded)], "next"))
    diff = render_diff(DiffPage(moment, moment, [StreamDiff(REF, Folded(), folded, changes)], None))
    history = render_history(HistoryPage(moment, REF, values, None))

    assert set(states) == members(timetravel.States)
    assert set(states["states"][0]) == members(timetravel.StreamState)
    assert set(diff) == members(timetravel.Diff)
    assert set(diff["streams"][0]) == members(timetravel.ComparedStream)
    assert [set(change) for change in diff["changes"]] == [members(timetravel.Change)] * 2
    assert [change["path"] for change in diff["changes"]] == ["/a~0/b~1c", "/d"]
    assert set(diff["changes"][0]["event"]) == members(timetravel.Cause)
    assert [change["event"]["actor_ref"] for change in diff["changes"]] == [None, f"sub_{REF.hex()}"]
    assert [change["event"]["actor"] for change in diff["changes"]] == [None, None]
    assert set(history) == members(timetravel.History)
    assert set(history["values"][0]) == members(timetravel.FieldValue)


def test_answers_are_json() -> None:
    """Their ids are spelled as the contract has them."""
    shown = json.loads(event_json(event(OpenedPart("é", REF, "actor", {"ip": "x"}, readable=True))))
    assert (shown["id"], shown["causation_id"], shown["correlation_id"]) == (str(ID), str(ID), None)
    assert shown["actor"]["subject"] == "é"
