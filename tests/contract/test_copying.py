"""Copies of streams: every event once, under the keys of the old one, whoever dies or is erased on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from ledger.domain.catalogue import TypeDraft
from ledger.domain.events import JsonObject, OpenedEvent, RecordedEvent, Role
from ledger.domain.ids import format_ref
from ledger.domain.names import STREAM_SUPERSEDED
from ledger.domain.query import NameOrRef
from ledger.domain.upcasting import Upcast, Upcasters
from ledger.errors import (
    BusyError,
    CopyRefusedError,
    InvalidError,
    NotFoundError,
    StoreUnavailableError,
    StreamClosedError,
)
from ledger.services.evolution import copying
from ledger.services.evolution.copying import CopyReport, Transform, copy_stream, read_transforms
from ledger.services.evolution.types import register_type
from tests.support.ledgers import WRITER, Ledger, a_fact, a_visit, who


def copy(
    ledger: Ledger, target: str = "patient2-A", source: str | bytes = "patient-A", **transforms: Transform
) -> CopyReport:
    """Copy a stream."""
    return copy_stream(ledger.deps, ledger.ledger_id, who(source), target, transforms, recorded_by=WRITER)


def stream(ledger: Ledger, name: str = "patient2-A") -> list[OpenedEvent]:
    """The events of a stream."""
    return list(ledger.query(stream=NameOrRef(name, None)))


def keys(event: RecordedEvent) -> set[bytes]:
    """The keys that parts of an event are under."""
    return {part.key_id for part in event.parts}


def refusal(ledger: Ledger, **transforms: Transform) -> str:
    """Why a copy is refused."""
    with pytest.raises(CopyRefusedError) as caught:
        copy_stream(ledger.deps, ledger.ledger_id, who("patient-A"), "patient2-A", transforms, recorded_by=WRITER)
    return caught.value.detail


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    """A stream with everything that an event can have, and others."""
    ledger.append(
        a_visit(
            data={"first": "Ada", "last": "L"},
            purpose="care",
            actor={"subject": "group:L", "data": {"ip": "x"}},
            parts=[{"subject": "patient:B", "data": {"contact": 1}}],
            nonpersonal={"ward": "ER"},
            occurred_at="2014-10-22T11:15:41Z",
            correlation_id="0193a5e0-7c00-7000-8000-0000000000c0",
        ),
        a_visit("B"),
        a_visit(data={"crp": 1}),
        {"stream": "patient-A", "type": "Moved", "nonpersonal": {"ward": "ICU"}, "actor": "group:L"},
    )
    return ledger


def test_a_copy_says_the_same_of_the_same_people_under_the_same_keys(filled: Ledger) -> None:
    """Each event once, in order, with its cause; and the old stream has ended and says by what it was superseded."""
    old = stream(filled, "patient-A")
    report = copy(filled)
    new = stream(filled)

    assert report == CopyReport(new[0].recorded.envelope.stream_ref, 3, 3, 0, report.superseded_at)
    assert [event.recorded.stream_version for event in new] == [1, 2, 3]
    for one, two in zip(old, new, strict=True):
        before, after = one.recorded.envelope, two.recorded.envelope
        assert (two.subject, two.actor, two.further, two.nonpersonal) == (
            one.subject,
            one.actor,
            one.further,
            one.nonpersonal,
        )
        assert keys(two.recorded) == keys(one.recorded)
        assert after.causation_id == before.event_id
        assert after.correlation_id == before.correlation_id
        expected = before.occurred_at if before.occurred_at is not None else one.recorded.recorded_at
        assert after.occurred_at == expected
        assert after.event_type == before.event_type
    last = stream(filled, "patient-A")[-1]
    assert last.recorded.position == report.superseded_at
    assert last.recorded.envelope.event_type == STREAM_SUPERSEDED
    assert last.nonpersonal == {"by": format_ref("str", report.target_ref)}
    with pytest.raises(StreamClosedError):
        filled.append(a_visit())
    filled.append(a_visit(stream="patient2-A"))
    filled.assert_intact()


def test_transforms_change_the_copies(filled: Ledger) -> None:
    """Steps, functions, type and version; the others stay as they are."""
    steps = read_transforms(
        {
            "Visit": {
                "type": "VisitV2",
                "version": 3,
                "steps": [
                    {"rename": {"from": "/first", "to": "/given"}},
                    {"drop": {"path": "/ward"}, "in": "nonpersonal"},
                ],
            }
        }
    )["Visit"]
    shout = replace(steps, data=lambda data: {key: str(value).upper() for key, value in data.items()})
    copy(filled, Visit=shout, Moved=Transform("Transferred"))
    first, second, third = stream(filled)
    assert first.subject is not None
    assert second.subject is not None
    assert (first.subject.data, second.subject.data) == ({"given": "ADA", "last": "L"}, {"crp": "1"})
    assert first.nonpersonal == {}
    shapes = [(event.recorded.envelope.event_type, event.recorded.envelope.schema_version) for event in (first, third)]
    assert shapes == [("VisitV2", 3), ("Transferred", 1)]


def test_a_copy_begins_from_the_newest_shape(filled: Ledger) -> None:
    """Old events come in the shape of the newest version, and are recorded as that."""
    for version, upcast in ((1, None), (2, [{"drop": {"path": "/last"}}])):
        register_type(filled.deps, filled.ledger_id, TypeDraft("Visit", version, upcast=upcast), WRITER)
    copy(filled)
    first = stream(filled)[0]
    assert first.subject is not None
    assert (first.recorded.envelope.schema_version, first.subject.data) == (2, {"first": "Ada"})


def test_once_more_changes_nothing(filled: Ledger) -> None:
    """The same report, less what was copied."""
    first = copy(filled)
    size = filled.size()
    again = copy(filled, source=stream(filled, "patient-A")[0].recorded.envelope.stream_ref)
    assert again == replace(first, copied=0)
    assert filled.size() == size


def test_a_stream_has_one_successor(filled: Ledger) -> None:
    """A second copy to another stream writes nothing."""
    copy(filled)
    size = filled.size()
    with pytest.raises(CopyRefusedError, match="another successor"):
        copy(filled, "patient3-A")
    assert filled.size() == size


def test_of_two_copies_that_race_one_is_the_successor(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other says so, whenever it notices; it does not take the winner's end for its own."""
    supersede = copying._Copy._supersede

    def overtaken(loser: copying._Copy) -> RecordedEvent | None:
        monkeypatch.setattr(copying._Copy, "_supersede", supersede)
        copy(filled, "patient2-A")
        return supersede(loser)

    monkeypatch.setattr(copying._Copy, "_supersede", overtaken)
    with pytest.raises(CopyRefusedError, match="another successor"):
        copy(filled, "patient3-A")
    (end,) = filled.query(types=(STREAM_SUPERSEDED,))
    (winner,) = filled.deps.vault.find_streams(filled.ledger_id, ["patient2-A"]).values()
    assert end.nonpersonal == {"by": format_ref("str", winner.ref)}


def test_the_new_stream_is_the_copys_alone(filled: Ledger) -> None:
    """A stream that has events already takes no copy, and the old one does not end."""
    filled.append(a_visit(stream="patient2-A"))
    assert "not of this copy" in refusal(filled)
    filled.append(a_visit())


def test_a_copy_that_was_killed_goes_on(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """I12: after any write, the same job finishes what is left, and nothing is there twice."""
    for number in range(4):
        filled.append(a_visit(data={"n": number}))
    monkeypatch.setattr("ledger.services.read._FIRST_PAGE", 2)
    monkeypatch.setattr("ledger.services.read.EXPORT_PAGE", 2)
    copied = 0
    for _ in range(10):
        dying = filled.with_parts(store=_Dying(filled.deps.store))
        try:
            report = copy(dying)
            break
        except StoreUnavailableError:
            assert len(stream(filled)) > copied
            copied = len(stream(filled))
    else:
        pytest.fail("the copy never finished")
    assert report.events == 7
    assert [event.recorded.stream_version for event in stream(filled)] == list(range(1, 8))
    causes = [event.recorded.envelope.causation_id for event in stream(filled)]
    assert causes == [event.recorded.envelope.event_id for event in stream(filled, "patient-A")[:-1]]
    filled.assert_intact()


class _Dying:
    """A store that is gone after one write."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._written = False

    def __getattr__(self, name: str) -> Any:
        if name == "locked_head":
            if self._written:
                raise StoreUnavailableError("killed")
            self._written = True
        return getattr(self._inner, name)


class _Interfering:
    """A store behind which something happens, once, before the n-th write."""

    def __init__(self, inner: Any, before: int, act: Callable[[], object]) -> None:
        self._inner = inner
        self._before = before
        self._act = act

    def __getattr__(self, name: str) -> Any:
        if name == "locked_head":
            self._before -= 1
            if self._before == 0:
                self._act()
        return getattr(self._inner, name)


def test_what_is_appended_meanwhile_is_copied_too(filled: Ledger) -> None:
    """Between the last copy and the end of the old stream nothing gets lost."""
    late = _Interfering(filled.deps.store, 2, lambda: filled.append(a_visit(data={"late": True})))
    assert copy(filled.with_parts(store=late)).events == 4
    last = stream(filled)[-1]
    assert last.subject is not None
    assert last.subject.data == {"late": True}
    filled.assert_intact()


def test_a_stream_that_has_ended_can_be_copied(filled: Ledger) -> None:
    """Its successor has ended, too; and it says so, although nobody else can append to it any more."""
    register_type(filled.deps, filled.ledger_id, TypeDraft("Discharged", 1, closes_stream=True), WRITER)
    filled.append(a_visit(type="Discharged"))
    assert copy(filled).events == 4
    assert stream(filled, "patient-A")[-1].recorded.envelope.event_type == STREAM_SUPERSEDED
    for name in ("patient-A", "patient2-A"):
        with pytest.raises(StreamClosedError):
            filled.append(a_visit(stream=name))
    assert copy(filled).copied == 0
    filled.assert_intact()


def test_erased_parts_are_left_out(filled: Ledger) -> None:
    """Others' parts are copied; a schema does not ask for what is gone."""
    schema: JsonObject = {"required": ["first"]}
    filled.erase("patient:B")
    filled.erase("patient:A", ["care"])
    register_type(filled.deps, filled.ledger_id, TypeDraft("Visit", 1, schema), WRITER)
    with pytest.raises(CopyRefusedError, match="catalogue"):
        copy(filled)
    fits = Transform(steps=read_transforms({"V": {"steps": [{"default": {"path": "/first", "value": ""}}]}})["V"].steps)
    report = copy(filled, Visit=fits)
    first = stream(filled)[0]
    assert report.parts_left_out == 2
    assert first.subject is not None
    assert (first.subject.subject, first.subject.purpose, first.subject.data) == ("patient:A", "", None)
    assert first.actor is not None
    assert first.further == ()
    assert first.nonpersonal == {"ward": "ER"}
    # I6: the new stream goes with its owner, name and all.
    filled.erase("patient:A")
    assert [event.stream for event in filled.query(category="patient2")] == [None] * 3
    filled.assert_intact()


def test_the_stream_of_one_who_was_erased_is_not_copied(filled: Ledger) -> None:
    """What is left of it would go to a stream of nobody's, whose name would outlive the erasure."""
    ref = stream(filled, "patient-A")[0].recorded.envelope.stream_ref
    filled.erase("patient:A")
    size = filled.size()
    with pytest.raises(CopyRefusedError, match="owner"):
        copy(filled, source=ref)
    assert filled.size() == size


def test_whoever_is_erased_meanwhile_is_not_copied(filled: Ledger) -> None:
    """I8: what was read before the erasure is not written after it."""
    erasing = _Interfering(filled.deps.store, 1, lambda: filled.erase("patient:B"))
    copy(filled.with_parts(store=erasing))
    assert stream(filled)[0].further == ()
    filled.assert_intact()


@pytest.mark.parametrize("number", [1, 2])
def test_an_owner_who_is_erased_meanwhile_stops_the_copy(filled: Ledger, number: int) -> None:
    """Before the first write, or before the old stream ends."""
    erasing = _Interfering(filled.deps.store, number, lambda: filled.erase("patient:A"))
    with pytest.raises(CopyRefusedError, match="owner"):
        copy(filled.with_parts(store=erasing))
    assert all(event.subject is None or event.subject.data is None for event in filled.query(category="patient2"))
    filled.assert_intact()


def test_what_is_restricted_is_not_lost(filled: Ledger) -> None:
    """Refused before anything is written for that event; when it can be read again, the same job finishes."""
    filled.append(a_visit(parts=[{"subject": "patient:C", "data": {"x": 1}}]))
    ref = filled.subject_ref("patient:C")
    filled.deps.vault.restrict(filled.ledger_id, ref, 1)
    assert "restricted" in refusal(filled)
    assert len(stream(filled)) == 3
    filled.append(a_visit())
    filled.deps.vault.lift_restriction(filled.ledger_id, ref, 2)
    report = copy(filled)
    assert (report.events, report.copied, report.parts_left_out) == (5, 2, 0)


def test_data_never_gets_under_another_key(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong on the way: what is to be written is looked at before it is."""
    real = copying._part

    def mistaken(part: Any, data: Any) -> Any:
        made = real(part, data)
        return replace(made, subject="patient:B") if made is not None and made.subject == "patient:A" else made

    monkeypatch.setattr(copying, "_part", mistaken)
    assert "another key" in refusal(filled)
    assert stream(filled) == []


def test_nothing_gets_from_data_into_nonpersonal(filled: Ledger) -> None:
    """A transform of the one never sees the other, and makes none where there is none."""
    seen: list[JsonObject] = []

    def note(value: JsonObject) -> JsonObject:
        seen.append(value)
        return value

    copy(filled, Visit=Transform(nonpersonal=note), Moved=Transform(data=note))
    assert seen == [{"ward": "ER"}]
    assert [event.nonpersonal for event in stream(filled)] == [{"ward": "ER"}, None, {"ward": "ICU"}]


@pytest.mark.parametrize("change", [lambda data: data["missing"], lambda data: None, lambda data: {"x": object()}])
def test_a_transform_that_fails_stops_the_copy_and_tells_nothing(filled: Ledger, change: Any) -> None:
    """I5: the class of the failure and the position; and what was copied before stays."""

    def failing(data: JsonObject) -> JsonObject:
        if "crp" in data:
            return dict(change(data))
        return data

    with pytest.raises(CopyRefusedError) as caught:
        copy(filled, Visit=Transform(data=failing))
    assert "position 2" in caught.value.detail
    assert caught.value.__cause__ is None
    assert len(stream(filled)) == 1
    assert copy(filled).copied == 2


def test_an_event_that_is_in_no_known_shape_gets_no_transform(filled: Ledger) -> None:
    """A transform expects the newest shape; without one the event is copied as it is."""
    for version, upcast in ((1, None), (2, [])):
        register_type(filled.deps, filled.ledger_id, TypeDraft("Visit", version, upcast=upcast), WRITER)
    code = in_code(filled, Upcast("Visit", 2, 3))
    register_type(code.deps, code.ledger_id, TypeDraft("Visit", 3), WRITER)
    assert "shape" in refusal(filled, Visit=Transform())
    assert copy(filled).events == 3
    assert {event.recorded.envelope.schema_version for event in stream(filled)} == {1}


def in_code(ledger: Ledger, *ways: Upcast) -> Ledger:
    """The same ledger, as code with ways of its own sees it."""
    return replace(ledger, deps=replace(ledger.deps, upcasters=Upcasters.of(*ways)))


def test_what_code_makes_of_an_event_is_copied_under_the_keys_of_what_it_was_made_from(ledger: Ledger) -> None:
    """What is copied into nonpersonal outlives every erasure; so it is made of nonpersonal alone."""
    ledger.append(a_visit(data={"diagnosis": "G35"}, nonpersonal={"ward": "ER"}))

    def labelled(content: JsonObject) -> JsonObject:
        return {**content, "label": ", ".join(str(value) for value in content.values())}

    code = in_code(ledger, Upcast("Visit", 1, 2, data=labelled, nonpersonal=labelled))
    assert copy(code).events == 1
    (event,) = stream(ledger)
    assert event.subject is not None
    assert (event.subject.data, event.nonpersonal) == (
        {"diagnosis": "G35", "label": "G35"},
        {"ward": "ER", "label": "ER"},
    )
    ledger.erase("patient:A")
    (event,) = (event for event in ledger.query() if event.recorded.position == 1)
    assert event.nonpersonal == {"ward": "ER", "label": "ER"}


def test_a_transform_that_makes_too_much_is_refused(filled: Ledger) -> None:
    """No event can be as large; and steps stop before they have made what would be refused."""
    assert "larger" in refusal(filled, Visit=Transform(data=lambda data: {**data, "text": "x" * 2**23}))
    longer = [{"template": {"path": "/first", "template": "{/first}" * 32}}] * 10
    assert "(GrowthError)" in refusal(filled, **read_transforms({"Visit": {"steps": longer}}))


@pytest.mark.parametrize("target", ["", "no category", "ledger-x", "a\n-b"])
def test_a_target_that_is_no_stream_is_refused(filled: Ledger, target: str) -> None:
    """And what it was is not repeated."""
    with pytest.raises(InvalidError) as caught:
        copy(filled, target)
    assert [fault.pointer for fault in caught.value.faults] == ["/target"]


def test_streams_that_cannot_be_copied(filled: Ledger) -> None:
    """One that is not there, and the ledger's own."""
    with pytest.raises(NotFoundError):
        copy(filled, source="patient-Z")
    erasure = filled.erase("patient:B").erasure.entry.erasure_id
    with pytest.raises(InvalidError):
        copy(filled, source=f"ledger-{erasure}")


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        ({"patient:A": {}}, "/transforms"),
        ({"Visit": []}, "/transforms/Visit"),
        ({"Visit": {"data": {}}}, "/transforms/Visit"),
        ({"Visit": {"type": "SubjectErased"}}, "/transforms/Visit/type"),
        ({"Visit": {"type": 7}}, "/transforms/Visit/type"),
        ({"Visit": {"version": True}}, "/transforms/Visit/version"),
        ({"Visit": {"steps": {}}}, "/transforms/Visit/steps"),
        ({"Visit": {"steps": [{"drop": {"path": "x"}}]}}, "/transforms/Visit/steps/0/drop/path"),
    ],
)
def test_transforms_that_cannot_be_read_are_refused(raw: Mapping[str, Any], pointer: str) -> None:
    """Each with its place, and nothing that stood in the place of a type is repeated."""
    with pytest.raises(InvalidError) as caught:
        read_transforms(raw)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]
    assert "patient:A" not in repr(caught.value.faults)


def test_writers_who_never_stop_are_not_followed_forever(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy says so, and goes on from there the next time."""
    monkeypatch.setattr(copying, "ROUNDS", 3)
    real = copying._Copy._supersede

    def too_late(self: Any) -> Any:
        filled.append(a_visit())
        return real(self)

    monkeypatch.setattr(copying._Copy, "_supersede", too_late)
    with pytest.raises(BusyError):
        copy(filled)
    assert len(stream(filled)) == 5
    monkeypatch.undo()
    assert copy(filled).events == 6


def test_a_stream_of_nobodys_is_copied(ledger: Ledger) -> None:
    """Its name is sealed under the ledger's own key, there as here."""
    ledger.append(a_fact(), a_fact())
    assert copy(ledger, "ward2-ER", "ward-ER").events == 2
    assert [event.stream for event in stream(ledger, "ward2-ER")] == ["ward2-ER"] * 2
    roles = {part.role for event in stream(ledger, "ward2-ER") for part in event.recorded.parts}
    assert roles == {Role.NONPERSONAL}
