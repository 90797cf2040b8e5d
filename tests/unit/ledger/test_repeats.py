"""A retry is known by what can still be read; what was erased since is taken on trust, and nothing else is (I4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from ledger.domain.events import Envelope, NewEvent, OpenedEvent, OpenedPart, RecordedEvent, Redaction
from ledger.domain.intake import parse_event
from ledger.domain.repeats import KnownRefs, is_repeat, same_json

A, B, L = b"a" * 16, b"b" * 16, b"l" * 16
STREAM = b"s" * 16
ID = "0193a5e0-7c00-7000-8000-000000000001"
NOBODY = KnownRefs({}, {})
EVERYBODY = KnownRefs({"patient-A": STREAM}, {"patient:A": A, "patient:B": B, "group:L": L})

RAW: dict[str, Any] = {
    "id": ID,
    "stream": "patient-A",
    "type": "Visit",
    "schema_version": 2,
    "subject": "patient:A",
    "data": {"age": 85, "more": [1, {"x": None}]},
    "actor": {"subject": "group:L", "data": {"ip": "10.0.0.1"}},
    "parts": [{"subject": "patient:B", "purpose": "contact", "data": {"c": 1}}],
    "nonpersonal": {"ward": "ER"},
    "occurred_at": "2014-10-22T11:15:41Z",
    "correlation_id": ID,
    "causation_id": ID,
}


def stored(*, hidden: frozenset[str] = frozenset(), parts: frozenset[str] = frozenset("SAF")) -> OpenedEvent:
    """The event of ``RAW`` as a reader sees it. ``hidden``: what a redaction stands for; ``parts``: who is in it."""
    envelope = Envelope(UUID(int=1), UUID(ID), STREAM, "patient", "Visit", 2, 1_413_976_541_000_000, UUID(ID), UUID(ID))
    recorded = RecordedEvent(envelope, (), UUID(int=2), 0, 1, 10, bytes(32))

    def part(name: str, ref: bytes, purpose: str, data: dict[str, Any], pointer: str) -> OpenedPart:
        readable = pointer not in hidden
        return OpenedPart(name if readable else None, ref, purpose, data if readable else None, readable)

    return OpenedEvent(
        recorded,
        None if hidden & {"/data", "/stream"} else "patient-A",
        part("patient:A", A, "", RAW["data"], "/data") if "S" in parts else None,
        part("group:L", L, "actor", RAW["actor"]["data"], "/actor") if "A" in parts else None,
        (part("patient:B", B, "contact", {"c": 1}, "/parts/0"),) if "F" in parts else (),
        None if "/nonpersonal" in hidden else {"ward": "ER"},
        tuple(Redaction(pointer, None, None, "erased", 9, UUID(int=3)) for pointer in sorted(hidden)),
    )


def new(**changes: Any) -> NewEvent:
    """``RAW`` with changes, as it is sent again."""
    return parse_event({**RAW, **changes})


EVERYTHING = frozenset({"/data", "/actor", "/parts/0", "/nonpersonal", "/stream"})


@pytest.mark.parametrize("hidden", [(), *((one,) for one in sorted(EVERYTHING)), sorted(EVERYTHING)], ids=",".join)
@pytest.mark.parametrize("refs", [NOBODY, EVERYBODY], ids=["unlinked", "linked"])
def test_the_same_event_is_a_repeat_whatever_was_erased_since(hidden: Sequence[str], refs: KnownRefs) -> None:
    """Nothing that an erasure, or the unlinking after it, takes away makes a faithful retry a conflict."""
    assert is_repeat(new(), stored(hidden=frozenset(hidden)), refs)


CHANGES: dict[str, dict[str, Any]] = {
    "stream": {"stream": "patient-B"},
    "category": {"stream": "person-A"},
    "type": {"type": "Other"},
    "schema version": {"schema_version": 3},
    "subject": {"subject": "patient:B"},
    "purpose": {"purpose": "medical"},
    "data": {"data": {"age": 86}},
    "data type": {"data": {"age": "85", "more": [1, {"x": None}]}},
    "no data": {"data": None},
    "actor": {"actor": {"subject": "group:M", "data": {"ip": "10.0.0.1"}}},
    "actor's data": {"actor": {"subject": "group:L", "data": {"ip": "10.0.0.2"}}},
    "no actor": {"actor": None},
    "further subject": {"parts": [{"subject": "patient:C", "purpose": "contact", "data": {"c": 1}}]},
    "further data": {"parts": [{"subject": "patient:B", "purpose": "contact", "data": {"c": True}}]},
    "further purpose": {"parts": [{"subject": "patient:B", "data": {"c": 1}}]},
    "one part more": {"parts": [*RAW["parts"], {"subject": "patient:C"}]},
    "one part less": {"parts": []},
    "nonpersonal": {"nonpersonal": {"ward": "ICU"}},
    "no nonpersonal": {"nonpersonal": None},
    "occurred-at": {"occurred_at": "2014-10-22T11:15:42Z"},
    "no occurred-at": {"occurred_at": None},
    "correlation id": {"correlation_id": ID[:-1] + "2"},
    "causation id": {"causation_id": None},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_content_under_the_same_id_is_a_conflict(change: dict[str, Any]) -> None:
    """While all can be read, every difference counts, ``if_erased: omit`` or not."""
    assert not is_repeat(new(**change), stored(), NOBODY)
    if change != CHANGES["one part more"]:
        assert not is_repeat(new(**change, if_erased="omit"), stored(), NOBODY)


@pytest.mark.parametrize(
    "change",
    ["category", "type", "schema version", "purpose", "nonpersonal", "occurred-at", "causation id", "no actor"],
)
def test_what_stays_readable_still_conflicts_after_an_erasure(change: str) -> None:
    """The subject is gone; what was not the subject's is compared as before."""
    assert not is_repeat(new(**CHANGES[change]), stored(hidden=frozenset({"/data"})), NOBODY)


def test_an_erased_name_is_compared_by_its_ref_while_the_index_knows_it() -> None:
    """Another known person, or another known stream, in place of the erased one is a conflict."""
    hidden = stored(hidden=EVERYTHING)
    assert not is_repeat(new(subject="patient:B"), hidden, EVERYBODY)
    assert not is_repeat(new(stream="patient-B"), hidden, KnownRefs({"patient-B": b"t" * 16}, {}))
    # After the unlinking nobody can tell any more.
    assert is_repeat(new(subject="patient:B"), hidden, NOBODY)


def test_events_by_ref_are_compared_by_ref() -> None:
    """A ref is recorded in clear, so it is compared whatever was erased."""
    by_ref = {"stream": None, "subject": None, "stream_ref": f"str_{STREAM.hex()}", "subject_ref": f"sub_{A.hex()}"}
    for hidden in (frozenset(), EVERYTHING):
        assert is_repeat(new(**by_ref), stored(hidden=hidden), NOBODY)
        assert not is_repeat(new(**{**by_ref, "stream_ref": "str_" + "00" * 16}), stored(hidden=hidden), NOBODY)
        assert not is_repeat(new(**{**by_ref, "subject_ref": f"sub_{B.hex()}"}), stored(hidden=hidden), NOBODY)


def test_parts_that_were_omitted_may_be_missing() -> None:
    """With ``if_erased: omit`` the record can have fewer parts than the request, in their order; else not."""
    for parts in (frozenset("AF"), frozenset("SF"), frozenset("SA"), frozenset("F"), frozenset("")):
        assert is_repeat(new(if_erased="omit"), stored(parts=parts), NOBODY)
        assert not is_repeat(new(), stored(parts=parts), NOBODY)


def test_a_correlation_id_from_the_trace_is_not_compared() -> None:
    """A retry comes under another trace; what the client did not say is not held against it."""
    event = new(correlation_id=None)
    assert is_repeat(replace(event, correlation_id=UUID(int=77)), stored(), NOBODY)
    assert not is_repeat(replace(event, correlation_id=UUID(int=77), correlation_given=True), stored(), NOBODY)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": {"c": 1, "d": 2}}, {"b": {"d": 2, "c": 1}, "a": 1}, True),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": 0}, {"a": False}, False),
        ({"a": None}, {}, False),
        (None, {}, False),
        (None, None, True),
        ({"a": "1"}, {"a": 1}, False),
    ],
)
def test_json_is_compared_by_value(one: Any, other: Any, same: bool) -> None:
    """The order of members does not matter; everything else does."""
    assert same_json(one, other) is same
