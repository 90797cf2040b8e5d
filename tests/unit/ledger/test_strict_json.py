"""JSON is taken as it is meant or not at all, and an error never repeats a piece of it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.strict_json import (
    DEPTH,
    LARGEST_INTEGER,
    SMALLEST_INTEGER,
    parse_json,
    parse_spelled_json,
    same_json,
    value_faults,
)
from ledger.errors import MalformedError

SECRET = "Zebedee"

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_values_that_are_compared_are_the_same_however_they_are_laid_out(value: Any) -> None:
    """White space, the order of members and escapes say nothing; the numbers in them still are the numbers."""
    laid_out = json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)
    one, other = (parse_spelled_json(text.encode()) for text in laid_out)
    assert same_json(one, other)
    assert one == other == value
    assert json.dumps(one) == laid_out[0]


NUMBERS = (
    "71.5",
    "71.50",
    "715e-1",
    "7.15E1",
    "7.15e1",
    "71.50000000000000000001",
    "71",
    "0",
    "-0",
    "0.0",
    "-0.0",
    "1e999",
)


@pytest.mark.parametrize("wrapped", ["{}", "[[{}]]", '{{"a":[1,{}]}}'])
def test_numbers_are_the_same_only_where_they_are_spelled_the_same(wrapped: str) -> None:
    """Also those that a float cannot tell apart; and what Python takes for equal."""
    spelled = [*NUMBERS, "true", "false", "null", "1", '"1"', '"71.5"', "[]", "{}"]
    texts = [wrapped.format(one).encode() for one in spelled]
    for one in texts:
        for other in texts:
            assert same_json(parse_spelled_json(one), parse_spelled_json(other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"), [("[1]", "[1,1]"), ('{"a":1}', '{"a":1,"b":1}'), ('{"a":1}', '{"b":1}'), ('{"a":1}', '["a"]')]
)
def test_nothing_may_be_missing(one: str, other: str) -> None:
    """Neither here nor there."""
    for first, second in ((one, other), (other, one)):
        assert not same_json(parse_spelled_json(first.encode()), parse_spelled_json(second.encode()))


@given(JSON_VALUES)
def test_what_is_kept_is_what_was_sent(value: Any) -> None:
    """Every JSON value of the contract is read as it was meant, and without a fault."""
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert parse_json(text.encode()) == value
    assert value_faults(value, "/data") == []


@pytest.mark.parametrize(
    "text",
    [
        f'{{"{SECRET}": 1, "{SECRET}": 2}}',
        f'{{"a": {{"{SECRET}": 1, "b": 2, "{SECRET}": 1}}}}',
        f'[{{"\\u005a{SECRET[1:]}": 1, "{SECRET}": 1}}]',
        f'{{"{SECRET}": NaN}}',
        f'{{"{SECRET}": Infinity}}',
        f'{{"{SECRET}": -Infinity}}',
        f'{{"{SECRET}": 1}} {SECRET}',
        f'{{"{SECRET}": 1}}{{}}',
        f'{{"{SECRET}": 1,}}',
        f"{{'{SECRET}': 1}}",
        f'{{"{SECRET}": "tab\there"}}',
        f'{{"{SECRET}": "\\q"}}',
        f'{{"{SECRET}": "\\u12"}}',
        f'{{"{SECRET}": 01}}',
        f'{{"{SECRET}": +1}}',
        f'{{"{SECRET}": .5}}',
        f'{{"{SECRET}": 0x10}}',
        f'{{"{SECRET}"',
        f'"{SECRET}',
        f"// {SECRET}\n{{}}",
        SECRET,
        "",
        " ",
        "\ufeff{}",
        "\ufeff" + SECRET,
        f'{{"{SECRET}": {"9" * 5000}}}',
        f'{{"{SECRET}": -{"9" * 5000}}}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" * 100_000 + "]" * 100_000,
    ],
    ids=lambda text: text[:24],
)
def test_what_is_not_json_is_refused_without_being_repeated(text: str) -> None:
    """Duplicate keys, NaN, trailing garbage, a byte order mark, endless numbers and nesting: one clean error."""
    with pytest.raises(MalformedError) as caught:
        parse_json(text.encode())
    shown = f"{caught.value} {caught.value.detail} {caught.value.faults} {caught.value.__cause__}"
    assert SECRET not in shown
    assert SECRET[1:] not in shown
    assert "999" not in shown
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b'{"Zebedee": "\xc3\x28"}',
        b'"\xed\xa0\x80"',
        b'{"Zebedee": "\xf4\x90\x80\x80"}',
        "{}".encode("utf-16"),
        b'"\xc0\x80"',
    ],
)
def test_what_is_not_utf_8_is_refused(text: bytes) -> None:
    """Overlong forms, surrogates in UTF-8, other encodings: refused, with the place and nothing else."""
    with pytest.raises(MalformedError, match="not UTF-8") as caught:
        parse_json(text)
    assert SECRET not in str(caught.value)


WHITE_SPACE = st.text(" \t\n\r\x0b\u00a0", max_size=3)
PIECES = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", '"a"', '"', "1", "-0", "1e5", "true", "null", " ", "\n", "\u2028"]
)


@given(WHITE_SPACE, JSON_VALUES.map(json.dumps) | st.lists(PIECES, max_size=6).map("".join), WHITE_SPACE, PIECES)
def test_what_is_wrong_is_told_where_the_standard_library_finds_it(
    before: str, body: str, after: str, piece: str
) -> None:
    """White space around the value is none of it, and whatever else stands there is an error with its place."""
    for text in (before + body + after, before + body + after + piece):
        try:
            expected = json.JSONDecoder().decode(text)
        except json.JSONDecodeError as error:
            with pytest.raises(MalformedError) as caught:
                parse_json(text.encode())
            place = f"{error.msg} (line {error.lineno}, column {error.colno})"
            assert caught.value.detail == f"the body is not JSON: {place}"
        else:
            assert same(parse_json(text.encode()), expected)


def same(one: Any, other: Any) -> bool:
    """Equal in value and in type."""
    return json.dumps(one) == json.dumps(other)


@given(st.binary(max_size=60))
def test_reading_fails_in_one_way_only(text: bytes) -> None:
    """Whatever comes is JSON or a ``MalformedError``."""
    for parse in (parse_json, parse_spelled_json):
        with suppress(MalformedError):
            parse(text)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": parse_json(b"1e400")}, "must be a number that a 64-bit float can hold"),
        ({"a": [parse_json(b"-1e400")]}, "must be a number that a 64-bit float can hold"),
        ({"a": LARGEST_INTEGER + 1}, "must be an integer of 64 bits; send a larger number as a string"),
        ({"a": SMALLEST_INTEGER - 1}, "must be an integer of 64 bits; send a larger number as a string"),
        ({SECRET: parse_json(b'"\\ud800"')}, "must not contain a lone surrogate"),
        ({"a": {parse_json(b'"Zebedee\\udc00"'): 1}}, "must not contain a lone surrogate in a key"),
        ({parse_json(b'"\\ud834"'): 1, parse_json(b'"\\udd1e"'): 2}, "must not contain a lone surrogate in a key"),
    ],
)
def test_what_cannot_be_kept_exactly_is_a_fault_without_a_key(value: object, message: str) -> None:
    """Numbers that somebody would round and text that is no UTF-8 are faults of the whole field: keys are data too."""
    faults = value_faults(value, "/data")
    assert [(fault.pointer, fault.message) for fault in faults] == [("/data", message)]


def test_the_far_ends_are_kept() -> None:
    """64 bits signed and unsigned, and a pair of surrogates that is one character."""
    value = parse_json(f'[{SMALLEST_INTEGER}, {LARGEST_INTEGER}, 1.7976931348623157e308, "\\ud834\\udd1e"]'.encode())
    assert value == [SMALLEST_INTEGER, LARGEST_INTEGER, 1.7976931348623157e308, "𝄞"]
    assert value_faults(value, "") == []


def test_nesting_has_a_floor() -> None:
    """64 levels are fine, 65 are not, in arrays and objects alike."""
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        inner = "1" if opening != "[" else ""
        deepest = parse_json((opening * DEPTH + inner + closing * DEPTH).encode())
        deeper = parse_json((opening * (DEPTH + 1) + inner + closing * (DEPTH + 1)).encode())
        assert value_faults(deepest, "/data") == []
        assert [fault.pointer for fault in value_faults(deeper, "/data")] == ["/data"]


def test_faults_are_not_without_end() -> None:
    """A value that is wrong in a thousand places is told of in twenty."""
    assert len(value_faults([2**70] * 1000, "/data")) == 20
