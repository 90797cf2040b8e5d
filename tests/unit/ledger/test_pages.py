"""Cursors of time travel come back as they were given, and nothing else is taken for one."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.pages import DiffPlace, HistoryPlace, PageCursor, StatesPlace, decode_page, encode_page
from ledger.errors import InvalidError

REFS = st.binary(min_size=16, max_size=16)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
PLACES = st.one_of(
    st.builds(
        StatesPlace,
        category=st.none() | st.text("ab_.", min_size=1, max_size=4),
        subject_ref=st.none() | REFS,
        as_of=NUMBERS,
        occurred=st.none() | NUMBERS,
        after_ref=st.none() | REFS,
    ),
    st.builds(DiffPlace, category=st.just("ward"), old=NUMBERS, as_of=NUMBERS, after_ref=REFS),
    st.builds(HistoryPlace, stream_ref=REFS, as_of=NUMBERS, done=st.integers(0, 2**40)),
)


@given(PLACES)
def test_a_cursor_comes_back_as_it_was_given(place: PageCursor) -> None:
    """In letters that need no escaping."""
    cursor = encode_page(place)

    match place:
        case StatesPlace():
            assert decode_page(StatesPlace, cursor) == place
        case DiffPlace():
            assert decode_page(DiffPlace, cursor) == place
        case HistoryPlace():
            assert decode_page(HistoryPlace, cursor) == place
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def made_of(*document: object) -> str:
    """A cursor put together by hand."""
    return base64.urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "é",
        "not base64!",
        made_of(1, "StatesPlace"),
        made_of(1, "StatesPlace", {}),
        made_of(1, "StatesPlace", {"as_of": True}),
        made_of(1, "StatesPlace", {"as_of": 1.0}),
        made_of(1, "StatesPlace", {"as_of": 2**63}),
        made_of(1, "StatesPlace", {"as_of": "1"}),
        made_of(1, "StatesPlace", {"as_of": None}),
        made_of(1, "StatesPlace", {"as_of": 1, "extra": 1}),
        made_of(1, "StatesPlace", {"as_of": 1, "after_ref": "00"}),
        made_of(1, "StatesPlace", {"as_of": 1, "category": "a\u0000"}),
        made_of(1, "StatesPlace", {"as_of": 1, "category": ["a"]}),
        made_of(2, "StatesPlace", {"as_of": 1}),
        made_of(1, "HistoryPlace", {"as_of": 1}),
        encode_page(DiffPlace(old=1, as_of=2)),
        encode_page(StatesPlace(as_of=1)) + "=",
        "[" * 20_000,
    ],
)
def test_what_was_put_together_by_hand_is_refused(cursor: str) -> None:
    """With a word on what to do, and not one of the cursor's own."""
    with pytest.raises(InvalidError) as refused:
        decode_page(StatesPlace, cursor)

    assert [fault.pointer for fault in refused.value.faults] == ["/cursor"]
