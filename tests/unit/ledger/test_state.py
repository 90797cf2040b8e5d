"""State is the fold of events by JSON Merge Patch, and says when something hidden could have changed it."""

from __future__ import annotations

import copy
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.events import Envelope, JsonObject, OpenedEvent, OpenedPart, RecordedEvent, Redaction
from ledger.domain.fold import MERGE_PATCH, Folding
from ledger.domain.state import HiddenParts, merge_patch

REF = b"r" * 16


@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_rfc_7396(original: Any, patch: Any, result: Any) -> None:
    """Every example of RFC 7396, Appendix A."""
    assert merge_patch(original, patch) == result


def test_the_example_document_of_rfc_7396() -> None:
    """The document of RFC 7396 §3."""
    target = {
        "title": "Goodbye!",
        "author": {"givenName": "John", "familyName": "Doe"},
        "tags": ["example", "sample"],
        "content": "This will be unchanged",
    }
    patch = {"title": "Hello!", "phoneNumber": "+01-123-456-7890", "author": {"familyName": None}, "tags": ["example"]}
    assert merge_patch(target, patch) == {
        "title": "Hello!",
        "author": {"givenName": "John"},
        "tags": ["example"],
        "content": "This will be unchanged",
        "phoneNumber": "+01-123-456-7890",
    }


JSON = st.recursive(
    st.none() | st.integers(0, 3) | st.text("ab", max_size=1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=1), inner, max_size=3),
    max_leaves=12,
)


def _has_null(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and any(_has_null(item) for item in value.values()))


@given(JSON, JSON)
def test_merging_changes_neither_side(target: Any, patch: Any) -> None:
    """A patch is applied to a copy, and applying it again changes nothing more."""
    before = copy.deepcopy((target, patch))
    merged = merge_patch(target, patch)
    assert (target, patch) == before
    assert merge_patch(merged, patch) == merged
    if isinstance(patch, dict):
        assert not _has_null(merge_patch({}, patch))


def event(
    version: int,
    *,
    data: JsonObject | None = None,
    nonpersonal: JsonObject | None = None,
    redactions: tuple[Redaction, ...] = (),
) -> OpenedEvent:
    """An opened event of one stream, at the position before its version."""
    envelope = Envelope(UUID(int=1), UUID(int=version), REF, "patient", "Visit", 1, None, None, None)
    recorded = RecordedEvent(envelope, (), UUID(int=2), version - 1, version, version * 10, bytes(32))
    subject = OpenedPart("patient:A", REF, "", data, data is not None)
    return OpenedEvent(recorded, "patient-A", subject, None, (), nonpersonal, redactions)


def hidden(pointer: str, reason: Any = "erased", erasure: int = 5) -> Redaction:
    """What stands in place of a part."""
    return Redaction(pointer, REF, "", reason, 99, UUID(int=erasure))


def test_of_each_event_the_nonpersonal_part_comes_first() -> None:
    """Data is laid over the nonpersonal part of the same event, and null removes."""
    fold = Folding(MERGE_PATCH)
    fold.extend([event(1, data={"a": 1, "b": 2}, nonpersonal={"a": 0, "ward": "ER"})])
    fold.extend([event(2, data={"b": None}, nonpersonal={"ward": "ICU"})])
    state = fold.result()
    assert state.state == {"a": 1, "ward": "ICU"}
    assert (state.stream_version, state.complete, state.hidden) == (2, True, ())


def test_what_is_hidden_is_counted_by_its_reason() -> None:
    """Parts that enter the state make it incomplete; hidden actors, further persons and names do not."""
    fold = Folding(MERGE_PATCH)
    fold.extend([event(1, nonpersonal={"a": 1}), event(2, redactions=(hidden("/actor"), hidden("/parts/0")))])
    fold.extend([event(3, redactions=(hidden("/stream"),))])
    assert fold.result().complete

    fold.extend([event(number, redactions=(hidden("/data"),)) for number in (6, 4, 5)])
    fold.extend([event(7, redactions=(hidden("/nonpersonal", "unreadable"),)), event(8, redactions=(hidden(""),))])
    state = fold.result()
    assert not state.complete
    assert state.state == {"a": 1}
    assert state.hidden == (
        HiddenParts(hidden("/data"), 3, (3, 5)),
        HiddenParts(hidden("/nonpersonal", "unreadable"), 1, (6, 6)),
        HiddenParts(hidden(""), 1, (7, 7)),
    )


def test_nothing_folds_to_nothing() -> None:
    """A stream before its first event has version 0 and an empty state."""
    state = Folding(MERGE_PATCH).result()
    assert (state.stream_version, state.state, state.complete) == (0, {}, True)
