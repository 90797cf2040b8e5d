"""A row that was edited by hand is unreadable: never shown as it is now, never called erased; others stay readable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from api.rendering import render_page
from ledger.domain.events import OpenedEvent, RecordedEvent, Role, SealedPart
from ledger.domain.query import EventQuery
from ledger.services.read import get_event, query_events
from ledger.services.verifying.running import verify_ledger
from ledger.storage import tables
from tests.support.ledgers import Ledger, a_fact, a_visit, reasons

VICTIM, NEIGHBOUR = 2, 3

Change = Callable[[RecordedEvent, list[RecordedEvent]], RecordedEvent]


def fill(ledger: Ledger) -> list[RecordedEvent]:
    """Six events, of which one has a part of each role but one."""
    ledger.append(a_visit("A"), a_fact())
    ledger.append(
        a_visit(
            "A",
            purpose="medical",
            actor={"subject": "group:L", "data": {"ip": 1}},
            parts=[{"subject": "patient:B", "data": {"b": 1}}, {"subject": "patient:C", "data": {"c": 1}}],
            nonpersonal={"ward": "ER"},
            occurred_at="2014-10-22T11:15:41Z",
            correlation_id="0193a5e0-7c00-7000-8000-0000000000c1",
            causation_id="0193a5e0-7c00-7000-8000-0000000000c2",
        )
    )
    ledger.append(
        a_visit("A", purpose="medical", actor={"subject": "group:L", "data": {"ip": 2}}), a_visit("B"), a_fact()
    )
    assert [part.role for part in ledger.recorded()[VICTIM].parts] == [1, 2, 3, 3, 4, 5]
    return ledger.recorded()


def bound_by_aad(**fields: Any) -> Change:
    """A change of what the ciphertext is bound to."""
    return lambda event, _: replace(event, envelope=replace(event.envelope, **fields))


def bound_by_leaf(**fields: Any) -> Change:
    """A change of what only the leaf is bound to."""
    return lambda event, _: replace(event, **fields)


def parts(change: Callable[[list[SealedPart], list[RecordedEvent]], list[SealedPart]]) -> Change:
    """A change of the parts."""
    return lambda event, log: replace(event, parts=tuple(change(list(event.parts), log)))


def body_from(position: int, number: int, of: int = 0) -> Change:
    """The sealed bytes of another part in place of a part's own."""
    return parts(
        lambda own, log: [
            replace(part, sealed=log[position].parts[of].sealed) if index == number else part
            for index, part in enumerate(own)
        ]
    )


def with_role(number: int, role: Role) -> Change:
    """Another role for one part."""
    return parts(
        lambda own, _: [replace(part, role=role) if index == number else part for index, part in enumerate(own)]
    )


TRANSPLANTS: dict[str, Change] = {
    "a part of another event of the same key": body_from(NEIGHBOUR, 0, 0),
    "an actor's part of another event": body_from(NEIGHBOUR, 1, 1),
    "all parts of another event": parts(lambda _, log: list(log[NEIGHBOUR].parts)),
    "two parts in each other's place": parts(lambda own, _: [own[0], own[1], own[3], own[2], *own[4:]]),
    "the sealed bytes of two parts exchanged": parts(
        lambda own, _: [
            *own[:2],
            replace(own[2], sealed=own[3].sealed),
            replace(own[3], sealed=own[2].sealed),
            *own[4:],
        ]
    ),
    "another role": with_role(2, Role.SUBJECT),
    "an actor as a further subject": with_role(1, Role.FURTHER),
    "nonpersonal as stream name": with_role(4, Role.STREAM_NAME),
    "the first part left out": parts(lambda own, _: own[1:]),
    "a part in the middle left out": parts(lambda own, _: [own[0], *own[2:]]),
    "the last part left out": parts(lambda own, _: own[:-1]),
    "all parts but one left out": parts(lambda own, _: own[-1:]),
    "all parts left out": parts(lambda _, __: []),
    "only a dead key left": parts(lambda _, __: [SealedPart(Role.SHREDDED, b"d" * 32, b"")]),
    "a part more": parts(lambda own, log: [*own, log[1].parts[0]]),
    "a part twice": parts(lambda own, _: [*own, own[-1]]),
    "a dead key more": parts(lambda own, _: [*own, SealedPart(Role.SHREDDED, b"d" * 32, b"")]),
    "one bit of a part": parts(
        lambda own, _: [replace(part, sealed=part.sealed[:-1] + bytes([part.sealed[-1] ^ 1])) for part in own]
    ),
    "parts cut short": parts(lambda own, _: [replace(part, sealed=part.sealed[:40]) for part in own]),
    "empty parts": parts(lambda own, _: [replace(part, sealed=b"") for part in own]),
    "parts of an unknown layout": parts(
        lambda own, _: [replace(part, sealed=b"\x02" + part.sealed[1:]) for part in own]
    ),
    "another event id": bound_by_aad(event_id=UUID(int=99)),
    "another stream": lambda event, log: replace(
        event, envelope=replace(event.envelope, stream_ref=log[4].envelope.stream_ref), stream_version=2
    ),
    "another category": bound_by_aad(category="person"),
    "another type": bound_by_aad(event_type="Other"),
    "a type of the ledger's own": bound_by_aad(event_type="SubjectErased"),
    "another schema version": bound_by_aad(schema_version=2),
    "another occurred-at": bound_by_aad(occurred_at=5),
    "no occurred-at": bound_by_aad(occurred_at=None),
    "another correlation id": bound_by_aad(correlation_id=UUID(int=99)),
    "no correlation id": bound_by_aad(correlation_id=None),
    "another causation id": bound_by_aad(causation_id=UUID(int=99)),
    "no causation id": bound_by_aad(causation_id=None),
}

LEAF_ONLY: dict[str, Change] = {
    "another recorded-at": lambda event, _: replace(event, recorded_at=event.recorded_at + 1),
    "another version": bound_by_leaf(stream_version=77),
    "another recorder": bound_by_leaf(recorded_by=UUID(int=99)),
}


def is_hidden(event: OpenedEvent) -> bool:
    """Whether nothing of the event's content is shown."""
    people = [part for part in (event.subject, event.actor, *event.further) if part is not None]
    shown = [event.stream, event.nonpersonal, *(part.subject for part in people), *(part.data for part in people)]
    return all(value is None for value in shown) and not any(part.readable for part in people)


def assert_only_the_victim_is_unreadable(ledger: Ledger, before: list[OpenedEvent], *, whole: bool) -> None:
    """One event is unreadable, with alarms at its position; all the others are as they were."""
    after = ledger.query()
    victim = after[VICTIM]
    assert set(reasons(victim).values()) == {"unreadable"}
    if whole:
        assert is_hidden(victim)
    assert ledger.alarms
    assert {position for position, _, _ in ledger.alarms} == {VICTIM}
    assert [event for event in after if event.recorded.position != VICTIM] == [
        event for event in before if event.recorded.position != VICTIM
    ]
    shown = get_event(ledger.deps, ledger.ledger_id, victim.recorded.envelope.event_id)
    assert shown == victim


@pytest.mark.parametrize("new_leaf", [False, True], ids=["leaf hash kept", "leaf hash recomputed"])
@pytest.mark.parametrize("name", TRANSPLANTS)
def test_transplants(ledger: Ledger, name: str, new_leaf: bool) -> None:
    """I9, I10: whatever was moved, left out or changed, the event is unreadable, alarms, and ``verify`` names it."""
    log = fill(ledger)
    before = list(ledger.query())
    ledger.put(VICTIM, TRANSPLANTS[name](log[VICTIM], log), new_leaf=new_leaf)

    # With a leaf hash that fits again, a part whose own bytes and neighbours are as they were would still open; the
    # AAD of every part names all of them, so only sealed bytes that were altered alone leave the others readable.
    alone = name in (
        "a part of another event of the same key",
        "an actor's part of another event",
        "the sealed bytes of two parts exchanged",
    )
    assert_only_the_victim_is_unreadable(ledger, before, whole=not (alone and new_leaf))
    report = verify_ledger(ledger.deps, ledger.ledger_id, lambda done, total: None)
    assert not report.intact
    assert any(finding.position <= VICTIM <= finding.last for finding in report.findings)
    assert all(finding.position in range(VICTIM + 3) for finding in report.findings)


@pytest.mark.parametrize("name", LEAF_ONLY)
def test_what_only_the_leaf_binds_is_unreadable_while_the_leaf_does_not_fit(ledger: Ledger, name: str) -> None:
    """Position, version, recorded-at and recorded-by: a row that is not what its leaf says is shown to nobody."""
    log = fill(ledger)
    before = list(ledger.query())
    ledger.put(VICTIM, LEAF_ONLY[name](log[VICTIM], log), new_leaf=False)
    assert_only_the_victim_is_unreadable(ledger, before, whole=True)
    assert any(finding.position == VICTIM for finding in ledger.verify().findings)


@pytest.mark.parametrize("name", LEAF_ONLY)
def test_with_a_leaf_that_fits_again_only_verify_sees_it(ledger: Ledger, name: str) -> None:
    """I10: whoever also recomputes the leaf hash is found by the tree, and by nothing before it."""
    log = fill(ledger)
    before = ledger.event_at(VICTIM)
    ledger.put(VICTIM, LEAF_ONLY[name](log[VICTIM], log), new_leaf=True)
    after = ledger.event_at(VICTIM)
    assert (after.subject, after.nonpersonal, after.redactions) == (before.subject, before.nonpersonal, ())
    assert ledger.alarms == []
    report = ledger.verify()
    assert not report.intact
    assert any(finding.position <= VICTIM <= finding.last for finding in report.findings)


@pytest.mark.parametrize("new_leaf", [False, True], ids=["leaf hash kept", "leaf hash recomputed"])
def test_an_event_moved_to_another_position(ledger: Ledger, new_leaf: bool) -> None:
    """The whole content of one row in another's place is unreadable there, and ``verify`` sees it."""
    log = fill(ledger)
    moved = replace(log[1], position=5, stream_version=2)
    twin = replace(moved, envelope=replace(moved.envelope, event_id=UUID(int=98)))
    ledger.put(5, twin, new_leaf=new_leaf)
    assert reasons(ledger.event_at(5)) == {"/nonpersonal": "unreadable"}
    assert any(finding.position <= 5 <= finding.last for finding in ledger.verify().findings)


@pytest.mark.parametrize("new_leaf", [False, True], ids=["leaf hash kept", "leaf hash recomputed"])
def test_a_part_moved_to_another_ledger(ledger: Ledger, new_leaf: bool) -> None:
    """A row copied into another ledger opens nothing there: that ledger does not know its keys."""
    log = fill(ledger)
    other = ledger.backend.new_ledger()
    other.append(a_visit("A"), a_visit("A"))
    own = other.recorded()[1]
    envelope = replace(log[0].envelope, ledger_id=other.ledger_id, event_id=own.envelope.event_id)
    envelope = replace(envelope, stream_ref=own.envelope.stream_ref)
    other.put(1, replace(own, envelope=envelope, parts=log[0].parts), new_leaf=new_leaf)
    assert set(reasons(other.event_at(1)).values()) == {"unreadable"}
    assert is_hidden(other.event_at(1))
    assert reasons(other.event_at(0)) == {}
    assert not other.verify().intact


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "a category that is not ASCII": {"category": "pätient"},
    "an endless category": {"category": "c" * 70_000},
    "a negative schema version": {"schema_version": -1},
    "a negative version": {"stream_version": -1},
    "parts of an unknown layout": {"sealed": b"\x02\x00"},
    "no parts column": {"sealed": b""},
    "a short ref": {"stream_ref": b"r"},
    "no leaf hash": {"leaf_hash": b""},
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_no_leaf_can_hold_is_unreadable_too(ledger: Ledger, name: str) -> None:
    """Values that cannot be encoded at all neither stop the page nor ``verify``."""
    fill(ledger)
    before = list(ledger.query())
    ledger.edit(VICTIM, **IMPOSSIBLE[name])
    assert_only_the_victim_is_unreadable(ledger, before, whole=True)
    assert any(finding.position == VICTIM for finding in ledger.verify().findings)


@pytest.mark.parametrize("column", ["recorded_at", "occurred_at"])
@pytest.mark.parametrize("time", [2**62, -(2**62)])
def test_a_time_that_has_no_form_keeps_no_other_event_from_being_shown(ledger: Ledger, column: str, time: int) -> None:
    """One altered row must not make the page an error for all the others."""
    fill(ledger)
    ledger.edit(VICTIM, **{column: time})
    shown = render_page(query_events(ledger.deps, ledger.ledger_id, EventQuery(), cursor=None, limit=10))["events"]
    assert shown[VICTIM]["data"] is None
    assert {redaction["reason"] for redaction in shown[VICTIM]["redactions"]} == {"unreadable"}
    assert shown[NEIGHBOUR]["redactions"] == []


def test_a_tampered_event_of_an_erased_person_is_still_erased_where_it_was(ledger: Ledger) -> None:
    """I9: ``erased`` comes from the ledger's own record of the key; what else is in that event is unreadable."""
    fill(ledger)
    ledger.erase("patient:B")
    ledger.edit(VICTIM, event_type="Other")
    shown = reasons(ledger.event_at(VICTIM))
    assert shown == {
        "/data": "unreadable",
        "/actor": "unreadable",
        "/parts/0": "erased",
        "/parts/1": "unreadable",
        "/nonpersonal": "unreadable",
        "/stream": "unreadable",
    }


def test_a_forged_record_of_a_dead_key_hides_and_is_found(ledger: Ledger) -> None:
    """Whoever adds a row to ``shredded_keys`` can hide a part, but not from ``verify``."""
    fill(ledger)
    row = {
        "ledger_id": ledger.ledger_id,
        "key_id": ledger.key_of("patient:B"),
        "position": 1,
        "erasure_id": UUID(int=9),
    }
    ledger.backend.execute(sa.insert(tables.shredded_keys).values(row))
    assert reasons(ledger.event_at(4)) == {"/data": "erased"}
    assert [finding.position for finding in ledger.verify().findings] == [1]
