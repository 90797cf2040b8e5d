"""Plaintexts are the bytes that the format says, whatever writes them."""

from __future__ import annotations

import json
import sys
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.services.appending.recording import write_plaintext

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ANY_DATA = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | NUMBERS | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=8,
    ),
)


def spelled(members: dict[str, Any]) -> bytes:
    """The text of a plaintext as the format has it: Python's, in UTF-8, without spaces; padded."""
    text = json.dumps(members, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return text.ljust(-(-len(text) // 64) * 64)


@given(TEXT, ANY_DATA)
def test_plaintexts_are_spelled_as_python_spells_json(subject: str, data: dict[str, Any]) -> None:
    """Whatever writes them, for any data: what was sealed once is sealed in the same bytes for ever."""
    plaintext = write_plaintext(subject, None, data)
    assert spelled({"subject": subject, "data": data}) == plaintext


def test_every_character_is_spelled_as_python_spells_it() -> None:
    """In values and in keys, from NUL on."""
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    for start in range(0, len(characters), 4096):
        some = "".join(characters[start : start + 4096])
        data = {some: some}
        assert spelled({"data": data}) == write_plaintext(None, None, data)


@pytest.mark.parametrize(
    "value",
    [1e-05, 1e16, 5e-324, -0.0, 0.1, 2**53 + 0.0, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, True, 10**30],
)
def test_numbers_are_spelled_as_python_spells_them(value: float) -> None:
    """Also those that other writers spell in another way, or cannot write."""
    for data in ({"a": value}, {"a": [value]}, {"a": {"b": [{"c": value}]}}):
        assert spelled({"data": data}) == write_plaintext(None, None, data)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), UUID(int=1), b"bytes", {1, 2}])
def test_what_is_no_json_is_not_sealed(value: object) -> None:
    """An error here and not a null, or a text that nobody sent."""
    with pytest.raises((ValueError, TypeError)):
        write_plaintext(None, None, {"a": [value]})


def test_a_lone_surrogate_is_not_sealed() -> None:
    """It has no bytes in UTF-8."""
    for data in ({"a": "\ud800"}, {"\ud800": 1}):
        with pytest.raises(UnicodeEncodeError):
            write_plaintext(None, None, data)
