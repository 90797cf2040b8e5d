"""Differences lead from one state to the other, say where, and name the event behind each."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.difference import (
    ABSENT,
    Change,
    Comparison,
    apply_changes,
    cause_of,
    changed_paths,
    differences,
    same_json,
)
from ledger.domain.events import JsonObject, OpenedEvent
from ledger.domain.fold import MERGE_PATCH, Fold, Folding
from ledger.domain.history import FieldHistory
from ledger.domain.pointers import format_pointer, parse_pointer, pointer_fault, value_at
from tests.support.streams import OBJECTS, VALUES, an_event, hidden, histories


@given(OBJECTS, OBJECTS)
def test_a_difference_leads_from_the_old_state_to_the_new(old: JsonObject, new: JsonObject) -> None:
    """Exactly: null is not absent, and true is not 1."""
    before = copy.deepcopy((old, new))
    changes = differences(old, new)

    assert same_json(apply_changes(changes, old), new)
    assert (old, new) == before
    assert bool(changes) is not same_json(old, new)
    assert [change.path for change in changes] == sorted({change.path for change in changes})


@given(OBJECTS, OBJECTS)
def test_every_change_is_one(old: JsonObject, new: JsonObject) -> None:
    """Its values are those of the two states, and no path lies within another's."""
    changes = differences(old, new)
    for change in changes:
        was, became = value_at(old, change.path), value_at(new, change.path)
        expected = {"add": (ABSENT, change.new), "remove": (change.old, ABSENT), "replace": (change.old, change.new)}
        assert same_json([was, became], list(expected[change.op]))
        assert not any(other.path == change.path[: len(other.path)] for other in changes if other is not change)


def test_objects_are_compared_by_member_and_arrays_as_a_whole() -> None:
    """So a path always leads through objects."""
    old = {"a": {"b": 1, "c": [1, 2], "d": None}, "x": {"y": 1}, "z": 1}
    new = {"a": {"b": 2, "c": [1, 3]}, "x": 5, "w": {"v": None}, "z": True}

    assert differences(old, new) == [
        Change(("a", "b"), "replace", 1, 2),
        Change(("a", "c"), "replace", [1, 2], [1, 3]),
        Change(("a", "d"), "remove", None, None),
        Change(("w",), "add", None, {"v": None}),
        Change(("x",), "replace", {"y": 1}, 5),
        Change(("z",), "replace", 1, True),
    ]


@given(histories(), st.data())
def test_state_plus_difference_is_the_later_state(events: list[OpenedEvent], data: st.DataObject) -> None:
    """Between any two points of a history, with each change laid to the last event that changed the value."""
    first = data.draw(st.integers(0, len(events)))
    start = Folding(MERGE_PATCH)
    start.extend(events[:first])
    compared = Comparison(MERGE_PATCH, start.result())
    for event in events[first:]:
        compared.add(event)

    found = compared.changes()

    assert compared.old == start.result()
    assert same_json(apply_changes([item.change for item in found], compared.old.state), compared.new.state)
    for item in found:
        last = last_to_change(events[first:], start, item.change.path)
        assert last is not None
        assert item.event == cause_of(last)


def last_to_change(events: list[OpenedEvent], start: Folding, path: tuple[str, ...]) -> OpenedEvent | None:
    """The same by looking at the one value after each event."""
    folding, last = Folding(MERGE_PATCH, start.result()), None
    for event in events:
        before = value_at(folding.state, path)
        folding.add(event)
        if not same_json(before, value_at(folding.state, path)):
            last = event
    return last


def test_the_cause_is_who_took_the_value_away_not_who_touched_its_place_later() -> None:
    """/q/p went with the first event; that /q was something else in between did not take it away again."""
    start = Folding(MERGE_PATCH)
    start.add(an_event(1, data={"q": {"p": 1}}))
    compared = Comparison(MERGE_PATCH, start.result())
    second = an_event(2, data={"q": 1})
    compared.add(second)
    compared.add(an_event(3, data={"q": {}}))

    (only,) = compared.changes()

    assert only.change == Change(("q", "p"), "remove", 1, None)
    assert only.event == cause_of(second)


def test_a_change_that_lies_in_what_did_not_happen_is_laid_to_the_newest_event() -> None:
    """A fold whose events hang on each other: the late one keeps the other from having its effect."""

    def first_only(state: JsonObject, event: OpenedEvent) -> JsonObject:
        return state or dict(event.nonpersonal or {})

    compared = Comparison(Fold("first", 1, first_only))
    late, known = an_event(2, nonpersonal={"b": 1}), an_event(1, nonpersonal={"a": 1})
    compared.add(late)
    compared.add(known, to_both=True)

    assert [(item.change.path, item.change.op, item.event) for item in compared.changes()] == [
        (("a",), "remove", cause_of(late)),
        (("b",), "add", cause_of(late)),
    ]


@given(VALUES, VALUES)
def test_changed_paths_are_those_whose_values_differ(old: Any, new: Any) -> None:
    """Inner and outer ones, and none is named twice."""
    paths = list(changed_paths(old, new))

    assert len(paths) == len(set(paths))
    assert bool(paths) is not same_json(old, new)
    for path in paths:
        assert not same_json(_member(old, path), _member(new, path))


def _member(value: Any, path: tuple[str, ...]) -> Any:
    """As ``value_at``, through objects alone."""
    for key in path:
        value = value.get(key, ABSENT) if isinstance(value, dict) else ABSENT
    return value


@given(st.lists(st.text("ab/~01é", max_size=4), max_size=4).map(tuple))
def test_a_pointer_is_read_as_it_was_written(path: tuple[str, ...]) -> None:
    """Tilde and slash are escaped, as RFC 6901 says."""
    assert parse_pointer(format_pointer(path)) == path


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", {"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8, "l": [[5]]}),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/m~0n", 8),
        ("/l/0/0", 5),
        ("/foo/2", ABSENT),
        ("/foo/01", ABSENT),
        ("/foo/-", ABSENT),
        ("/foo/-1", ABSENT),
        ("/foo/\u0660", ABSENT),
        ("/nothing/here", ABSENT),
        ("//x", ABSENT),
    ],
)
def test_a_pointer_leads_to_its_value(pointer: str, value: object) -> None:
    """The examples of RFC 6901 §5, and what leads nowhere."""
    path = parse_pointer(pointer)

    assert path is not None
    assert value_at({"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8, "l": [[5]]}, path) == value


@pytest.mark.parametrize("text", ["iban", "/a~", "/a~2", "a/b", None, 5, "/" + "x" * 1024])
def test_what_is_no_pointer_is_refused(text: object) -> None:
    """And not guessed at."""
    assert parse_pointer(text) is None
    assert pointer_fault(text) is not None


@given(histories(), OBJECTS)
def test_a_history_has_every_value_that_a_field_had(events: list[OpenedEvent], sample: JsonObject) -> None:
    """One entry for each event that changed the value, and one for each that hides something."""
    path = next(iter(sample), "a")
    history, folding = FieldHistory(MERGE_PATCH, (path,)), Folding(MERGE_PATCH)
    for event in events:
        before = folding.state.get(path, ABSENT)
        folding.add(event)
        after = folding.state.get(path, ABSENT)
        entry = history.add(event)
        gap = any(redaction.pointer in ("/data", "") for redaction in event.redactions)
        if same_json(before, after):
            assert (entry is not None) is gap
            assert entry is None or (entry.value, entry.absent) == (None, None)
        else:
            assert entry is not None
            assert entry.absent is (after is ABSENT)
            assert same_json(entry.value, None if after is ABSENT else after)
        assert entry is None or bool(entry.redactions) is gap


def test_what_is_hidden_beside_a_value_is_said() -> None:
    """The nonpersonal part gave a value; the hidden data may have given another."""
    history = FieldHistory(MERGE_PATCH, ("beds",))

    entry = history.add(an_event(1, nonpersonal={"beds": 4}, redactions=(hidden("/data"),)))

    assert entry is not None
    assert (entry.value, entry.absent, entry.redactions) == (4, False, (hidden("/data"),))
