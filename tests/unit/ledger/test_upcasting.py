"""Old events in new shapes: steps never fail, change nothing that they are given, and chains of them compose."""

from __future__ import annotations

import copy
import tracemalloc
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.domain.catalogue import EventType, bring_up, build_catalogue
from ledger.domain.events import Envelope, JsonObject, OpenedEvent, OpenedPart, RecordedEvent
from ledger.domain.intake import EVENT_BYTES
from ledger.domain.upcasting import (
    GROWTH_BYTES,
    STEPS,
    Budget,
    GrowthError,
    Step,
    Upcast,
    Upcasters,
    apply_steps,
    apply_upcast,
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
    return apply_steps(steps_of(*raw), data, None, Budget())[0]


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
    after = apply_steps(steps_of(*raw), data, nonpersonal, Budget())
    assert (data, nonpersonal) == before
    assert all(isinstance(part, dict) for part in after)


@given(OBJECTS, OBJECTS, st.lists(raw_steps(), max_size=6))
def test_personal_data_never_crosses_over(data: JsonObject, nonpersonal: JsonObject, raw: list[Any]) -> None:
    """What becomes of one does not depend on the other: so nothing can flow from data into what outlives it."""
    steps = steps_of(*raw)
    both = apply_steps(steps, data, nonpersonal, Budget())
    assert apply_steps(steps, data, {}, Budget())[0] == both[0]
    assert apply_steps(steps, {}, nonpersonal, Budget())[1] == both[1]


@given(st.lists(raw_steps(), max_size=6))
def test_what_is_hidden_is_not_taken_for_empty(raw: list[Any]) -> None:
    """Neither a default nor a template invents data where there is none to be seen."""
    assert apply_steps(steps_of(*raw), None, None, Budget()) == (None, None)


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


DOUBLED = {"template": {"path": "/a", "template": "{/a}{/a}"}}
MULTIPLIED = {"template": {"path": "/a", "template": "{/a}" * 32}}
COPIED = [{"template": {"path": f"/a{number}", "template": "{/a}"}} for number in range(STEPS)]
FILLED = [{"default": {"path": "/b", "value": ["x" * 60_000]}}]
LONG_NAMES = [{"default": {"path": f"/{number}" + "/k" * 15 + "x" * 400, "value": 0}} for number in range(90)]


@pytest.mark.parametrize(
    "ways",
    [
        [[DOUBLED] * STEPS],
        [[MULTIPLIED] * STEPS],
        [COPIED],
        [COPIED[:9]] * 2 + [COPIED[9:]],
        [FILLED, [{"move": {"from": "/b", "to": "/c"}}], FILLED],
        [
            [{"move": {"from": "/b", "to": "/c"}, "in": "nonpersonal"}],
            COPIED[:16],
            [{**FILLED[0], "in": "nonpersonal"}],
        ],
        [LONG_NAMES, [{**step, "in": "nonpersonal"} for step in LONG_NAMES]],
    ],
)
def test_no_way_blows_an_event_up(ways: list[list[JsonObject]]) -> None:
    """Limits of pages count what is recorded. So all ways together have one budget, wherever they put something; an
    event that would get larger is shown as it was recorded, and flagged."""
    data = {"a": "é" * 1000}
    event = bring_up(an_event(data, {}), build_catalogue(versions(*ways)), Upcasters())
    assert (event.schema_status, event.shown_version) == ("failed", 1)
    assert event.subject is not None
    assert (event.subject.data, event.nonpersonal) == (data, {})


def test_a_template_is_not_put_together_before_there_is_room_for_it() -> None:
    """One step can ask for the same long text many times; it is refused without the memory."""
    data = {"a": "x" * 2**20}
    tracemalloc.start()
    try:
        with pytest.raises(GrowthError):
            shown(data, MULTIPLIED)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_an_event_may_always_grow_to_twice_its_size() -> None:
    """One that was recorded at the limit can get a new member like any other; a small one has room for a few texts."""
    large = {"text": "x" * (EVENT_BYTES - 20)}
    steps = steps_of({"template": {"path": "/copy", "template": "{/text}"}})
    assert apply_steps(steps, large, None, Budget(EVENT_BYTES))[0] == {**large, "copy": large["text"]}
    small = {"text": "x" * (GROWTH_BYTES - 20)}
    assert apply_steps(steps, small, None, Budget())[0] == {**small, "copy": small["text"]}


def test_what_is_taken_out_makes_room() -> None:
    """Long chains are fine as long as the event does not grow: what counts is how large it is, and not how often it was
    written anew."""
    anew = [
        {"template": {"path": "/b", "template": "{/a}"}},
        {"drop": {"path": "/a"}},
        {"default": {"path": "/a", "value": {"x": ["y" * 1000]}}},
        {"move": {"from": "/b", "to": "/a"}},
    ]
    assert shown({"a": "x" * 10_000}, *anew * 25) == {"a": "x" * 10_000}


@given(OBJECTS, st.lists(raw_steps(), max_size=8))
def test_the_budget_is_what_the_event_has_grown_by(data: JsonObject, raw: list[Any]) -> None:
    """Whatever steps put, move, overwrite and drop: counted on the way or at the end, but for a few braces."""
    budget, before, after = Budget(), Budget(), Budget()
    shown_data, _ = apply_steps(steps_of(*raw), data, None, budget)
    before.put(data)
    after.put(shown_data)
    assert abs((before.room - after.room) - (GROWTH_BYTES - budget.room)) <= 4 * len(raw)


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


def with_b(content: JsonObject) -> JsonObject:
    """A way that is written in code."""
    return {**content, "b": 2}


@pytest.mark.parametrize(
    ("ways", "says"),
    [
        ([Upcast("T", 1, 2, data=with_b), Upcast("T", 1, 2, data=with_b)], "twice"),
        ([Upcast("T", 2, 1, data=with_b)], "backwards"),
        ([Upcast("T", 1, 1, data=with_b)], "circle"),
        ([Upcast("T", 1, 2, data=with_b), Upcast("T", 2, 1, data=with_b)], "circle"),
        ([Upcast("T", 1, 3, data=with_b)], "leaves out"),
        ([Upcast("T", 1, 2, data=with_b), Upcast("T", 3, 4, data=with_b)], "no way from version 2 to 3"),
        ([Upcast("T", 0, 1, data=with_b)], "begin with 1"),
        ([Upcast("no type", 1, 2, data=with_b)], "no event type"),
        ([Upcast("SubjectErased", 1, 2, data=with_b)], "own"),
    ],
)
def test_ways_in_code_that_lead_nowhere_are_refused(ways: list[Upcast], says: str) -> None:
    """Where they are put together, and not when the first old event is read."""
    with pytest.raises(ValueError, match=says):
        Upcasters.of(*ways)


def test_a_way_in_code_takes_no_function_of_both() -> None:
    """Which one a function is for has to be said; given data and nonpersonal together, it could carry the one over."""
    with pytest.raises(TypeError):
        Upcast("T", 1, 2, with_b)  # type: ignore[call-arg]  # that is what is shown here


@given(OBJECTS, OBJECTS)
def test_a_function_sees_only_what_it_changes(data: JsonObject, nonpersonal: JsonObject) -> None:
    """So nothing can flow from data into what outlives it; and a way need not have both functions."""
    seen: list[JsonObject] = []

    def noting(content: JsonObject) -> JsonObject:
        seen.append(content)
        return {**content, "seen": [*content]}

    both = apply_upcast(Upcast("T", 1, 2, data=noting, nonpersonal=noting), data, nonpersonal, Budget())
    assert both == ({**data, "seen": [*data]}, {**nonpersonal, "seen": [*nonpersonal]})
    assert seen == [data, nonpersonal]
    assert apply_upcast(Upcast("T", 1, 2, data=noting), data, nonpersonal, Budget()) == (both[0], nonpersonal)
    assert apply_upcast(Upcast("T", 1, 2, nonpersonal=noting), data, nonpersonal, Budget()) == (data, both[1])
    assert apply_upcast(Upcast("T", 1, 2), data, nonpersonal, Budget()) == (data, nonpersonal)


def test_a_function_gets_copies() -> None:
    """One that changes its arguments changes nothing else."""

    def careless(content: Any) -> Any:
        content["a"].append(1)
        return content

    data = {"a": [0]}
    assert apply_upcast(Upcast("T", 1, 2, data=careless), data, None, Budget()) == ({"a": [0, 1]}, None)
    assert data == {"a": [0]}


@pytest.mark.parametrize("result", [None, [], "x", ({}, {}), {1: 2}, {"a": object()}, {"a": float("nan")}, {"a": (1,)}])
@pytest.mark.parametrize("part", ["data", "nonpersonal"])
def test_a_function_that_gives_no_json_has_failed(result: Any, part: str) -> None:
    """The event is shown as it was recorded, and flagged."""
    event = bring_up(an_event({"a": 1}, {}), build_catalogue(versions(None)), in_code(**{part: lambda _: result}))
    assert (event.schema_status, event.shown_version) == ("failed", 1)
    assert event.subject is not None
    assert (event.subject.data, event.nonpersonal) == ({"a": 1}, {})


def in_code(**functions: Any) -> Upcasters:
    """A way of T from version 1 to 2."""
    return Upcasters.of(Upcast("T", 1, 2, **functions))


def test_a_function_that_raises_hides_no_event() -> None:
    """Whatever it raises."""

    def failing(_: JsonObject) -> JsonObject:
        raise RecursionError

    event = bring_up(an_event({}), build_catalogue(()), in_code(data=failing))
    assert event.schema_status == "failed"


def many_of_one() -> Any:
    """A value that is small in memory and would be endless as text: each list holds the one before it, many times."""
    value: Any = "x"
    for _ in range(40):
        value = [value] * 10
    return value


def endless() -> Any:
    """A value that holds itself."""
    value: dict[str, Any] = {}
    value["again"] = value
    return value


@pytest.mark.parametrize("result", [{"a": "x" * 2**20}, {"a": many_of_one()}, endless()])
def test_a_function_that_gives_too_much_has_failed(result: JsonObject) -> None:
    """And not only once all of it was looked at."""
    event = bring_up(an_event({"a": 1}), build_catalogue(()), in_code(data=lambda _: result))
    assert event.schema_status == "failed"


def test_functions_and_steps_have_one_budget() -> None:
    """The budget is the event's, however many ways of either kind it has."""
    catalogue = build_catalogue(versions(None, FILLED))
    large = in_code(nonpersonal=lambda _: {"c": "x" * 10_000})
    assert bring_up(an_event({}, {}), catalogue, large).schema_status == "failed"
    assert bring_up(an_event({}, None), catalogue, large).schema_status == "upcast"
    assert bring_up(an_event({}, {"old": "x" * 10_000}), catalogue, large).schema_status == "upcast", (
        "it replaces as much"
    )


def test_a_function_invents_nothing_where_something_is_hidden() -> None:
    """What is hidden or absent stays so, and functions are not asked."""

    def refusing(_: JsonObject) -> JsonObject:
        raise AssertionError("was asked")

    event = bring_up(an_event(None), build_catalogue(()), in_code(data=refusing, nonpersonal=refusing))
    assert event.schema_status == "upcast"
    assert event.subject is not None
    assert (event.subject.data, event.nonpersonal) == (None, None)


def test_what_is_registered_goes_before_what_is_in_code() -> None:
    """It is the same in every process; and both kinds of way make one chain."""
    catalogue = build_catalogue(versions([{"default": {"path": "/b", "value": "registered"}}], None))
    upcasters = Upcasters.of(Upcast("T", 1, 2, data=with_b), Upcast("T", 2, 3, data=lambda data: {**data, "c": 3}))
    event = bring_up(an_event({}), catalogue, upcasters)
    assert event.led_by_code == (2,)
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
