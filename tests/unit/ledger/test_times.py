"""RFC 3339 outside, microseconds inside, and nothing lost between the two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.times import format_time, parse_time

FIRST = -62_135_596_800_000_000
LAST = 253_402_300_799_999_999


@given(st.integers(FIRST, LAST))
def test_what_is_shown_can_be_read_back(microseconds: int) -> None:
    """Every time that can be stored has one text, and that text leads back to it."""
    text = format_time(microseconds)
    assert len(text) == len("2026-03-15T15:00:00.000000Z")
    assert parse_time(text) == microseconds


@given(st.integers(FIRST + 86_400_000_000, LAST - 86_400_000_000), st.integers(-1439, 1439))
def test_an_offset_is_another_name_of_the_same_moment(microseconds: int, minutes: int) -> None:
    """A time with any offset is the same as that moment in UTC."""
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    local = format_time(microseconds + minutes * 60_000_000).removesuffix("Z")
    assert parse_time(f"{local}{sign}{hours:02}:{rest:02}") == microseconds


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("1970-01-01t01:00:00.5+01:00", 500_000),
        ("1970-01-01T00:00:00.12z", 120_000),
        ("1970-01-01T00:00:00-00:00", 0),
        ("2024-02-29T23:59:59.999999+00:00", 1_709_251_199_999_999),
        ("0001-01-01T00:00:00Z", FIRST),
        ("9999-12-31T23:59:59.999999Z", LAST),
    ],
)
def test_forms_of_rfc_3339(text: str, microseconds: int) -> None:
    """Small letters, 0 to 6 digits of a fraction, and every offset are read."""
    assert parse_time(text) == microseconds


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-15T15:00:00",  # no offset
        "2026-03-15 15:00:00Z",
        "2026-03-15T15:00Z",
        "2026-03-15",
        "20260315T150000Z",
        "2026-03-15T15:00:00.Z",
        "2026-03-15T15:00:00.1234567Z",
        "2026-03-15T15:00:00,5Z",
        "2016-12-31T23:59:60Z",  # a leap second
        "2026-03-15T24:00:00Z",
        "2026-03-15T15:60:00Z",
        "2026-02-29T15:00:00Z",
        "2026-13-01T15:00:00Z",
        "2026-00-01T15:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",  # before the first year
        "9999-12-31T23:59:59-00:01",  # after the last one
        "10000-01-01T00:00:00Z",
        "2026-03-15T15:00:00+24:00",
        "2026-03-15T15:00:00+00:60",
        "2026-03-15T15:00:00+0100",
        "2026-03-15T15:00:00+01",
        "2026-03-15T15:00:00+01:00:30",
        " 2026-03-15T15:00:00Z",
        "2026-03-15T15:00:00Z\n",
        "2026-W11-7T15:00:00Z",
        "٢٠٢٦-03-15T15:00:00Z",
        "-2026-03-15T15:00:00Z",
        "",
        "now",
    ],
)
def test_anything_else_is_no_time(text: str) -> None:
    """A time without offset, a leap second, more than microseconds, what the calendar does not have: refused."""
    assert parse_time(text) is None


@pytest.mark.parametrize("value", [None, 0, 1.5, True, [], {}, b"2026-03-15T15:00:00Z"])
def test_a_time_is_text(value: object) -> None:
    """Numbers and other values are not guessed at."""
    assert parse_time(value) is None


@given(st.text(max_size=40))
def test_reading_never_fails(text: str) -> None:
    """Whatever a client sends is a time or none, never an error of ours."""
    assert parse_time(text) is None or isinstance(parse_time(text), int)
