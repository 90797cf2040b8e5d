"""Each field of an event is taken as the contract says, or refused with its pointer; nothing personal is repeated."""

from __future__ import annotations

import json
import uuid
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.events import NewPart
from ledger.domain.intake import parse_batch, parse_event
from ledger.domain.names import RESERVED_TYPES
from ledger.errors import InvalidError

ID = "0193a5e0-7c00-7000-8000-000000000001"
SUB = "sub_" + "0a" * 16
STR = "str_" + "0b" * 16
MINIMAL: dict[str, Any] = {"stream": "ward-ER", "type": "Opened", "nonpersonal": {}}
SECRET = "Zebedee Zoë"


def refusal(raw: object) -> InvalidError:
    """The error that this event is refused with."""
    with pytest.raises(InvalidError) as caught:
        parse_event(raw)
    return caught.value


def pointers(raw: object) -> list[str]:
    """Where this event is wrong."""
    return [fault.pointer for fault in refusal(raw).faults]


def test_every_field_is_taken() -> None:
    """The contract's example, with everything in it."""
    event = parse_event(
        {
            "id": ID,
            "stream": "patient-A",
            "expected_version": 3,
            "type": "ERRegistration",
            "schema_version": 2,
            "subject": "patient:A",
            "purpose": "medical",
            "data": {"age": 85},
            "actor": {"subject": "group:L", "data": {"ip": "10.0.0.1"}},
            "parts": [{"subject": "patient:B", "purpose": "p", "data": {"c": 1}}, {"subject_ref": SUB}],
            "nonpersonal": {"ward": "ER"},
            "occurred_at": "2014-10-22T11:15:41Z",
            "correlation_id": ID,
            "causation_id": ID,
            "if_erased": "omit",
        },
        pointer="/events/4",
        index=4,
    )
    assert (event.pointer, event.event_id, event.stream, event.stream_ref) == ("/events/4", UUID(ID), "patient-A", None)
    assert (event.expected_version, event.event_type, event.schema_version) == (3, "ERRegistration", 2)
    assert event.subject == NewPart("patient:A", None, "medical", {"age": 85})
    assert event.actor == NewPart("group:L", None, "actor", {"ip": "10.0.0.1"})
    assert event.further == (NewPart("patient:B", None, "p", {"c": 1}), NewPart(None, b"\x0a" * 16, "", None))
    assert event.nonpersonal == {"ward": "ER"}
    assert event.occurred_at == 1_413_976_541_000_000
    assert event.correlation_id == event.causation_id == UUID(ID)
    assert (event.correlation_given, event.omit_erased) == (True, True)


def test_what_is_left_out_has_the_contract_s_defaults() -> None:
    """Without them: any version, schema version 1, refuse; null is the same as absent where a value may be."""
    nothing = dict.fromkeys(
        ["id", "subject", "subject_ref", "data", "actor", "actor_ref", "parts", "occurred_at", "correlation_id"]
    )
    for raw in (MINIMAL, {**MINIMAL, **nothing, "stream_ref": None, "causation_id": None}):
        event = parse_event(raw)
        assert (event.expected_version, event.schema_version, event.omit_erased) == ("any", 1, False)
        assert (event.event_id, event.subject, event.actor, event.further) == (None, None, None, ())
        assert (event.occurred_at, event.correlation_id, event.correlation_given) == (None, None, False)


def test_refs_stand_in_for_names() -> None:
    """Wherever a name is taken, its ref is too."""
    event = parse_event({"stream_ref": STR, "type": "T", "subject_ref": SUB, "data": {}, "actor_ref": SUB})
    assert (event.stream, event.stream_ref) == (None, b"\x0b" * 16)
    assert event.subject == NewPart(None, b"\x0a" * 16, "", {})
    assert event.actor == NewPart(None, b"\x0a" * 16, "actor", None)
    inside = parse_event({**MINIMAL, "actor": {"subject_ref": SUB}})
    assert inside.actor == NewPart(None, b"\x0a" * 16, "actor", None)
    assert parse_event({**MINIMAL, "actor": "group:L"}).actor == NewPart("group:L", None, "actor", None)


def test_the_trace_gives_a_correlation_id_where_the_event_has_none() -> None:
    """The default is told apart from what the client gave: it is another one at each retry."""
    event = parse_event(MINIMAL, default_correlation=UUID(ID))
    assert (event.correlation_id, event.correlation_given) == (UUID(ID), False)
    passed_on = parse_event({**MINIMAL, "correlation_id": "0af76519-16cd-43dd-0448-eb211c80319c"})
    assert passed_on.correlation_id == UUID("0af76519-16cd-43dd-0448-eb211c80319c")
    given_one = parse_event({**MINIMAL, "correlation_id": ID}, default_correlation=UUID(int=4 << 76))
    assert (given_one.correlation_id, given_one.correlation_given) == (UUID(ID), True)


DEEP: Any = {}
for _ in range(70):
    DEEP = {"a": DEEP}
WRONG_DATA: list[Any] = [[], "x", 1, True, {"a": 2**64}, {"a": float("inf")}, {"a": "\ud800"}, {"\udc00": 1}, DEEP]
WRONG_NAMES: list[Any] = ["", 5, True, ["A"], " A", "A\u00a0", "A\x00", "Zoe\u0308", "a" * 257, "\ud800"]
WRONG_REFS: list[Any] = ["", 5, ["x"], {}, "sub_1", "sub_" + "0A" * 16, STR, SUB + "0", SUB + "\n"]
WRONG_IDS: list[Any] = [
    "",
    "x",
    5,
    [],
    ID.replace("-", ""),
    "{" + ID + "}",
    str(uuid.uuid5(uuid.NAMESPACE_DNS, "x")),
    str(uuid.uuid3(uuid.NAMESPACE_DNS, "x")),
    str(UUID(int=0)),
]

CASES: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("/id", {}, WRONG_IDS),
    ("/correlation_id", {}, WRONG_IDS),
    ("/causation_id", {}, WRONG_IDS),
    ("/stream", {}, [*WRONG_NAMES, None, {}, "ward", "ward-", "-ER", "wa rd-ER", "wärd-ER", "ledger-1", "access-1"]),
    ("/stream_ref", {"stream": None}, [*WRONG_REFS[:-3], SUB, STR + "0"]),
    ("/expected_version", {}, [None, -1, 1.0, True, "0", "all", "ANY", [], {}, 2**63, 10**30]),
    ("/type", {}, [None, "", 5, "a b", "a-b", "é", "x" * 129, "T\n", [], *RESERVED_TYPES]),
    ("/schema_version", {}, [None, 0, -1, 1.0, True, "1", 2**31, []]),
    ("/subject", {}, WRONG_NAMES),
    ("/subject_ref", {}, WRONG_REFS),
    ("/purpose", {"subject": "A"}, [None, 5, "a b", "é", "p" * 65, "actor", [], {}]),
    ("/purpose", {}, ["medical", 5, 0, False, [], {}]),
    ("/data", {"subject": "A"}, WRONG_DATA),
    ("/nonpersonal", {"subject": "A", "data": {}}, WRONG_DATA),
    ("/actor", {}, WRONG_NAMES),
    ("/actor_ref", {}, WRONG_REFS),
    ("/actor/subject", {}, []),
    ("/parts", {}, ["x", 5, {}, True, [{"subject": "A"}] * 61]),
    ("/parts/0", {}, []),
    ("/occurred_at", {}, ["", 5, "2026-03-15T15:00:00", "2016-12-31T23:59:60Z", "2026-03-15", [], {}]),
    ("/if_erased", {}, [None, "", "Omit", True, [], {}]),
]


@pytest.mark.parametrize(
    ("pointer", "beside", "value"),
    [
        pytest.param(pointer, beside, value, id=f"{pointer}-{number}")
        for pointer, beside, values in CASES
        for number, value in enumerate(values)
    ],
)
def test_each_field_in_each_wrong_way(pointer: str, beside: dict[str, Any], value: Any) -> None:
    """Whatever is wrong with one field is a fault at that field, and nowhere else."""
    raw = {**MINIMAL, **beside, pointer[1:]: value}
    assert set(pointers(raw)) == {pointer}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({**MINIMAL, "actor": {}}, ["/actor/subject"]),
        ({**MINIMAL, "actor": {"subject": ""}}, ["/actor/subject"]),
        ({**MINIMAL, "actor": {"subject_ref": "x"}}, ["/actor/subject_ref"]),
        ({**MINIMAL, "actor": {"subject": "A", "subject_ref": SUB}}, ["/actor/subject_ref"]),
        ({**MINIMAL, "actor": {"subject": "A", "data": []}}, ["/actor/data"]),
        ({**MINIMAL, "actor": {"subject": "A", "purpose": "p"}}, ["/actor"]),
        ({**MINIMAL, "actor": {"subject": "A"}, "actor_ref": SUB}, ["/actor_ref"]),
        ({**MINIMAL, "actor": "A", "actor_ref": SUB}, ["/actor_ref"]),
        ({**MINIMAL, "stream_ref": STR}, ["/stream_ref"]),
        ({**MINIMAL, "subject": "A", "subject_ref": SUB}, ["/subject_ref"]),
        ({**MINIMAL, "parts": ["x", None, 5]}, ["/parts/0", "/parts/1", "/parts/2"]),
        ({**MINIMAL, "parts": [{}]}, ["/parts/0/subject"]),
        ({**MINIMAL, "parts": [{"subject": "A"}, {"subject": "\x00"}]}, ["/parts/1/subject"]),
        ({**MINIMAL, "parts": [{"subject_ref": 5}]}, ["/parts/0/subject_ref"]),
        ({**MINIMAL, "parts": [{"subject": "A", "subject_ref": SUB}]}, ["/parts/0/subject_ref"]),
        ({**MINIMAL, "parts": [{"subject": "A", "purpose": "actor"}]}, ["/parts/0/purpose"]),
        ({**MINIMAL, "parts": [{"subject": "A", "data": "x"}]}, ["/parts/0/data"]),
        ({**MINIMAL, "parts": [{"subject": "A", "role": 3}]}, ["/parts/0"]),
        ({"stream": "ward-ER", "type": "T"}, [""]),
        ({"stream": "ward-ER", "type": "T", "subject": "A"}, [""]),
        ({"stream": "ward-ER", "type": "T", "data": {}}, ["/subject"]),
        ({"type": "T", "nonpersonal": {}}, ["/stream"]),
        ({"stream": "ward-ER", "nonpersonal": {}}, ["/type"]),
        (None, [""]),
        ([], [""]),
        ("x", [""]),
        (5, [""]),
    ],
)
def test_fields_that_belong_together(raw: object, expected: list[str]) -> None:
    """A name beside its ref, data without a subject, an event without content: each is told where it stands."""
    assert pointers(raw) == expected


def test_all_faults_are_told_at_once() -> None:
    """A client mends its event in one go."""
    raw = {
        "id": "x",
        "stream": "",
        "expected_version": -1,
        "type": "a b",
        "schema_version": 0,
        "subject": "",
        "purpose": "a b",
        "data": [],
        "actor": {"subject": 5, "data": 5},
        "parts": [{"subject": "", "data": 5}],
        "nonpersonal": 5,
        "occurred_at": 5,
        "correlation_id": 5,
        "causation_id": 5,
        "if_erased": 5,
    }
    assert set(pointers(raw)) == {
        *(f"/{field}" for field in raw if field not in ("actor", "parts")),
        *("/actor/subject", "/actor/data", "/parts/0/subject", "/parts/0/data"),
    }


@pytest.mark.parametrize(
    "raw",
    [
        {**MINIMAL, SECRET: 1},
        {**MINIMAL, "actor": {"subject": "A", SECRET: 1}},
        {**MINIMAL, "parts": [{"subject": "A", SECRET: 1}]},
        {"events": [MINIMAL], SECRET: 1},
        {**MINIMAL, "subject": f" {SECRET}"},
        {**MINIMAL, "stream": SECRET},
        {**MINIMAL, "stream": f"{SECRET}-1"},
        {**MINIMAL, "type": SECRET},
        {**MINIMAL, "purpose": SECRET, "subject": "A"},
        {**MINIMAL, "id": SECRET},
        {**MINIMAL, "subject_ref": SECRET},
        {**MINIMAL, "expected_version": SECRET},
        {**MINIMAL, "occurred_at": SECRET},
        {**MINIMAL, "if_erased": SECRET},
        {**MINIMAL, "nonpersonal": SECRET},
        {**MINIMAL, "nonpersonal": {SECRET: 2**70, "\ud800": SECRET}},
        {**MINIMAL, "parts": SECRET},
        {"events": SECRET},
        SECRET,
    ],
)
def test_nothing_of_the_request_is_repeated(raw: object) -> None:
    """Unknown field names, names and values never come back in an error (I5)."""
    with pytest.raises(InvalidError) as caught:
        parse_batch(raw)
    shown = json.dumps([[fault.pointer, fault.message, dict(fault.details)] for fault in caught.value.faults])
    assert "Zebedee" not in shown + caught.value.detail
    assert caught.value.faults


def test_reserved_categories_and_types_are_the_ledger_s_own() -> None:
    """A client can write nothing that looks like the ledger's own events."""
    for category in ("ledger", "access", "process.transfer", "process."):
        assert pointers({**MINIMAL, "stream": f"{category}-{ID}"}) == ["/stream"]
    assert {"SubjectErased", "ProcessReacted", "TimerFired", "CommandRefused"} <= RESERVED_TYPES
    for event_type in RESERVED_TYPES:
        assert pointers({**MINIMAL, "type": event_type}) == ["/type"]


def test_a_process_writes_to_its_own_streams_only() -> None:
    """What is reserved for the rest of the ledger is not a process's either."""
    own = {**MINIMAL, "stream": "process.transfer-1", "type": "ProcessReacted"}
    assert parse_event(own, by_process=True).by_process
    for other in ({"stream": "ledger-1"}, {"type": "SubjectErased"}):
        with pytest.raises(InvalidError):
            parse_event({**own, **other}, by_process=True)


def test_a_batch_is_told_of_with_pointers_and_indexes() -> None:
    """Faults of all events are collected, each with the place of its event."""
    with pytest.raises(InvalidError) as caught:
        parse_batch({"events": [MINIMAL, {**MINIMAL, "type": 5}, 7, {**MINIMAL, "id": "x", "stream": None}]})
    assert [(fault.pointer, fault.index) for fault in caught.value.faults] == [
        ("/events/1/type", 1),
        ("/events/2", 2),
        ("/events/3/stream", 3),
        ("/events/3/id", 3),
    ]


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        ({"events": []}, "/events"),
        ({"events": None}, "/events"),
        ({"events": {}}, "/events"),
        ({"events": "x"}, "/events"),
        ({"events": [MINIMAL], "type": "T"}, "/type"),
        ({"events": [MINIMAL], "extra": 1}, ""),
        ({"events": [{**MINIMAL, "id": ID}, MINIMAL, {**MINIMAL, "id": ID.upper()}]}, "/events/2/id"),
    ],
)
def test_batches_that_cannot_be(raw: object, pointer: str) -> None:
    """An empty batch, a batch that is none, fields beside it, one id twice: refused as a whole."""
    with pytest.raises(InvalidError) as caught:
        parse_batch(raw)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


def test_a_lone_event_is_a_batch_of_one() -> None:
    """One event stands for itself, with pointers into it alone."""
    (alone,) = parse_batch(MINIMAL)
    assert alone.pointer == ""
    first, second = parse_batch({"events": [MINIMAL, MINIMAL]})
    assert (first.pointer, second.pointer) == ("/events/0", "/events/1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted({case[0][1:] for case in CASES if case[0].count("/") == 1} | {"other"})


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6))
def test_whatever_is_sent_is_an_event_or_a_refusal(raw: dict[str, Any]) -> None:
    """Any JSON in any field ends in a ``NewEvent`` or in faults, never in an error of ours."""
    try:
        event = parse_event({**MINIMAL, **raw})
    except InvalidError:
        return
    assert event.stream is not None or event.stream_ref is not None
