"""Commands as values: what they may hold, what is wrong with them, and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.commands import command_classes, command_faults, command_from, command_members
from ledger.domain.strict_json import LARGEST_INTEGER, SMALLEST_INTEGER
from ledger.errors import InvalidError

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(SMALLEST_INTEGER, LARGEST_INTEGER)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=5,
)


@dataclass(frozen=True)
class Everything:
    """A command with a field of each kind."""

    text: str
    whole: int
    number: float
    flag: bool
    anything: Any
    words: list[str]
    table: dict[str, int]
    perhaps: str | None = None
    later: list[int] = field(default_factory=list)


CLASSES = command_classes([Everything])


@given(
    st.builds(
        Everything,
        text=st.text(st.characters(codec="utf-8")),
        whole=st.integers(SMALLEST_INTEGER, LARGEST_INTEGER),
        number=st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 5),
        flag=st.booleans(),
        anything=JSON_VALUES,
        words=st.lists(st.text("ab")),
        table=st.dictionaries(st.text("ab"), st.integers(0, 5)),
        perhaps=st.none() | st.text("ab"),
        later=st.lists(st.integers(0, 5)),
    )
)
def test_a_command_comes_back_from_json_as_it_was(command: Everything) -> None:
    """Under the name of its class."""
    members = json.loads(json.dumps(command_members(command)))
    assert command_faults(command) == []
    assert command_from(CLASSES, "Everything", members) == command


@given(st.dictionaries(st.sampled_from([*Everything.__annotations__, "more"]), JSON_VALUES))
def test_any_json_is_a_command_or_refused(members: dict[str, Any]) -> None:
    """With pointers; never another error, and never a value in its words (I5)."""
    try:
        command = command_from(CLASSES, "Everything", members)
    except InvalidError as refused:
        pointers = {fault.pointer for fault in refused.faults}
        assert pointers <= {"", *(f"/{name}" for name in Everything.__annotations__)}
    else:
        assert command_members(command) == {"perhaps": None, "later": [], **members}


GOOD: dict[str, Any] = {
    "text": "", "whole": 1, "number": 1.5, "flag": True, "anything": None, "words": [], "table": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("text", 1, "must be a string"),
        ("whole", True, "must be an integer"),
        ("whole", 1.0, "must be an integer"),
        ("whole", 2**64, "must be an integer of 64 bits; send a larger number as a string"),
        ("number", "1", "must be a number"),
        ("number", float("nan"), "must be a number that a 64-bit float can hold"),
        ("flag", 1, "must be true or false"),
        ("words", ["a", 1], "must be an array of the declared kind"),
        ("table", {"a": "b"}, "must be an object of the declared kind"),
        ("perhaps", 5, "must be a string or null"),
        ("anything", "\ud800", "must not contain a lone surrogate"),
    ],
)
def test_a_field_of_another_kind_is_named(name: str, value: object, message: str) -> None:
    """By its pointer, in plain words."""
    with pytest.raises(InvalidError) as refused:
        command_from(CLASSES, "Everything", {**GOOD, name: value})
    assert [(fault.pointer, fault.message) for fault in refused.value.faults] == [(f"/{name}", message)]


def test_what_is_missing_or_unknown_is_told_at_once() -> None:
    """All of it, and what there is to choose from."""
    with pytest.raises(InvalidError) as refused:
        command_from(CLASSES, "Everything", {**{k: v for k, v in GOOD.items() if k != "text"}, "secret": 1})
    missing, unknown = refused.value.faults
    assert (missing.pointer, missing.message) == ("/text", "is required")
    assert unknown.message.startswith("has an unknown field; known are: anything, flag")
    with pytest.raises(InvalidError) as refused:
        command_from(CLASSES, "os.system", GOOD)
    assert [fault.message for fault in refused.value.faults] == ["must be one of: Everything"]


@dataclass
class Changing:
    """Not frozen."""

    x: int


@dataclass(frozen=True)
class Pointing:
    """A field that no JSON can hold."""

    x: bytes


@dataclass(frozen=True)
class Nesting:
    """One level down."""

    x: dict[str, list[object]]


def another() -> type:
    """Another class of the same name."""

    @dataclass(frozen=True)
    class Everything:
        x: int

    return Everything


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([Changing], "frozen"),
        ([str], "frozen"),
        ([Pointing], "JSON"),
        ([Nesting], "JSON"),
        ([Everything, another()], "two commands"),
    ],
)
def test_classes_that_are_no_commands_are_refused(classes: list[type], words: str) -> None:
    """When the aggregate is put together, not when the first command comes."""
    with pytest.raises(TypeError, match=words):
        command_classes(classes)
