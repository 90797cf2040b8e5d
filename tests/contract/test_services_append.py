"""Append: all or nothing, once, in one order; names and keys in the right parts; nobody erased is written about."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from ledger.domain.events import OPERATOR, Appended, Role
from ledger.domain.ids import format_ref
from ledger.domain.intake import parse_event
from ledger.domain.query import NameOrRef
from ledger.errors import (
    BusyError,
    IdConflictError,
    InvalidError,
    LedgerError,
    NotFoundError,
    PartlyRecordedError,
    StoreUnavailableError,
    SubjectErasedError,
    TooLargeError,
    VersionConflictError,
)
from ledger.services.appending.append import append_events
from ledger.services.appending.ingest import LineResult, Source, ingest_lines
from ledger.services.read import find_stream, get_event
from ledger.services.subjects import describe_subject
from tests.support.ledgers import Ledger, a_fact, a_visit, new_event_id, reasons, who


def versions(events: Sequence[Appended]) -> list[int]:
    """The stream versions of an answer."""
    return [event.stream_version for event in events]


def roles(ledger: Ledger, position: int) -> list[tuple[Role, bytes]]:
    """Roles and keys of an event's parts, in order."""
    return [(part.role, part.key_id) for part in ledger.recorded()[position].parts]


def own_key(ledger: Ledger) -> bytes:
    """The id of the ledger's own key."""
    return ledger.deps.vault.reserve(ledger.ledger_id, {}, (), mint=False).ledger_key.key_id


# Order and versions


def test_one_batch_can_write_to_several_streams(ledger: Ledger) -> None:
    """I2: one batch is one run of positions and one recorded-at; each stream counts for itself."""
    result = ledger.append(a_visit("A"), a_fact(), a_visit("A"), a_visit("B"), a_fact())
    assert [event.position for event in result.events] == [0, 1, 2, 3, 4]
    assert versions(result.events) == [1, 1, 2, 1, 2]
    assert len({event.recorded_at for event in result.events}) == 1
    assert result.events[0].stream_ref == result.events[2].stream_ref != result.events[3].stream_ref
    assert not result.duplicate
    ledger.assert_intact()


@pytest.mark.parametrize(
    ("before", "expected", "fits"),
    [
        (0, "any", True),
        (2, "any", True),
        (0, "exists", False),
        (1, "exists", True),
        (0, 0, True),
        (1, 0, False),
        (2, 2, True),
        (2, 1, False),
        (2, 3, False),
        (0, 1, False),
    ],
)
def test_expected_versions(ledger: Ledger, before: int, expected: Any, fits: bool) -> None:
    """I3: an append whose expected version is wrong changes nothing, and is told the version that it met."""
    for _ in range(before):
        ledger.append(a_visit())
    if fits:
        assert ledger.append_one(a_visit(expected_version=expected)).stream_version == before + 1
        return
    with pytest.raises(VersionConflictError) as caught:
        ledger.append(a_visit(expected_version=expected))
    assert [(fault.pointer, dict(fault.details)) for fault in caught.value.faults] == [
        ("/events/0/expected_version", {"expected": expected, "actual": before})
    ]
    assert ledger.size() == before


def test_a_batch_counts_its_own_events(ledger: Ledger) -> None:
    """The expected version of an event is that just before it, events of the same batch included."""
    result = ledger.append(*(a_visit(expected_version=version) for version in (0, 1, 2, "exists")))
    assert versions(result.events) == [1, 2, 3, 4]


def test_a_batch_is_recorded_as_a_whole_or_not_at_all(ledger: Ledger) -> None:
    """I12: one event that conflicts keeps the others out too, on whatever stream; every conflict is told."""
    ledger.append(a_visit("A"))
    with pytest.raises(VersionConflictError) as caught:
        ledger.append(a_fact(), a_visit("A", expected_version=0), a_visit("B"), a_fact(expected_version=0))
    assert [(fault.pointer, fault.index) for fault in caught.value.faults] == [
        ("/events/1/expected_version", 1),
        ("/events/3/expected_version", 3),
    ]
    assert ledger.size() == 1
    assert ledger.deps.store.count_event_keys(ledger.ledger_id) == 1


def test_an_append_that_is_bound_to_fail_mints_nothing(ledger: Ledger) -> None:
    """Nobody gets a ref or a key from an append that expects another version."""
    with pytest.raises(VersionConflictError):
        ledger.append(a_visit("ghost", expected_version=4))
    assert ledger.deps.vault.find_subjects(ledger.ledger_id, ["patient:ghost"]) == {}
    assert ledger.deps.vault.find_streams(ledger.ledger_id, ["patient-ghost"]) == {}


def test_recorded_at_never_goes_back(ledger: Ledger) -> None:
    """I2: with a clock that falls behind, time stands still until the clock is past it again."""
    clock = ledger.backend.clock
    first = ledger.append_one(a_fact())
    real = clock.now
    clock.now = first.recorded_at - 1_000_000
    second = ledger.append_one(a_fact())
    clock.now = real + 1_000_000
    third = ledger.append_one(a_fact())
    assert first.recorded_at == second.recorded_at < third.recorded_at
    ledger.assert_intact()


# Once


def test_a_repeat_gives_the_first_result(ledger: Ledger) -> None:
    """I4: the same ids and content, in whatever order of JSON members, are recorded once."""
    one = a_visit(id=new_event_id(), data={"a": 1, "b": {"c": 2, "d": None}}, actor={"subject": "group:L", "data": {}})
    two = a_fact(id=new_event_id(), occurred_at="2014-10-22T11:15:41Z")
    first = ledger.append(one, two)
    again = ledger.append({**dict(reversed(one.items())), "data": {"b": {"d": None, "c": 2}, "a": 1}}, two)
    assert again.duplicate
    assert again.events == first.events
    assert ledger.size() == 2
    assert ledger.append(two).events == first.events[1:]


def test_a_repeat_is_answered_before_its_expected_version(ledger: Ledger) -> None:
    """A retry of a recorded append meets the version that it made itself: no conflict."""
    event = a_visit(id=new_event_id(), expected_version=0)
    first = ledger.append(event)
    assert ledger.append(event).events == first.events


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"crp": 13}},
        {"type": "Other"},
        {"stream": "patient-B"},
        {"subject": "patient:B"},
        {"purpose": "medical"},
        {"actor": "group:L"},
        {"parts": [{"subject": "patient:C"}]},
        {"nonpersonal": {}},
        {"occurred_at": "2014-10-22T11:15:41Z"},
        {"schema_version": 2},
        {"causation_id": "0193a5e0-7c00-7000-8000-000000000001"},
        {"correlation_id": "0193a5e0-7c00-7000-8000-000000000001"},
    ],
)
def test_an_id_with_other_content_is_a_conflict(ledger: Ledger, change: dict[str, Any]) -> None:
    """I4: an id names one event for ever."""
    event = a_visit(id=new_event_id())
    ledger.append(event)
    with pytest.raises(IdConflictError) as caught:
        ledger.append({**event, **change})
    assert [fault.pointer for fault in caught.value.faults] == ["/events/0/id"]
    assert ledger.size() == 1


def test_a_batch_that_is_partly_recorded_is_refused(ledger: Ledger) -> None:
    """Some ids recorded, others not: the client is told which, and nothing is added."""
    known = a_fact(id=new_event_id())
    ledger.append(known)
    with pytest.raises(PartlyRecordedError) as caught:
        ledger.append(a_fact(id=new_event_id()), known, a_fact())
    assert [fault.pointer for fault in caught.value.faults] == ["/events/1/id"]
    assert ledger.size() == 1


def test_a_retry_after_an_erasure_gives_the_first_result(ledger: Ledger) -> None:
    """I4 and I6: what was erased is taken on trust; what stays readable still has to be the same."""
    parts = [{"subject": "patient:B", "data": {"contact": 1}}]
    event = a_visit("A", id=new_event_id(), nonpersonal={"ward": "ER"}, actor="group:L", parts=parts)
    first = ledger.append(event)
    ledger.erase("patient:B")
    assert ledger.append(event).events == first.events
    ledger.erase("patient:A")
    again = ledger.append(event)
    assert (again.duplicate, again.events) == (True, first.events)
    assert ledger.append({**event, "data": {"crp": 99}}).duplicate
    for change in ({"nonpersonal": {"ward": "ICU"}}, {"actor": "group:M"}, {"type": "Other"}, {"subject": "patient:B"}):
        with pytest.raises(IdConflictError):
            ledger.append({**event, **change})
    assert ledger.size() == 3
    ledger.assert_intact()


def test_a_twin_that_was_faster_answers(ledger: Ledger) -> None:
    """I4: an append that loses the race for the head against the same ids gives the winner's result."""
    event = a_visit(id=new_event_id())
    results: list[Any] = []

    class Slow:
        """Lets the twin in when the first append asks for the head lock."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.store, name)

        def locked_head(self, ledger_id: UUID) -> Any:
            if not results:
                results.append(ledger.append(event))
            return ledger.deps.store.locked_head(ledger_id)

    loser = ledger.with_parts(store=Slow()).append(event)
    assert loser.events == results[0].events
    assert loser.duplicate
    assert ledger.size() == 1


@pytest.mark.parametrize("persisted", [False, True], ids=["failed", "failed but persisted"])
def test_a_commit_of_unknown_outcome_is_asked_again(ledger: Ledger, persisted: bool) -> None:
    """I4, I11: when the store goes away at the commit, the same ids are tried once more and recorded exactly once."""
    failures: list[bool] = []

    class Flaky:
        """Breaks the first head lock, before or after its commit."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.store, name)

        def locked_head(self, ledger_id: UUID) -> Any:
            if failures:
                return ledger.deps.store.locked_head(ledger_id)
            failures.append(True)
            if persisted:
                return broken_after(ledger.deps.store.locked_head(ledger_id))
            raise StoreUnavailableError("away")

    result = ledger.with_parts(store=Flaky()).append(a_visit("A"), a_fact())
    assert not result.duplicate
    assert [event.position for event in result.events] == [0, 1]
    assert ledger.size() == 2
    ledger.assert_intact()


class broken_after:  # noqa: N801 - reads as what it is: a context manager
    """A block that ends well, and then says that it did not."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __enter__(self) -> Any:
        return self._inner.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._inner.__exit__(*error)
        raise StoreUnavailableError("away")


# Parts


def test_parts_stand_by_role_then_in_request_order(ledger: Ledger) -> None:
    """Roles 1 to 5 in order; the stream's name is in its owner's part, or in a part of its own, or the ledger's."""
    ledger.append(
        a_visit(
            "A",
            nonpersonal={"n": 1},
            actor="group:L",
            parts=[{"subject": "C", "data": {}}, {"subject": "B", "purpose": "p"}],
        ),
        a_visit("A", subject="C"),
        a_visit("A", purpose="medical"),
        a_fact(),
        a_fact(subject="B", data={}),
        {"stream": "ward-X", "type": "T", "subject": "B", "nonpersonal": {}},
    )
    a, b, c = (ledger.key_of(name) for name in ("patient:A", "B", "C"))
    own = own_key(ledger)
    further_c, b_p, actor = c, ledger.key_of("B", "p"), ledger.key_of("group:L", "actor")
    assert roles(ledger, 0) == [(1, a), (2, actor), (3, further_c), (3, b_p), (4, own)]
    assert roles(ledger, 1) == [(1, c), (5, a)]
    assert roles(ledger, 2) == [(1, ledger.key_of("patient:A", "medical")), (5, a)]
    assert roles(ledger, 3) == [(4, own)]
    assert roles(ledger, 4) == [(1, b), (4, own)]
    assert roles(ledger, 5) == [(1, b), (4, own)]
    assert [event.stream for event in ledger.query()] == ["patient-A"] * 3 + ["ward-ER"] * 2 + ["ward-X"]
    first = ledger.event_at(0)
    assert first.actor is not None
    assert (first.actor.subject, first.actor.purpose, first.actor.data) == ("group:L", "actor", None)
    assert [(part.subject, part.purpose, part.data) for part in first.further] == [("C", "", {}), ("B", "p", None)]


def test_a_part_s_length_tells_no_more_than_its_blocks(ledger: Ledger) -> None:
    """Sealed lengths differ by multiples of 64 bytes only, since lengths outlive the erasure."""
    for size in (0, 1, 30, 31, 32, 64, 65, 127, 128, 1000):
        ledger.append(a_visit(data={"x": "y" * size}, actor={"subject": "z" * (size % 200 + 1), "data": {}}))
    overhead = 1 + 16 + 32 + 16
    lengths = [len(part.sealed) for event in ledger.recorded() for part in event.parts]
    assert len(set(lengths)) > 3
    assert {(length - overhead) % 64 for length in lengths} == {0}


def test_no_two_sealings_are_alike(ledger: Ledger) -> None:
    """Equal content is sealed under fresh salts: nobody sees that two events say the same."""
    ledger.append(a_visit(), a_visit())
    first, second = (event.parts[0].sealed for event in ledger.recorded())
    assert first != second
    assert first[1:17] != second[1:17]


def test_an_event_far_above_a_mebibyte_is_refused(ledger: Ledger) -> None:
    """Too large once sealed: refused with the event's place in the batch, and nothing is recorded."""
    with pytest.raises(TooLargeError) as caught:
        ledger.append(a_fact(), a_visit(data={"x": "y" * 2**22}))
    assert [fault.pointer for fault in caught.value.faults] == ["/events/1"]
    assert ledger.size() == 0


# Owners


def test_a_stream_belongs_to_the_subject_of_its_first_event(ledger: Ledger) -> None:
    """Fixed for good: an event of somebody else's in it changes nothing, and nobody's stream stays nobody's."""
    ledger.append(a_visit("A"), a_visit("A", subject="patient:B"), a_fact("ward-1"))
    ledger.append(a_visit("A", subject="patient:B"), {**a_visit("B"), "stream": "ward-1"})
    streams = ledger.deps.vault.find_streams(ledger.ledger_id, ["patient-A", "ward-1"])
    assert streams["patient-A"].owner_ref == ledger.subject_ref("patient:A")
    assert streams["ward-1"].owner_ref is None
    ledger.erase("patient:B")
    assert ledger.append_one(a_visit("A")).stream_version == 4


def failing_first_append(ledger: Ledger) -> None:
    """Reserve the stream for patient:B and fail under the head lock."""

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.store, name)

        def locked_head(self, _: UUID) -> Any:
            raise StoreUnavailableError("away")

    with pytest.raises(StoreUnavailableError):
        ledger.with_parts(store=Full()).append(a_visit("A", subject="patient:B"))


def test_a_first_append_that_failed_owns_nothing(ledger: Ledger) -> None:
    """The owner is the subject of the first *event*: a ref that another's failed append reserved is given up."""
    failing_first_append(ledger)
    stray = ledger.deps.vault.find_streams(ledger.ledger_id, ["patient-A"])["patient-A"]
    place = ledger.append_one(a_visit("A"))
    entry = ledger.deps.vault.find_streams(ledger.ledger_id, ["patient-A"])["patient-A"]
    assert place.stream_ref == entry.ref != stray.ref
    assert entry.owner_ref == ledger.subject_ref("patient:A")
    with ledger.deps.store.locked_head(ledger.ledger_id) as lock:
        assert lock.abandoned([stray.ref, entry.ref]) == {stray.ref}
    ledger.erase("patient:B")
    assert ledger.append_one(a_visit("A")).stream_version == 2
    ledger.assert_intact()


def test_a_ref_that_was_given_up_and_never_replaced_stops_nobody(ledger: Ledger) -> None:
    """I12: whoever gives a ref up may die before the index forgets it; the next writer finishes that, its owner too."""
    failing_first_append(ledger)
    stray = ledger.deps.vault.find_streams(ledger.ledger_id, ["patient-A"])["patient-A"]
    with ledger.deps.store.locked_head(ledger.ledger_id) as lock:
        lock.abandon(stray.ref)
    place = ledger.append_one(a_visit("A", subject="patient:B"))
    assert place.stream_ref != stray.ref
    assert ledger.append_one(a_visit("A", subject="patient:B")).stream_ref == place.stream_ref


def test_a_stream_that_was_begun_meanwhile_is_not_given_up(ledger: Ledger) -> None:
    """I3: a writer that saw a ref without events, and finds one under the head lock, leaves the name its ref."""
    failing_first_append(ledger)
    begun: list[Appended] = []

    class Slow:
        """Lets the owner write its first event before the other writer gets the head lock."""

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger.deps.store, name)

        def locked_head(self, ledger_id: UUID) -> Any:
            if not begun:
                begun.append(ledger.append_one(a_visit("A", subject="patient:B")))
            return ledger.deps.store.locked_head(ledger_id)

    second = ledger.with_parts(store=Slow()).append_one(a_visit("A"))
    assert second.stream_ref == begun[0].stream_ref
    assert (begun[0].stream_version, second.stream_version) == (1, 2)


def test_a_first_append_that_failed_leaves_its_owner_the_stream(ledger: Ledger) -> None:
    """The same writer's next attempt finds the ref that it had reserved."""
    failing_first_append(ledger)
    stray = ledger.deps.vault.find_streams(ledger.ledger_id, ["patient-A"])["patient-A"]
    assert ledger.append_one(a_visit("A", subject="patient:B")).stream_ref == stray.ref


def test_two_first_writers_with_different_subjects_agree_on_one_owner(ledger: Ledger) -> None:
    """Whoever has the first event owns the stream, and every event in it is under that owner's key too."""
    for round_ in range(4):
        barrier = threading.Barrier(4)
        failures: list[LedgerError] = []

        def write(subject: str, stream: str, barrier: threading.Barrier, failures: list[LedgerError]) -> None:
            barrier.wait()
            try:
                ledger.append(a_visit("A", stream=stream, subject=subject))
            except BusyError as error:
                failures.append(error)

        stream = f"patient-{round_}"
        threads = [
            threading.Thread(target=write, args=(f"subject:{number}", stream, barrier, failures)) for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert failures == []
        ref, version = find_stream(ledger.deps, ledger.ledger_id, NameOrRef(stream, None))
        assert version == 4
        events = ledger.query(stream=NameOrRef(None, ref))
        owner = ledger.deps.vault.find_streams(ledger.ledger_id, [stream])[stream].owner_ref
        assert events[0].subject is not None
        assert events[0].subject.subject_ref == owner
        key = ledger.key_of(events[0].subject.subject or "")
        assert all(any(part.key_id == key for part in event.recorded.parts) for event in events)
    ledger.assert_intact()


# Erased people


def test_nothing_is_written_about_erased_people(ledger: Ledger) -> None:
    """I8: as main subject, further subject, or owner of the stream: refused, with nothing of the batch recorded."""
    ledger.append(a_visit("A"), a_visit("B"))
    ledger.erase("patient:A")
    size = ledger.size()
    cases = {
        "/events/1/subject": a_visit("B", subject="patient:A"),
        "/events/1/parts/1/subject": a_visit("B", parts=[{"subject": "C"}, {"subject": "patient:A"}]),
        "/events/1/stream": a_visit("A", subject="patient:B"),
    }
    for pointer, event in cases.items():
        with pytest.raises(SubjectErasedError) as caught:
            ledger.append(a_visit("B"), event)
        assert [(fault.pointer, fault.index) for fault in caught.value.faults] == [(pointer, 1)]
    with pytest.raises(SubjectErasedError):
        ledger.append(a_visit("A"))
    with pytest.raises(SubjectErasedError):
        ledger.append(a_visit("A", stream="other-1"))
    assert ledger.size() == size


def test_erased_people_can_be_left_out(ledger: Ledger) -> None:
    """``if_erased: omit`` drops the parts of erased people, whatever their role, and keeps everybody else's."""
    ledger.append(a_visit("A", actor="group:L"), a_visit("B"), a_fact())
    ledger.erase("patient:A")
    ledger.erase("group:L", ["actor"])
    people = [{"subject": "patient:A"}, {"subject": "patient:B", "data": {"x": 1}}]
    ledger.append(a_fact(subject="patient:A", data={"s": 1}, actor="group:L", parts=people, if_erased="omit"))
    event = ledger.event_at(ledger.size() - 1)
    assert (event.subject, event.actor, event.redactions) == (None, None, ())
    assert [(part.subject, part.data) for part in event.further] == [("patient:B", {"x": 1})]
    assert event.nonpersonal == {"beds": 4}
    ledger.assert_intact()


def test_not_even_omit_writes_into_an_erased_owner_s_stream(ledger: Ledger) -> None:
    """The name of the stream is the erased person's too."""
    ledger.append(a_visit("A"), a_visit("B"))
    ledger.erase("patient:A")
    for event in (a_visit("A", subject="patient:B", if_erased="omit"), a_visit("A", stream="new-1", if_erased="omit")):
        with pytest.raises(SubjectErasedError):
            ledger.append(event)


def test_an_omitted_part_stays_omitted_in_a_retry(ledger: Ledger) -> None:
    """I4: the retry of an event that had a part left out gives the first result."""
    ledger.append(a_visit("A"))
    ledger.erase("patient:A")
    event = a_fact(id=new_event_id(), parts=[{"subject": "patient:A", "data": {"x": 1}}], if_erased="omit")
    first = ledger.append(event)
    assert ledger.append(event).events == first.events


def test_an_erased_person_may_still_be_an_actor(ledger: Ledger) -> None:
    """Without purposes an erasure keeps what the person did as an actor, and that key goes on being used."""
    ledger.append(a_visit("A"), a_fact(actor="patient:A"))
    ledger.erase("patient:A")
    ledger.append(a_fact(actor="patient:A"))
    event = ledger.event_at(ledger.size() - 1)
    assert event.actor is not None
    assert event.actor.subject == "patient:A"


def test_while_an_erasure_is_under_way_writers_come_back_later(ledger: Ledger) -> None:
    """Between its first step and its end a subject that needs a new key is busy, not erased: what is asked may be one
    purpose of many."""
    ledger.append(a_visit("A", purpose="medical"), a_visit("B"))
    begin_partial_erasure(ledger, "patient:A", "medical")
    for event in (a_visit("B", subject="patient:A", purpose="other"), a_visit("A", stream="new-1", purpose="other")):
        with pytest.raises(BusyError) as caught:
            ledger.append(event)
        assert caught.value.faults


def begin_partial_erasure(ledger: Ledger, subject: str, purpose: str) -> UUID:
    """Step 1 of an erasure of one purpose."""
    erasure_id = UUID(new_event_id())
    ledger.deps.vault.begin_erasure(
        ledger.ledger_id,
        subject,
        erasure_id=erasure_id,
        purposes=[purpose],
        ground=None,
        reference=None,
        name_commitment=None,
        requested_at=ledger.deps.clock(),
        requested_by=OPERATOR,
        block_unknown=False,
    )
    return erasure_id


# By ref


def refs_of(ledger: Ledger, subject: str, stream: str) -> dict[str, str]:
    """Subject and stream by ref, as they stand in a request."""
    ref, _ = find_stream(ledger.deps, ledger.ledger_id, NameOrRef(stream, None))
    return {
        "subject": None,  # type: ignore[dict-item]  # null stands for absent
        "stream": None,  # type: ignore[dict-item]  # likewise
        "subject_ref": format_ref("sub", ledger.subject_ref(subject)),
        "stream_ref": format_ref("str", ref),
    }


def test_events_can_be_appended_by_ref(ledger: Ledger) -> None:
    """Stream, subject, actor and further subjects by ref end in the same event as by name."""
    parts = [{"subject": "patient:B", "data": {"x": 1}}]
    ledger.append(a_visit("A", actor="group:L", parts=parts))
    by_ref = refs_of(ledger, "patient:A", "patient-A")
    actor = format_ref("sub", ledger.subject_ref("group:L"))
    other = format_ref("sub", ledger.subject_ref("patient:B"))
    ledger.append(a_visit("A", **by_ref, actor_ref=actor, parts=[{"subject_ref": other, "data": {"x": 1}}]))
    ledger.append(
        a_visit("A", **by_ref, actor={"subject_ref": actor}, parts=[{"subject_ref": other, "data": {"x": 1}}])
    )
    first, second, third = ledger.query()
    assert [part.key_id for part in first.recorded.parts] == [part.key_id for part in second.recorded.parts]
    for event in (second, third):
        assert (event.stream, event.subject, event.actor, event.further) == (
            first.stream,
            first.subject,
            first.actor,
            first.further,
        )


def test_unknown_refs_are_not_found(ledger: Ledger) -> None:
    """A ref that nothing is recorded under is told with its place."""
    ledger.append(a_visit("A"))
    nobody, nowhere = format_ref("sub", b"n" * 16), format_ref("str", b"n" * 16)
    cases: dict[str, dict[str, Any]] = {
        "/events/0/subject_ref": a_visit("A", subject=None, subject_ref=nobody),
        "/events/0/stream_ref": a_visit("A", stream=None, stream_ref=nowhere),
        "/events/0/actor": a_visit("A", actor={"subject_ref": nobody}),
        "/events/0/parts/0/subject_ref": a_visit("A", parts=[{"subject_ref": nobody}]),
    }
    for pointer, event in cases.items():
        with pytest.raises(NotFoundError) as caught:
            ledger.append(event)
        assert [fault.pointer for fault in caught.value.faults] == [pointer]


def test_refs_of_erased_people_are_refused(ledger: Ledger) -> None:
    """I8: neither their ref nor that of their stream leads to a new event."""
    ledger.append(a_visit("A"), a_visit("B"))
    by_ref = refs_of(ledger, "patient:A", "patient-A")
    ledger.erase("patient:A")
    for fields in ({"subject": None, "subject_ref": by_ref["subject_ref"]}, {"actor_ref": by_ref["subject_ref"]}):
        with pytest.raises(SubjectErasedError):
            ledger.append(a_visit("B", **fields))
    with pytest.raises(SubjectErasedError):
        ledger.append(a_visit("A", stream=None, stream_ref=by_ref["stream_ref"], subject="patient:B"))


def test_parts_of_erased_people_can_be_omitted_by_ref_too(ledger: Ledger) -> None:
    """`if_erased: omit` means the same whether a person is given by name or by ref."""
    ledger.append(a_visit("A"), a_visit("B"))
    ref = refs_of(ledger, "patient:A", "patient-A")["subject_ref"]
    erasing = {"if_erased": "omit", "nonpersonal": {"ward": "ER"}}
    ledger.erase("patient:A")
    ledger.append(a_visit("B", **erasing, actor_ref=ref, parts=[{"subject_ref": ref, "data": {"x": 1}}]))
    as_actor = ledger.event_at(ledger.size() - 1)
    assert as_actor.subject is not None
    assert (as_actor.subject.subject, as_actor.actor, as_actor.further) == ("patient:B", None, ())
    by_ref = {"subject": None, "subject_ref": ref, **erasing}
    ledger.append(a_visit("B", **by_ref))
    as_subject = ledger.event_at(ledger.size() - 1)
    assert (as_subject.subject, as_subject.nonpersonal) == (None, {"ward": "ER"})
    ledger.append(a_visit("C"), a_visit("C", **by_ref))
    assert ledger.event_at(ledger.size() - 1).stream == "patient-C"


def test_a_stream_does_not_begin_without_the_erased_subject_that_would_own_it(ledger: Ledger) -> None:
    """Its name would be sealed under the ledger's key, and nobody could erase it any more."""
    ledger.append(a_visit("A"))
    ref = refs_of(ledger, "patient:A", "patient-A")["subject_ref"]
    ledger.erase("patient:A")
    size = ledger.size()
    with pytest.raises(SubjectErasedError) as caught:
        ledger.append(a_visit("new", subject=None, subject_ref=ref, if_erased="omit", nonpersonal={"ward": "ER"}))
    assert [fault.pointer for fault in caught.value.faults] == ["/events/0/subject_ref"]
    assert ledger.size() == size


def test_the_ref_of_one_who_was_blocked_before_any_event_is_refused_too(ledger: Ledger) -> None:
    """The ref is known, as an erased person's: no 404, and what may be omitted is omitted."""
    ledger.erase("late:1", block_unknown=True)
    ref = format_ref("sub", ledger.subject_ref("late:1"))
    with pytest.raises(SubjectErasedError):
        ledger.append(a_visit("A", actor_ref=ref))
    ledger.append(a_visit("A", actor_ref=ref, if_erased="omit"))
    assert ledger.event_at(ledger.size() - 1).actor is None


def test_a_ref_works_while_any_purpose_is_left(ledger: Ledger) -> None:
    """An erasure of the purpose that the first event was for does not take the person's ref away."""
    ledger.append(a_visit("A", stream="x-1", purpose="medical"), a_visit("A", stream="x-1", purpose="billing"))
    ledger.erase("patient:A", ["medical"])
    ref = format_ref("sub", ledger.subject_ref("patient:A"))
    ledger.append(a_visit("A", stream="x-1", subject=None, subject_ref=ref, purpose="billing"))
    event = ledger.event_at(ledger.size() - 1)
    assert event.subject is not None
    assert event.subject.subject == "patient:A"


def test_the_ledger_s_own_streams_are_nobody_s_by_ref_either(ledger: Ledger) -> None:
    """A client cannot write into the stream of an erasure by taking its ref."""
    ledger.append(a_visit("A"))
    erasure = ledger.erase("patient:A").erasure.entry.erasure_id
    size = ledger.size()
    with pytest.raises(InvalidError) as caught:
        ledger.append({"stream_ref": format_ref("str", erasure.bytes), "type": "Note", "nonpersonal": {}})
    assert [fault.pointer for fault in caught.value.faults] == ["/events/0/stream_ref"]
    assert ledger.size() == size


def test_what_cannot_be_read_any_more_is_not_called_erased(ledger: Ledger) -> None:
    """I9: a ref whose event was tampered with is an integrity error, not an erasure."""
    ledger.append(a_visit("A"))
    by_ref = refs_of(ledger, "patient:A", "patient-A")
    ledger.edit(0, event_type="Other")
    for fields in (
        {"subject": None, "subject_ref": by_ref["subject_ref"]},
        {"stream": None, "stream_ref": by_ref["stream_ref"]},
    ):
        with pytest.raises(LedgerError) as caught:
            ledger.append(a_visit("A", **fields))
        assert not isinstance(caught.value, SubjectErasedError | NotFoundError)


# Restricted people


def test_restricted_people_can_be_written_about(ledger: Ledger) -> None:
    """They are stored and shown as restricted, and readable again when the restriction is lifted."""
    ledger.append(a_visit("A"))
    ref = ledger.subject_ref("patient:A")
    ledger.deps.vault.restrict(ledger.ledger_id, ref, 5)
    ledger.append(a_visit("A", data={"new": 1}))
    assert [reasons(event) for event in ledger.query()] == [{"/data": "restricted"}] * 2
    assert describe_subject(ledger.deps, ledger.ledger_id, who(ref)).events == 2
    ledger.deps.vault.lift_restriction(ledger.ledger_id, ref, 6)
    assert [event.subject.data for event in ledger.query() if event.subject] == [{"crp": 12}, {"new": 1}]
    assert ledger.alarms == []


# Lines


def lines(ledger: Ledger, *texts: str, label: str | None = None) -> list[LineResult]:
    """Ingest lines of text."""
    source = Source(OPERATOR, label)
    return list(ingest_lines(ledger.deps, ledger.ledger_id, [text.encode() + b"\n" for text in texts], source))


GOOD = '{"stream":"ward-ER","type":"Opened","nonpersonal":{"beds":4}}'


def test_a_bad_line_loses_no_good_one(ledger: Ledger) -> None:
    """Each line is answered in order, whatever is wrong with its neighbours; blank lines are no lines."""
    with_id = f'{{"id":"{new_event_id()}","stream"'
    one_id, other_content = (text.replace('{"stream"', with_id, 1) for text in (GOOD, GOOD.replace("4", "5")))
    ledger.append(a_visit("Z"))
    ledger.erase("patient:Z")
    size = ledger.size()
    results = lines(
        ledger,
        GOOD,
        "not json",
        "",
        '{"stream":"ward-ER"}',
        one_id,
        one_id,
        other_content,
        '{"stream":"patient-Z","type":"T","subject":"patient:Z","data":{}}',
        '{"stream":"ward-ER","type":"T","nonpersonal":{},"expected_version":77}',
        GOOD,
    )
    names = [type(result.error).__name__ if result.error else result.duplicate for result in results]
    assert [result.line for result in results] == [1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert names == [
        False,
        "MalformedError",
        "InvalidError",
        False,
        True,
        "IdConflictError",
        "SubjectErasedError",
        "VersionConflictError",
        False,
    ]
    assert results[3].appended == results[4].appended
    assert ledger.size() == size + 3
    ledger.assert_intact()


def test_lines_with_a_label_can_be_sent_again(ledger: Ledger) -> None:
    """I4: ids derived from label and line number record a second sending nothing twice, and another label does."""
    first = lines(ledger, GOOD, GOOD, label="a")
    again = lines(ledger, GOOD, GOOD, GOOD, label="a")
    assert [result.duplicate for result in again] == [True, True, False]
    assert [result.appended for result in again[:2]] == [result.appended for result in first]
    assert [result.duplicate for result in lines(ledger, GOOD, label="b")] == [False]
    assert {
        get_event(ledger.deps, ledger.ledger_id, event.envelope.event_id).recorded.envelope.event_id.version
        for event in ledger.recorded()
    } == {8}


def test_the_operator_is_a_recorder_too(ledger: Ledger) -> None:
    """Who recorded an event stands in it."""
    append_events(ledger.deps, ledger.ledger_id, [parse_event(a_fact())], OPERATOR)
    assert ledger.recorded()[0].recorded_by == OPERATOR
    assert ledger.positions(recorded_by=OPERATOR) == [0]
