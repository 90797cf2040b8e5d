"""What changed between two moments, and every value of a field, as a naive reader would work it out from the events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pytest

from ledger.domain.difference import ABSENT, apply_changes, same_json
from ledger.domain.events import JsonObject
from ledger.domain.fold import MERGE_PATCH, Folded, Folding
from ledger.domain.pointers import value_at
from ledger.errors import InvalidError, NotFoundError
from ledger.services.evolution.current import open_current
from ledger.services.timetravel import history as history_service
from ledger.services.timetravel.diff import DiffPage, Moments, diff_category, diff_stream
from ledger.services.timetravel.history import HistoryPage, field_history
from ledger.services.timetravel.state import stream_state
from ledger.services.timetravel.states import stream_states
from tests.support.ledgers import Backend, Ledger, a_fact, a_visit, who
from tests.support.timelines import at, every_page, mixed_ledger, naive, occurred, positions, some_occurred, streams


@pytest.fixture(scope="module")
def filled(backend: Backend) -> Ledger:
    """A ledger of many streams; nobody appends to it."""
    return mixed_ledger(backend)


# Diff


def compared(page: DiffPage) -> dict[bytes, tuple[JsonObject, JsonObject]]:
    """Stream → (old state, new state), having checked that the changes lead from the one to the other."""
    found = {}
    for stream in page.streams:
        changes = [item.change for item in stream.changes]
        assert same_json(apply_changes(changes, stream.old.state), stream.new.state)
        found[stream.stream_ref] = (stream.old.state, stream.new.state)
    return found


def test_a_difference_leads_from_the_old_state_to_the_new_and_names_its_events(filled: Ledger) -> None:
    """For every pair of moments; the event behind each change is in between and made the value what it is."""
    ref = streams(filled, "patient")[0]
    for old in positions(filled):
        for new in positions(filled):
            if old > new:
                continue
            page = diff_stream(filled.deps, filled.ledger_id, who(ref), Moments(old_as_of=at(old), new_as_of=at(new)))
            (stream,) = page.streams
            assert (page.old.position, page.new.position, page.next) == (old, new, None)
            assert compared(page)[ref] == (naive(filled, ref, old).state, naive(filled, ref, new).state)
            assert stream.new.hidden == naive(filled, ref, new).hidden
            for item in stream.changes:
                position = item.event.position
                assert old < position <= new
                before = value_at(naive(filled, ref, position - 1).state, item.change.path)
                after = value_at(naive(filled, ref, position).state, item.change.path)
                assert not same_json(before, after)
                assert same_json(after, ABSENT if item.change.op == "remove" else item.change.new)


def test_a_difference_on_the_occurred_axis_has_both_axes(filled: Ledger) -> None:
    """What we believed then about one moment, against what we believe now about another."""
    ref = streams(filled, "patient")[1]
    times = some_occurred(filled)
    for old, new in ((20, 60), (60, 60), (-1, filled.size() - 1)):
        for earlier, later in ((times[1], times[1]), (times[1], times[3]), (times[0], times[4])):
            moments = Moments(
                old_as_of=at(old), new_as_of=at(new), old_occurred_as_of=earlier, new_occurred_as_of=later
            )
            page = diff_stream(filled.deps, filled.ledger_id, who(ref), moments)
            expected = (naive(filled, ref, old, earlier).state, naive(filled, ref, new, later).state)
            assert compared(page)[ref] == expected


def test_the_difference_of_a_category_is_that_of_its_streams_that_have_events_in_between(filled: Ledger) -> None:
    """Page by page, on both axes."""
    times = some_occurred(filled)
    for old, new, earlier, later in ((30, 60, None, None), (100, 100, None, None), (30, 60, times[1], times[3])):
        moments = Moments(old_as_of=at(old), new_as_of=at(new), old_occurred_as_of=earlier, new_occurred_as_of=later)
        pages = every_page(partial(ask_diff, filled, moments))
        found = {ref: states for page in pages for ref, states in compared(page).items()}
        expected = {
            ref: (was.state, became.state)
            for ref in streams(filled, "patient")
            if seen(was := naive(filled, ref, old, earlier)) != seen(became := naive(filled, ref, new, later))
        }
        assert expected.items() <= found.items()
        assert list(found) == sorted(found)
        for ref in found.keys() - expected.keys():
            assert found[ref][0] == found[ref][1], "events that changed nothing"
        if old == new and earlier == later:
            assert found == {}


def seen(folded: Folded) -> str:
    """A state as text, to compare."""
    return json.dumps(folded.state, sort_keys=True)


def ask_diff(ledger: Ledger, moments: Moments, cursor: str | None) -> DiffPage:
    """A page of the category's changes."""
    if cursor is not None:
        return diff_category(ledger.deps, ledger.ledger_id, cursor=cursor, limit=3)
    return diff_category(ledger.deps, ledger.ledger_id, "patient", moments, limit=3)


def test_a_change_names_who_made_it_until_they_are_erased(ledger: Ledger) -> None:
    """Then the ref is left; the change itself stays."""
    ledger.append_one(a_visit(data={"iban": "X1"}, actor="nurse:N"))
    ledger.append_one(a_visit(data={"iban": "X2"}, actor="nurse:M"))
    moments = Moments(old_as_of=at(0))

    def actor() -> tuple[str | None, bytes | None]:
        (item,) = diff_stream(ledger.deps, ledger.ledger_id, who("patient-A"), moments).streams[0].changes
        assert (item.change.old, item.change.new) == ("X1", "X2")
        return item.event.actor, item.event.actor_ref

    ref = ledger.subject_ref("nurse:M")
    assert actor() == ("nurse:M", ref)
    ledger.erase("nurse:M", ["actor"])
    assert actor() == (None, ref)


def test_a_change_behind_a_redaction_is_not_invented(ledger: Ledger) -> None:
    """What was erased is in neither state, and the stream says that it is not complete."""
    ledger.append_one(a_visit(stream="ward-1", subject="patient:B", data={"a": 1}))
    ledger.append_one(a_visit(stream="ward-1", data={"iban": "X1"}, nonpersonal={"beds": 1}))
    ledger.append_one(a_visit(stream="ward-1", data={"iban": "X2"}, nonpersonal={"beds": 2}))
    ledger.erase("patient:A")

    (stream,) = diff_stream(ledger.deps, ledger.ledger_id, who("ward-1"), Moments(old_as_of=at(1))).streams

    assert [(item.change.path, item.change.new) for item in stream.changes] == [(("beds",), 2)]
    assert not stream.new.complete
    assert stream.new.hidden[0].positions == (1, 2)


@pytest.mark.parametrize(
    ("moments", "pointer"),
    [
        (Moments(old_as_of=at(2), new_as_of=at(1)), "/old_as_of"),
        (Moments(old_as_of=at(99)), "/old_as_of"),
        (Moments(old_as_of=at(0), new_as_of=at(99)), "/new_as_of"),
        (Moments(old_as_of=at(0), old_occurred_as_of=1), "/new_occurred_as_of"),
        (Moments(old_as_of=at(0), new_occurred_as_of=1), "/old_occurred_as_of"),
        (Moments(old_as_of=at(0), old_occurred_as_of=2, new_occurred_as_of=1), "/old_occurred_as_of"),
    ],
)
def test_moments_that_are_not_in_order_are_refused(ledger: Ledger, moments: Moments, pointer: str) -> None:
    """With a pointer to the one that is wrong."""
    ledger.append(*[a_fact() for _ in range(3)])

    refused: Sequence[Callable[[], object]] = [
        lambda: diff_stream(ledger.deps, ledger.ledger_id, who("ward-ER"), moments),
        lambda: diff_category(ledger.deps, ledger.ledger_id, "ward", moments),
    ]
    for ask in refused:
        with pytest.raises(InvalidError) as error:
            ask()
        assert [fault.pointer for fault in error.value.faults] == [pointer]


# History


def naive_history(ledger: Ledger, ref: bytes, path: tuple[str, ...], position: int, moment: int | None) -> list[Any]:
    """(value, position of its event, whether something is hidden), by folding anew up to each event."""
    rows = [row for row in ledger.recorded() if row.envelope.stream_ref == ref and row.position <= position]
    if moment is not None:
        rows = sorted((row for row in rows if occurred(row) <= moment), key=occurred)
    entries, folding = [], Folding(MERGE_PATCH)
    for event in open_current(ledger.deps, ledger.ledger_id, rows, MERGE_PATCH.roles):
        before = value_at(folding.state, path)
        folding.add(event)
        after = value_at(folding.state, path)
        if not same_json(before, after) or event.redactions:
            value = "hidden" if same_json(before, after) else after
            entries.append((value, event.recorded.position, bool(event.redactions)))
    return entries


def shown(pages: Iterable[HistoryPage]) -> list[Any]:
    """The same of pages."""
    return [
        (
            "hidden" if value.absent is None else ABSENT if value.absent else value.value,
            value.event.position,
            bool(value.redactions),
        )
        for page in pages
        for value in page.values
    ]


@pytest.mark.parametrize("limit", [1000, 2])
def test_a_history_has_every_value_in_order(filled: Ledger, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On both axes, in any pages, and with a gap where something is hidden."""
    if limit == 2:
        monkeypatch.setattr(history_service, "EVENTS_OF_A_PAGE", 4)
    gaps = 0
    for ref in [*streams(filled, "patient")[:3], *streams(filled, "ward")]:
        for path in ("/a", "/c/x", "/d", ""):
            for moment in [None, some_occurred(filled)[3]]:
                keys = tuple(path.split("/")[1:])
                expected = naive_history(filled, ref, keys, 90, moment)
                pages = every_page(partial(ask_history, filled, ref, path, moment, limit))
                assert shown(pages) == expected
                assert all(len(page.values) <= limit for page in pages)
                gaps += sum(hidden for _, _, hidden in expected)
    assert gaps, "nothing was hidden, so nothing was shown of gaps"


def ask_history(
    ledger: Ledger, ref: bytes, path: str, moment: int | None, limit: int, cursor: str | None
) -> HistoryPage:
    """A page of a history."""
    return field_history(
        ledger.deps,
        ledger.ledger_id,
        who(ref),
        path,
        as_of=at(90),
        occurred_as_of=moment,
        cursor=cursor,
        limit=limit,
    )


def test_a_history_says_who_changed_the_field_and_what_is_hidden(ledger: Ledger) -> None:
    """An erased owner leaves gaps, one for each event."""
    for number, actor in enumerate(["nurse:N", "nurse:M"]):
        ledger.append_one(a_visit(data={"iban": f"X{number}"}, actor=actor))
    ledger.append_one(a_visit(data={"crp": 1}))
    ledger.append_one(a_visit(data={"iban": None}))

    before = field_history(ledger.deps, ledger.ledger_id, who("patient-A"), "/iban").values
    ledger.erase("patient:A")
    after = field_history(ledger.deps, ledger.ledger_id, who("patient-A"), "/iban").values

    assert [(value.value, value.absent) for value in before] == [("X0", False), ("X1", False), (None, True)]
    assert [value.event.actor for value in before if value.event.actor] == ["nurse:N", "nurse:M"]
    assert [(value.value, value.absent) for value in after] == [(None, None)] * 4
    assert {redaction.reason for value in after for redaction in value.redactions} == {"erased"}


# What is refused


def test_a_cursor_goes_with_its_question_only(filled: Ledger) -> None:
    """Another question, another ledger, another kind of cursor: 422, and what to do."""
    deps, ledger_id = filled.deps, filled.ledger_id
    states = stream_states(deps, ledger_id, category="patient", as_of=at(50), limit=1).next
    moments = Moments(old_as_of=at(0), new_as_of=at(60))
    diff = diff_category(deps, ledger_id, "patient", moments, limit=1).next
    ref, other_ref = streams(filled, "patient")[:2]
    history = field_history(deps, ledger_id, who(ref), "", limit=1).next
    assert states is not None
    assert diff is not None
    assert history is not None
    small = filled.backend.new_ledger()

    again = stream_states(deps, ledger_id, category="patient", as_of=at(50), cursor=states, limit=1)
    assert again == stream_states(deps, ledger_id, cursor=states, limit=1)
    assert diff_category(deps, ledger_id, "patient", moments, cursor=diff).next is None

    refused: Sequence[Callable[[], object]] = [
        lambda: stream_states(deps, ledger_id, category="ward", cursor=states),
        lambda: stream_states(deps, ledger_id, subject=who("patient:1"), cursor=states),
        lambda: stream_states(deps, ledger_id, subject=who("nobody"), cursor=states),
        lambda: stream_states(deps, ledger_id, category="patient", as_of=at(51), cursor=states),
        lambda: stream_states(deps, ledger_id, category="patient", occurred_as_of=5, cursor=states),
        lambda: stream_states(deps, ledger_id, as_of=at(50), cursor=states),
        lambda: stream_states(deps, ledger_id, cursor=diff),
        lambda: stream_states(small.deps, small.ledger_id, cursor=states),
        lambda: diff_category(deps, ledger_id, "ward", moments, cursor=diff),
        lambda: diff_category(deps, ledger_id, "patient", cursor=diff),
        lambda: diff_category(deps, ledger_id, "patient", Moments(old_as_of=at(1), new_as_of=at(60)), cursor=diff),
        lambda: diff_category(deps, ledger_id, "patient", Moments(old_as_of=at(0), new_as_of=at(61)), cursor=diff),
        lambda: diff_category(deps, ledger_id, cursor=states),
        lambda: field_history(deps, ledger_id, who(other_ref), "/a", cursor=history),
        lambda: field_history(deps, ledger_id, who(ref), "/a", as_of=at(3), cursor=history),
        lambda: field_history(deps, ledger_id, who(ref), "/a", occurred_as_of=3, cursor=history),
        lambda: field_history(deps, ledger_id, who(ref), "/a", cursor=states),
    ]
    for number, ask in enumerate(refused):
        with pytest.raises(InvalidError) as error:
            ask()
        assert [fault.pointer for fault in error.value.faults] == ["/cursor"], number


def test_a_question_that_says_too_little_or_too_much_is_refused(filled: Ledger) -> None:
    """And a stream that nobody knows is not found."""
    deps, ledger_id = filled.deps, filled.ledger_id
    moments = Moments(old_as_of=at(0))
    refused: dict[str, Callable[[], object]] = {
        "/category": lambda: stream_states(deps, ledger_id),
        "/subject": lambda: stream_states(deps, ledger_id, category="ward", subject=who("patient:1")),
        "/path": lambda: field_history(deps, ledger_id, who("patient-1"), "iban"),
        "/as_of": lambda: stream_states(deps, ledger_id, category="ward", as_of=at(10_000)),
    }
    for pointer, ask in refused.items():
        with pytest.raises(InvalidError) as error:
            ask()
        assert [fault.pointer for fault in error.value.faults] == [pointer]
    not_found: Sequence[Callable[[], object]] = [
        lambda: diff_stream(deps, ledger_id, who("patient-nobody"), moments),
        lambda: field_history(deps, ledger_id, who(b"?" * 16), "/a"),
        lambda: stream_state(deps, ledger_id, who("patient-nobody")),
    ]
    for not_there in not_found:
        with pytest.raises(NotFoundError):
            not_there()
    with pytest.raises(InvalidError):
        diff_category(deps, ledger_id)
