"""The quick check of everyday schemas says "fits" only where jsonschema does, and only within its budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ledger.domain.events import JsonObject
from ledger.services.evolution import schemas
from ledger.services.evolution.everyday import MANY, Check, everyday_check
from ledger.services.evolution.schemas import compile_schema, compiled_pattern, schema_faults

WORK = 10_000
"""What jsonschema may take for any value."""
BOUNDLESS = 10**12

NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(-3, 3) | st.sampled_from([-0.5, 0.0, 0.5, 1.0, 2.0])
SCALARS = st.none() | st.booleans() | NUMBERS | st.text("xyzé", max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)
TYPES = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])
KEYWORDS: dict[str, st.SearchStrategy[Any]] = {
    "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
    "enum": st.lists(VALUES, min_size=1, max_size=3),
    "const": VALUES,
    "minimum": NUMBERS,
    "maximum": NUMBERS,
    "exclusiveMinimum": NUMBERS,
    "exclusiveMaximum": NUMBERS,
    "minLength": st.integers(0, 2),
    "maxLength": st.integers(0, 2),
    "minItems": st.integers(0, 2),
    "maxItems": st.integers(0, 2),
    "minProperties": st.integers(0, 2),
    "maxProperties": st.integers(0, 2),
    "pattern": st.sampled_from(["^x", "y+$", "[yz]{2}", "é", "^.$"]),
    "required": st.lists(NAMES, max_size=2, unique=True),
    "format": st.sampled_from(["uuid", "date-time"]),
    "title": st.just("A title"),
    "x-owner": st.just({"type": "string"}),
}
UNUSUAL: dict[str, st.SearchStrategy[Any]] = {
    "multipleOf": st.sampled_from([1, 2, 0.5]),
    "uniqueItems": st.just(True),
    "not": st.just({"type": "string"}),
    "anyOf": st.just([{"type": "string"}, {"required": ["a"]}]),
    "propertyNames": st.just({"maxLength": 1}),
    "prefixItems": st.just([{"type": "string"}]),
    "dependentRequired": st.just({"a": ["b"]}),
}


def _some_of(keywords: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    leaves = st.booleans() | st.fixed_dictionaries({}, optional=keywords)
    return st.recursive(
        leaves,
        lambda inner: st.fixed_dictionaries(
            {},
            optional={
                **keywords,
                "properties": st.dictionaries(NAMES, inner, max_size=3),
                "additionalProperties": inner,
                "items": inner,
            },
        ),
        max_leaves=6,
    ).filter(lambda schema: isinstance(schema, dict))


EVERYDAY = _some_of(KEYWORDS)
MIXED = _some_of({**KEYWORDS, **UNUSUAL})

OBSERVATION: JsonObject = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "What was measured",
    "type": "object",
    "properties": {
        "code": {"type": "string", "pattern": "^[0-9]+-[0-9]$"},
        "value": {"type": ["number", "null"], "minimum": 0, "exclusiveMaximum": 1000},
        "status": {"enum": ["final", "amended", None]},
        "tags": {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 5},
        "by": {
            "type": "object",
            "properties": {"kind": {"const": "nurse"}},
            "additionalProperties": {"type": "integer"},
        },
    },
    "required": ["code", "value"],
    "additionalProperties": False,
}
MEASURED: JsonObject = {
    "code": "8867-4",
    "value": 71.5,
    "status": None,
    "tags": ["a", "é"],
    "by": {"kind": "nurse", "age": 40},
}


def is_found(pattern: str, text: str) -> bool:
    """Whether a pattern is found."""
    return compiled_pattern(pattern).search(text) is not None


def check_of(schema: JsonObject, most_work: int = WORK) -> Check:
    """The quick check of an everyday schema."""
    check = everyday_check(schema, is_found, most_work)
    assert check is not None
    return check


@settings(max_examples=300)
@given(EVERYDAY, OBJECTS)
def test_what_fits_everyday_schemas_fits_for_jsonschema_too(schema: JsonObject, value: JsonObject) -> None:
    """Never the other way round: what is wrong is for jsonschema to say."""
    assert schema_faults(schema, "/schema") == []
    if check_of(schema, BOUNDLESS)(value):
        assert Draft202012Validator(schema).is_valid(value)


@settings(max_examples=300)
@given(MIXED, OBJECTS)
def test_whatever_else_a_schema_says_is_not_passed_over(schema: JsonObject, value: JsonObject) -> None:
    """A keyword that the quick check does not know leaves the whole schema to jsonschema."""
    check = everyday_check(schema, is_found, WORK)
    if check is not None and check(value):
        assert Draft202012Validator(schema).is_valid(value)


def test_everyday_values_are_told_to_fit() -> None:
    """It would be of no use if it left everything to jsonschema."""
    assert check_of(OBSERVATION)(MEASURED)
    assert check_of({"properties": {"a": {"minimum": 1}}})({"a": "text", "b": [1]})
    assert compile_schema(OBSERVATION).everyday is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"code": 8867},
        {"code": "8867-44"},
        {"code": "8867-4\n"},
        {"value": -1},
        {"value": 1000},
        {"value": True},
        {"status": "Final"},
        {"status": 1},
        {"tags": [""]},
        {"tags": ["a"] * 6},
        {"tags": "a"},
        {"by": {"kind": "Nurse"}},
        {"by": {"age": "40"}},
        {"other": 1},
    ],
)
def test_what_does_not_fit_is_told_as_before(wrong: JsonObject) -> None:
    """With the faults that jsonschema finds."""
    compiled = compile_schema(OBSERVATION)
    value = {**MEASURED, **wrong}
    assert not check_of(OBSERVATION)(value)
    assert compiled.faults(value, "/data") != []
    assert compiled.faults({name: one for name, one in MEASURED.items() if name != "code"}, "/data") != []


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1.0}),
        ({"properties": {"a": {"enum": [1]}}}, {"a": 1}),
        ({"properties": {"a": {"const": {"b": 1}}}}, {"a": {"b": 1}}),
        ({"properties": {"a": {"items": {"type": "null"}}}}, {"a": [None] * (MANY + 1)}),
        ({"additionalProperties": {"type": "null"}}, {str(number): None for number in range(MANY + 1)}),
    ],
)
def test_what_is_left_to_jsonschema_fits_all_the_same(schema: JsonObject, value: JsonObject) -> None:
    """Where the quick check is not certain, it does not decide."""
    assert not check_of(schema)(value)
    assert compile_schema(schema).faults(value, "/data") == []


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a", "$defs": {"a": {}}},
        {"properties": {"a": {"anyOf": [{"type": "string"}]}}},
        {"items": {"not": {}}},
        {"additionalProperties": {"uniqueItems": True}},
        {"multipleOf": 2},
        {"properties": {f"p{number}": True for number in range(WORK)}},
        {"items": {"items": {"items": {"type": "array", "minItems": 1}}}},
    ],
)
def test_unusual_schemas_have_no_quick_check(schema: JsonObject) -> None:
    """Those that combine or refer, and those for which jsonschema could come to the end of its budget."""
    assert everyday_check(schema, is_found, WORK) is None


def test_a_budget_that_jsonschema_could_not_keep_is_not_passed_by() -> None:
    """What is refused because it takes too much work is refused with a schema that looks harmless, too."""
    wide = {"type": "object", "properties": {f"p{number}": True for number in range(9_000)}}
    schema: JsonObject = {"properties": {"a": {"type": "array", "items": wide}}}
    assert everyday_check(schema, is_found, WORK) is None
    (fault,) = compile_schema(schema).faults({"a": [{}] * 100_000}, "/data")
    assert "takes more work" in fault.message


@settings(max_examples=200)
@given(EVERYDAY, OBJECTS, st.integers(0, 60))
def test_what_passes_takes_jsonschema_no_more_than_the_bound(schema: JsonObject, value: JsonObject, bound: int) -> None:
    """The bound is of the schema alone, so that what passes is never refused for the work that it takes."""
    check = everyday_check(schema, is_found, bound)
    if check is None or not check(value):
        return
    with patch.multiple(schemas, _WORK=bound, _WORK_PER_VALUE=0):
        assert replace(compile_schema(schema), everyday=None).faults(value, "/data") == []
