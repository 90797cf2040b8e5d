"""Schemas of events: no schema and no event make the check fail, and no fault tells what is in an event."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ledger.domain.events import JsonObject
from ledger.services.evolution.schemas import DIALECT, FAULTS, compile_schema, compiled_pattern, schema_faults

NAMES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(-3, 3) | st.sampled_from([0.5, 1.0, 2.0])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text("xyz", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[JsonObject]:
    return st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "additionalProperties": inner,
            "propertyNames": inner,
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "contains": inner,
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "dependentSchemas": st.dictionaries(NAMES, inner, max_size=1),
        },
    )


LEAVES = st.booleans() | st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"]),
        "enum": st.lists(VALUES, min_size=1, max_size=2),
        "const": VALUES,
        "minimum": NUMBERS,
        "exclusiveMaximum": NUMBERS,
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "minLength": st.integers(0, 2),
        "pattern": st.sampled_from(["^x", "y+$", "[yz]{2}"]),
        "uniqueItems": st.booleans(),
        "maxItems": st.integers(0, 2),
        "required": st.lists(NAMES, max_size=2, unique=True),
        "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=1), max_size=1),
        "maxProperties": st.integers(0, 2),
    },
)
SCHEMAS = st.recursive(LEAVES, _nested, max_leaves=6).filter(lambda schema: isinstance(schema, dict))


@settings(max_examples=100)
@given(SCHEMAS, OBJECTS)
def test_what_fits_is_what_json_schema_says(schema: JsonObject, value: JsonObject) -> None:
    """Our own patterns, comparisons and counting change no verdict."""
    assert schema_faults(schema, "/schema") == []
    fits = Draft202012Validator(schema).is_valid(value)
    assert (compile_schema(schema).faults(value, "/data") == []) == fits


@settings(max_examples=60)
@given(SCHEMAS, st.dictionaries(st.sampled_from(["a", "Ada"]), VALUES | st.just("Lovelace"), max_size=2))
def test_faults_tell_nothing_of_what_is_in_an_event(schema: JsonObject, value: JsonObject) -> None:
    """I5: wherever in the schema it is that an event does not fit."""
    faults = compile_schema(schema).faults({**value, "b": {"Ada": ["Lovelace"]}}, "/data")
    assert "Ada" not in repr(faults)
    assert "Lovelace" not in repr(faults)
    assert len(faults) <= FAULTS


@given(VALUES)
def test_whatever_is_sent_as_a_schema_is_answered(value: Any) -> None:
    """With faults, or with none; never with an exception."""
    schema_faults({"properties": value, "allOf": value, "pattern": value, "$ref": value}, "/schema")


@pytest.mark.parametrize(
    ("schema", "pointers"),
    [
        ({"$schema": DIALECT, "x-owner": {"$ref": "y"}, "properties": {"$ref": {}, "$id": {"type": "string"}}}, []),
        ({"$defs": {"a/b": {"type": "string"}}, "properties": {"c": {"$ref": "#/$defs/a~1b"}}}, []),
        ({"properties": {"child": {"$ref": "#"}}}, []),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, ["/schema/$schema"]),
        ({"definitions": {}}, ["/schema/definitions"]),
        ({"$dynamicRef": "#a"}, ["/schema/$dynamicRef"]),
        ({"$anchor": "a"}, ["/schema/$anchor"]),
        ({"$defs": {"a b": {}}, "$ref": "#/$defs/a%20b"}, ["/schema/$ref"]),
        ({"x-a": {"type": "string"}, "$ref": "#/x-a"}, ["/schema/$ref"]),
        ({"items": {"unknown": 1}}, ["/schema/items/unknown"]),
        ({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}, ["/schema"]),
        ({"properties": {"a": {"pattern": r"(a)\1"}}}, ["/schema/properties/a/pattern"]),
        ({"properties": {"a": {"pattern": "a{1000}{1000}"}}}, ["/schema/properties/a/pattern"]),
        ({"required": "a"}, ["/schema/required"]),
    ],
)
def test_which_schemas_can_be_registered(schema: JsonObject, pointers: list[str]) -> None:
    """Those that reach nothing outside, know no unknown words, come to an end, and have patterns of RE2."""
    assert [fault.pointer for fault in schema_faults(schema, "/schema")] == pointers


def test_a_chain_of_references_is_bounded() -> None:
    """However it is spread over definitions."""
    chain = {f"d{number}": {"$ref": f"#/$defs/d{number + 1}"} for number in range(60)}
    faults = schema_faults({"$defs": {**chain, "d60": {}}}, "/schema")
    assert [fault.pointer for fault in faults] == ["/schema"]


def test_the_work_for_an_event_is_bounded() -> None:
    """A schema that doubles the work with every level of the event is stopped long before the last one."""
    doubling = {"properties": {"a": {"allOf": [{"$ref": "#/$defs/n"}, {"$ref": "#/$defs/n"}]}}}
    schema = {"$defs": {"n": doubling}, "$ref": "#/$defs/n"}
    assert schema_faults(schema, "/schema") == []
    value: JsonObject = {}
    for _ in range(60):
        value = {"a": value}
    began = time.process_time()
    (fault,) = compile_schema(schema).faults(value, "/data")
    assert "work" in fault.message
    assert time.process_time() - began < 10


def test_patterns_are_found_anywhere_and_take_unicode() -> None:
    """As ECMA-262 has it: not anchored; and ``$`` is the end, not the place before a last line break."""
    assert compiled_pattern("b").search("abc")
    assert compiled_pattern("^é$").search("é")
    assert not compiled_pattern("^a$").search("a\n")
    assert compile_schema({"properties": {"a": {"pattern": "^a$"}}}).faults({"a": 1}, "/data") == []


@pytest.mark.parametrize("keyword", ["unevaluatedProperties", "unevaluatedItems"])
def test_keywords_without_a_bound_are_refused(keyword: str) -> None:
    """With the place and what to write instead."""
    (fault,) = schema_faults({"properties": {"a": {keyword: False}}}, "/schema")
    assert fault.pointer == f"/schema/properties/a/{keyword}"
    assert "is not taken" in fault.message


@pytest.mark.parametrize(
    ("values", "value", "fits"),
    [
        ([1, "1", None], 1.0, True),
        ([1], True, False),
        ([True], 1, False),
        ([{"a": [1, 2.0]}], {"a": [1.0, 2]}, True),
        ([[1, 2]], [2, 1], False),
        ([], None, False),
    ],
)
def test_a_choice_is_equal_as_json_schema_says(values: list[Any], value: Any, fits: bool) -> None:
    """Numbers by value, and no number is a boolean."""
    compiled = compile_schema({"properties": {"a": {"enum": values}}})
    for _ in range(2):
        assert (compiled.faults({"a": value}, "") == []) is fits


def test_long_lists_in_a_schema_cost_what_they_take() -> None:
    """Many values against many choices are quick; many values against many properties end at the budget, in time."""
    choices = compile_schema({"properties": {"a": {"items": {"enum": list(range(10_000))}}}})
    began = time.process_time()
    assert choices.faults({"a": [9_999] * 20_000}, "") == []
    wide = {"items": {"properties": {f"p{number}": True for number in range(10_000)}}}
    properties = compile_schema({"properties": {"a": wide}})
    (fault,) = properties.faults({"a": [{}] * 100_000}, "/data")
    assert "takes more work" in fault.message
    assert time.process_time() - began < 20
