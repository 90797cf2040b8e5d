"""Old events in new shapes: steps never fail, change nothing that they are given, and chains of them compose."""

from __future__ import annotations

import copy
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.domain.catalogue import EventType, bring_up, build_catalogue
from ledger.domain.events import Envelope, JsonObject, OpenedEvent, OpenedPart, RecordedEvent
from ledger.domain.upcasting import (
    STEPS,
    TEMPLATE_CHARACTERS,
    Step,
    Upcast,
    Upcasters,
    apply_function,
    apply_steps,
    parse_steps,
)

KEYS = st.sampled_from(["a", "b", "c", "a/b", "~", "", "né"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)
POINTERS = st.lists(KEYS, min_size=1, max_size=3).map(
    lambda keys: "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)
)


@st.composite
def raw_steps(draw: st.DrawFn) -> JsonObject:
    """Any step that can be registered."""
    kind = draw(st.sampled_from(["move", "default", "drop", "template"]))
    path, other = draw(POINTERS), draw(POINTERS)
    step: JsonObject
    match kind:
        case "move":
            step = {"move": {"from": path, "to": other if other != path else path + "/x"}}
        case "default":
            step = {"default": {"path": path, "value": draw(VALUES)}}
        case "drop":
            step = {"drop": {"path": path}}
        case _:
            step = {"template": {"path": path, "template": f"{{{other}}} and {{{{{{{path}}}}}}}"}}
    return {**step, **draw(st.sampled_from([{}, {"in": "data"}, {"in": "nonpersonal"}]))}


def steps_of(*raw: object) -> list[Step]:
    """Steps that can be registered."""
    steps, faults = parse_steps(raw, "/upcast")
    assert faults == []
    return steps


def shown(data: JsonObject, *raw: object) -> JsonObject | None:
    """Data after steps."""
    return apply_steps(steps_of(*raw), data, None)[0]


def an_event(data: JsonObject | None, nonpersonal: JsonObject | None = None, version: int = 1) -> OpenedEvent:
    """An opened event of the type T."""
    envelope = Envelope(UUID(int=1), UUID(int=2), bytes(16), "c", "T", version, None, None, None)
    recorded = RecordedEvent(envelope, (), UUID(int=3), 0, 1, 0, bytes(32))
    part = OpenedPart("s", bytes(16), "", data, readable=data is not None)
    return OpenedEvent(recorded, "c-1", part, None, (), nonpersonal, ())


def versions(*upcasts: list[JsonObject] | None) -> list[EventType]:
    """Registered versions of T: the first, and one for each way."""
    return [EventType("T", 1), *(EventType("T", number, upcast=way) for number, way in enumerate(upcasts, 2))]


# Steps


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        ({"rename": {"from": "/a", "to": "/b"}}, {"a": 1}, {"b": 1}),
        ({"rename": {"from": "/a/x", "to": "/a/y"}}, {"a": {"x": 1}}, {"a": {"y": 1}}),
        ({"rename": {"from": "/a", "to": "/b"}}, {"c": 1}, {"c": 1}),
        ({"rename": {"from": "/a", "to": "/b"}}, {"a": None, "b": 2}, {"b": None}),
        ({"move": {"from": "/a", "to": "/x/y"}}, {"a": 1}, {"x": {"y": 1}}),
        ({"move": {"from": "/a", "to": "/x/y"}}, {"a": 1, "x": {"z": 2}}, {"x": {"y": 1, "z": 2}}),
        ({"move": {"from": "/a", "to": "/x/y"}}, {"a": 1, "x": "in the way"}, {"a": 1, "x": "in the way"}),
        ({"move": {"from": "/a", "to": "/a/b"}}, {"a": 1}, {"a": {"b": 1}}),
        ({"default": {"path": "/c", "value": 1}}, {}, {"c": 1}),
        ({"default": {"path": "/c", "value": 1}}, {"c": None}, {"c": None}),
        ({"default": {"path": "/c/d", "value": 1}}, {"c": {}}, {"c": {"d": 1}}),
        ({"default": {"path": "/c/d", "value": 1}}, {"c": [1]}, {"c": [1]}),
        ({"drop": {"path": "/a/b"}}, {"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}),
        ({"drop": {"path": "/a/0"}}, {"a": [1]}, {"a": [1]}),
        ({"drop": {"path": "/a~1b/~0"}}, {"a/b": {"~": 1}}, {"a/b": {}}),
        (
            {"template": {"path": "/full_name", "template": "{/first} {/last}"}},
            {"first": "Ada", "last": "Lovelace"},
            {"first": "Ada", "last": "Lovelace", "full_name": "Ada Lovelace"},
        ),
        ({"template": {"path": "/n", "template": "{/first} {/last}"}}, {"first": "Ada"}, {"first": "Ada"}),
        ({"template": {"path": "/n", "template": "{{{/a}}} {/b}"}}, {"a": 1.5, "b": True}, None),
    ],
)
def test_what_a_step_does(step: JsonObject, before: JsonObject, after: JsonObject | None) -> None:
    """Each step, with what it needs and without; what is in the way stays."""
    expected = after if after is not None else {**before, "n": "{1.5} true"}
    assert shown(before, step) == expected


@given(OBJECTS, OBJECTS, st.lists(raw_steps(), max_size=6))
def test_steps_never_fail_and_change_no_argument(data: JsonObject, nonpersonal: JsonObject, raw: list[Any]) -> None:
    """On any JSON, whatever the steps look for; and what comes out is again an object."""
    before = copy.deepcopy((data, nonpersonal))
    after = apply_steps(steps_of(*raw), data, nonpersonal)
    assert (data, nonpersonal) == before
    assert all(isinstance(part, dict) for part in after)


@given(OBJECTS, OBJECTS, st.lists(raw_steps(), max_size=6))
def test_personal_data_never_crosses_over(data: JsonObject, nonpersonal: JsonObject, raw: list[Any]) -> None:
    """What becomes of one does not depend on the other: so nothing can flow from data into what outlives it."""
    steps = steps_of(*raw)
    both = apply_steps(steps, data, nonpersonal)
    assert apply_steps(steps, data, {})[0] == both[0]
    assert apply_steps(steps, {}, nonpersonal)[1] == both[1]


@given(st.lists(raw_steps(), max_size=6))
def test_what_is_hidden_is_not_taken_for_empty(raw: list[Any]) -> None:
    """Neither a default nor a template invents data where there is none to be seen."""
    assert apply_steps(steps_of(*raw), None, None) == (None, None)


@settings(max_examples=60)
@given(OBJECTS, OBJECTS, st.lists(st.lists(raw_steps(), max_size=3), min_size=2, max_size=4), st.data())
def test_chains_compose(data: JsonObject, nonpersonal: JsonObject, ways: list[Any], draw: st.DataObject) -> None:
    """From version 1 to m, then from m to n, is from 1 to n: for every m."""
    middle = draw.draw(st.integers(1, len(ways)))
    everything = build_catalogue(versions(*ways))
    first_half = build_catalogue(versions(*ways[: middle - 1]))
    upcasters = Upcasters()
    halfway = bring_up(an_event(data, nonpersonal), first_half, upcasters)
    assert halfway.subject is not None
    again = bring_up(an_event(halfway.subject.data, halfway.nonpersonal, middle), everything, upcasters)
    at_once = bring_up(an_event(data, nonpersonal), everything, upcasters)
    assert (again.subject, again.nonpersonal) == (at_once.subject, at_once.nonpersonal)
    assert again.shown_version == at_once.shown_version == len(ways) + 1


def test_templates_that_grow_stop_growing() -> None:
    """Doubling a text a hundred times gives no text of a hundred doublings."""
    double = {"template": {"path": "/a", "template": "{/a}{/a}"}}
    data = shown({"a": "x"}, *[double] * STEPS)
    assert data is not None
    assert len(data["a"]) == TEMPLATE_CHARACTERS


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        ("rename", "/upcast/0"),
        ({}, "/upcast/0"),
        ({"in": "data"}, "/upcast/0"),
        ({"rename": {"from": "/a", "to": "/b"}, "drop": {"path": "/c"}}, "/upcast/0"),
        ({"drop": {"path": "/c"}, "why": "so"}, "/upcast/0"),
        ({"drop": "/c"}, "/upcast/0/drop"),
        ({"drop": {}}, "/upcast/0/drop"),
        ({"drop": {"path": ""}}, "/upcast/0/drop/path"),
        ({"drop": {"path": "c"}}, "/upcast/0/drop/path"),
        ({"drop": {"path": "/~2"}}, "/upcast/0/drop/path"),
        ({"drop": {"path": "/a" * 17}}, "/upcast/0/drop/path"),
        ({"drop": {"path": "/\ud800"}}, "/upcast/0/drop/path"),
        ({"drop": {"path": "/c"}, "in": "actor"}, "/upcast/0/in"),
        ({"rename": {"from": "/a", "to": "/x/y"}}, "/upcast/0/rename/to"),
        ({"move": {"from": "/a", "to": "/a"}}, "/upcast/0/move/to"),
        ({"default": {"path": "/a", "value": 2**64}}, "/upcast/0/default/value"),
        ({"default": {"path": "/a"}}, "/upcast/0/default"),
        ({"template": {"path": "/a", "template": 1}}, "/upcast/0/template/template"),
        ({"template": {"path": "/a", "template": "{/b"}}, "/upcast/0/template/template"),
        ({"template": {"path": "/a", "template": "{b}"}}, "/upcast/0/template/template"),
        ({"template": {"path": "/a", "template": "{/b}" * 33}}, "/upcast/0/template/template"),
    ],
)
def test_steps_that_cannot_be_read_are_refused(raw: object, pointer: str) -> None:
    """Each with its place, before it is registered."""
    _, faults = parse_steps([raw], "/upcast")
    assert [fault.pointer for fault in faults] == [pointer]


def test_too_many_steps_are_refused() -> None:
    """So that a version stays cheap to show."""
    assert parse_steps([{"drop": {"path": "/a"}}] * (STEPS + 1), "/upcast")[1]


# Functions


def with_b(data: JsonObject | None, nonpersonal: JsonObject | None) -> tuple[JsonObject | None, JsonObject | None]:
    """A way that is written in code."""
    return {**(data or {}), "b": 2}, nonpersonal


@pytest.mark.parametrize(
    ("ways", "says"),
    [
        ([Upcast("T", 1, 2, with_b), Upcast("T", 1, 2, with_b)], "twice"),
        ([Upcast("T", 2, 1, with_b)], "backwards"),
        ([Upcast("T", 1, 1, with_b)], "circle"),
        ([Upcast("T", 1, 2, with_b), Upcast("T", 2, 1, with_b)], "circle"),
        ([Upcast("T", 1, 3, with_b)], "leaves out"),
        ([Upcast("T", 1, 2, with_b), Upcast("T", 3, 4, with_b)], "no way from version 2 to 3"),
        ([Upcast("T", 0, 1, with_b)], "begin with 1"),
        ([Upcast("no type", 1, 2, with_b)], "no event type"),
        ([Upcast("SubjectErased", 1, 2, with_b)], "own"),
    ],
)
def test_ways_in_code_that_lead_nowhere_are_refused(ways: list[Upcast], says: str) -> None:
    """Where they are put together, and not when the first old event is read."""
    with pytest.raises(ValueError, match=says):
        Upcasters.of(*ways)


def test_a_function_gets_copies() -> None:
    """One that changes its arguments changes nothing else."""

    def careless(data: Any, nonpersonal: Any) -> Any:
        data["a"].append(1)
        nonpersonal.clear()
        return data, nonpersonal

    data, nonpersonal = {"a": [0]}, {"b": 1}
    assert apply_function(careless, data, nonpersonal) == ({"a": [0, 1]}, {})
    assert (data, nonpersonal) == ({"a": [0]}, {"b": 1})


@pytest.mark.parametrize(
    "result", [None, {}, ({},), ("x", {}), ({1: 2}, {}), ({"a": object()}, {}), ({"a": float("nan")}, {}), (None, {})]
)
def test_a_function_that_gives_no_json_has_failed(result: Any) -> None:
    """The event is shown as it was recorded, and flagged."""
    upcasters = Upcasters({("T", 1): lambda data, nonpersonal: result})
    event = bring_up(an_event({"a": 1}, {}), build_catalogue(versions(None)), upcasters)
    assert (event.schema_status, event.shown_version) == ("failed", 1)
    assert event.subject is not None
    assert event.subject.data == {"a": 1}


def test_a_function_that_raises_hides_no_event() -> None:
    """Whatever it raises."""

    def failing(data: Any, nonpersonal: Any) -> Any:
        raise RecursionError

    event = bring_up(an_event({}), build_catalogue(()), Upcasters({("T", 1): failing}))
    assert event.schema_status == "failed"


def test_a_function_invents_nothing_where_something_is_hidden() -> None:
    """What is hidden or absent stays so, whatever a function makes of it."""
    event = bring_up(an_event(None), build_catalogue(()), Upcasters({("T", 1): with_b}))
    assert event.schema_status == "upcast"
    assert event.subject is not None
    assert event.subject.data is None


def test_what_is_registered_goes_before_what_is_in_code() -> None:
    """It is the same in every process; and both kinds of way make one chain."""
    catalogue = build_catalogue(versions([{"default": {"path": "/b", "value": "registered"}}], None))
    upcasters = Upcasters({("T", 1): with_b, ("T", 2): lambda data, rest: ({**(data or {}), "c": 3}, rest)})
    event = bring_up(an_event({}), catalogue, upcasters)
    assert event.subject is not None
    assert event.subject.data == {"b": "registered", "c": 3}
    assert event.shown_version == 3


# What is not known


@pytest.mark.parametrize(
    ("registered", "version", "status"),
    [
        ((), 1, "unregistered"),
        (versions(), 1, "current"),
        (versions([]), 1, "upcast"),
        (versions([]), 2, "current"),
        (versions([]), 3, "unknown-version"),
        (versions([]), 0, "unknown-version"),
        (versions(None), 1, "unknown-version"),
        (versions([{"no": "step"}]), 1, "unknown-version"),
    ],
)
def test_what_is_not_known_is_shown_raw_and_flagged(registered: list[EventType], version: int, status: str) -> None:
    """An unknown type or version is never an error, and nothing is guessed."""
    event = bring_up(an_event({"a": 1}, None, version), build_catalogue(registered), Upcasters())
    assert event.schema_status == status
    assert event.shown_version == (2 if status == "upcast" else version)
    assert event.subject is not None
    assert event.subject.data == {"a": 1}


def test_a_shape_that_gets_too_deep_is_not_shown() -> None:
    """Every version can nest deeper; what no event could hold is a failure, and no crash of whoever reads it."""
    deeper = [{"move": {"from": "/a", "to": "/b" + "/x" * 14}}, {"move": {"from": "/b", "to": "/a"}}]
    event = bring_up(an_event({"a": {}}), build_catalogue(versions(*[deeper] * 100)), Upcasters())
    assert event.schema_status == "failed"
