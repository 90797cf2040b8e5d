"""What the documented schema of an event takes is what the domain takes, which alone decides.

The schema looks at each field by itself. Where the domain looks at more than that, the reason is named here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final
from uuid import UUID, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError, fields

from api.fields import Choice, Name, WholeNumber
from api.schemas.requests import Batch, NewEvent, Person
from ledger.domain.intake import LARGEST_VERSION, parse_batch, parse_event
from ledger.errors import Fault, InvalidError

ID = "0193a5e0-7c00-7000-8000-000000000001"
SUB = "sub_" + "0a" * 16
STR = "str_" + "0b" * 16

FULL: Final[Mapping[str, Any]] = {
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
}
BY_REF: Final[Mapping[str, Any]] = {"stream_ref": STR, "type": "T", "subject_ref": SUB, "data": {}, "actor_ref": SUB}
MINIMAL: Final[Mapping[str, Any]] = {"stream": "ward-ER", "type": "Opened", "nonpersonal": {}}

NAMED = [*FULL, *BY_REF, "other"]

VALUES: Final[list[Any]] = [
    None, True, False, 0, 1, -1, 3, 1.0, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, float("inf"),
    "", " A", "A ", "A", "é", "Zoe\u0308", "A\x00", "A\u2028", "\ud800", "x" * 64, "x" * 65, "x" * 128, "x" * 129,
    "x" * 256, "x" * 257, "any", "exists", "refuse", "omit", "actor", "medical", "a b",
    "patient-A", "patient-", "-A", "wärd-ER", "ledger-1", "process.a-1", "SubjectErased", "ERRegistration",
    ID, ID.upper(), ID.replace("-", ""), str(UUID(int=0)), str(UUID(int=5)), str(uuid5(UUID(int=0), "x")),
    SUB, STR, "sub_1", SUB.upper(), SUB + "0",
    "2014-10-22T11:15:41Z", "2014-10-22T11:15:41.123456+02:00", "2014-10-22", "0001-01-01T00:00:00+01:00",
    {}, {"a": 1}, {"a": [{"b": "\ud800"}]}, {"\udc00": 1}, {"a": 2**64}, {"a": float("inf")},
    {"subject": "A"}, {"subject": " A"}, {"subject": "A", "subject_ref": SUB}, {"subject_ref": "x", "data": []},
    {"subject": "A", "purpose": "p"}, {"subject": "A", "purpose": None}, {"subject": "A", "purpose": "actor"},
    {"subject": "A", "other": 1}, {"data": {}},
    [], ["A"], [{}], [{"subject": "A", "data": {"a": 2**70}}], [{"subject": 5}, None, "x"], [[]],
    [{"subject": "A"}] * 60, [{"subject": "A"}] * 61,
]  # fmt: skip

MORE_THAN_A_FIELD: Final = (
    ("/stream", "is required"),
    ("/stream", "must have the form category-id"),
    ("/stream", "this category is reserved"),
    ("/type", "this type is reserved"),
    ("_ref", "must not stand beside"),
    ("", "needs 'data' or 'nonpersonal'"),
    ("/subject", "is required"),
    ("/purpose", "needs a 'subject'"),
    ("_id", "must not be a UUID made by hashing"),
    ("/id", "must not be a UUID made by hashing"),
    ("_id", "must be a UUID of RFC 9562"),
    ("/id", "must be a UUID of RFC 9562"),
    ("/parts", "must hold at most"),
    ("", "must be nested at most"),
    ("", "must not contain a lone surrogate"),
    ("", "must be an integer of 64 bits"),
    ("", "must be a number that a 64-bit float can hold"),
)
"""Where a fault is (the end of its pointer) and how it begins that the domain finds and no form of one field shows: two
fields that do not go together, words and ids that are reserved, and what is inside of data."""


def of_the_schema(raw: Mapping[str, Any]) -> set[str]:
    """Where the schema finds fault with an event."""
    found = set(_pointers("", NewEvent().validate(raw)))
    # Two fields have several forms; the schema documents these and leaves them to the domain.
    found -= {"/expected_version", "/actor"}
    if "expected_version" in raw:
        word = isinstance(raw["expected_version"], str)
        form: fields.Field[Any] = Choice("any", "exists") if word else WholeNumber(0, LARGEST_VERSION)
        found |= _of_a_field(form, "/expected_version", raw["expected_version"])
    if isinstance(raw.get("actor"), dict):
        found |= set(_pointers("/actor", Person().validate(raw["actor"])))
    else:
        found |= _of_a_field(Name(allow_none=True), "/actor", raw.get("actor"))
    if raw.get("subject") is None and raw.get("subject_ref") is None and raw.get("purpose") is None:
        # Where there is no subject, a purpose that is null is as good as none.
        found.discard("/purpose")
    return found


def _of_a_field(form: fields.Field[Any], pointer: str, value: Any) -> set[str]:
    try:
        form.deserialize(value)
    except ValidationError:
        return {pointer}
    return set()


def _pointers(where: str, errors: Any) -> Iterator[str]:
    if isinstance(errors, list):
        yield where
        return
    for key, inner in errors.items():
        # The domain does not repeat the name of an unknown field: it could be personal data.
        unknown = inner == ["Unknown field."]
        yield from _pointers(where if unknown or key == "_schema" else f"{where}/{key}", inner)


def of_the_domain(raw: object) -> list[Fault]:
    """What the domain finds fault with."""
    try:
        parse_event(raw)
    except InvalidError as error:
        return list(error.faults)
    return []


def agree(raw: Mapping[str, Any]) -> bool:
    """Check that both find the same fields wrong, but for what takes more than a field; gives whether it is taken."""
    faults = of_the_domain(raw)
    found = of_the_schema(raw)
    assert {fault.pointer for fault in faults if not _takes_more(fault)} <= found
    # A name that stands beside a ref is one too many, whatever its form.
    beside = {fault.pointer.removesuffix("_ref") for fault in faults if "must not stand beside" in fault.message}
    assert found <= {fault.pointer for fault in faults} | beside
    return not faults


def _takes_more(fault: Fault) -> bool:
    return any(fault.pointer.endswith(end) and fault.message.startswith(begin) for end, begin in MORE_THAN_A_FIELD)


def mutated(raw: Mapping[str, Any], mutations: list[tuple[str, Any]]) -> dict[str, Any]:
    """The event with some fields set to other values; ``...`` takes a field out."""
    event: dict[str, Any] = copy.deepcopy(dict(raw))
    for path, value in mutations:
        inside: Any = event
        *way, last = path.split("/")
        for step in way:
            inside = inside.get(step) if isinstance(inside, dict) else None
            inside = inside[0] if isinstance(inside, list) and inside else inside
        if isinstance(inside, dict):
            if value is ...:
                inside.pop(last, None)
            else:
                inside[last] = value
    return event


PATHS = [
    *NAMED,
    *(f"{whole}/{field}" for whole in ("actor", "parts") for field in ("subject", "subject_ref", "purpose", "data")),
    "parts/other",
]
MUTATIONS = st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from([..., *VALUES])), max_size=4)


@pytest.mark.parametrize("path", PATHS)
def test_every_field_with_every_value(path: str) -> None:
    """One field at a time, in each right and wrong way."""
    assert [agree(base) for base in (FULL, BY_REF, MINIMAL)] == [True] * 3
    assert not all(agree(mutated(FULL, [(path, value)])) for value in [..., *VALUES])
    for base in (BY_REF, MINIMAL):
        for value in [..., *VALUES]:
            agree(mutated(base, [(path, value)]))


@settings(max_examples=500)
@given(st.sampled_from([FULL, BY_REF, MINIMAL]), MUTATIONS)
def test_several_fields_at_once(base: Mapping[str, Any], mutations: list[tuple[str, Any]]) -> None:
    """What is wrong with one hides nothing of another."""
    agree(mutated(base, mutations))


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(NAMED), st.sampled_from(VALUES), max_size=8))
def test_any_fields_with_any_values(raw: dict[str, Any]) -> None:
    """Also where nothing is an event to begin with."""
    agree(raw)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from([FULL, BY_REF, MINIMAL]), MUTATIONS), min_size=1, max_size=3))
def test_batches_are_taken_or_refused_for_their_events(events: list[tuple[Mapping[str, Any], Any]]) -> None:
    """The same faults, at the place of each event."""
    items = [
        {**mutated(base, mutations), "id": f"{ID[:-1]}{number}"} for number, (base, mutations) in enumerate(events)
    ]
    expected = [f"/events/{number}{fault.pointer}" for number, one in enumerate(items) for fault in of_the_domain(one)]
    try:
        parse_batch({"events": items})
        found = []
    except InvalidError as error:
        found = [fault.pointer for fault in error.faults]
    assert found == expected
    if not expected:
        assert Batch().validate({"events": items}) == {}
