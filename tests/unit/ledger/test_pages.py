"""Cursors of time travel come back as they were given, and nothing else is taken for one."""

from __future__ import annotations

import base64
import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.pages import (
    DiffPlace,
    DocumentsPlace,
    HistoryPlace,
    PagePlace,
    ParkedPlace,
    StatesPlace,
    decode_page,
    encode_page,
)
from ledger.errors import InvalidError

LEDGER = UUID("0193a5e0-7c00-7000-8000-000000000001")
REF = b"r" * 16
REFS = st.binary(min_size=16, max_size=16)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
POSITIONS = st.integers(0, 2**63 - 1)
WORDS = st.text("ab_.", min_size=1, max_size=4)
IN_ORDER = st.tuples(NUMBERS, NUMBERS).map(sorted)


def a_difference(positions: list[int], occurred: list[int] | None, ref: bytes) -> DiffPlace:
    """A place between moments in order."""
    old, new = positions
    old_occurred, new_occurred = occurred or (None, None)
    return DiffPlace(
        category="ward", old=old, as_of=new, old_occurred=old_occurred, new_occurred=new_occurred, after_ref=ref
    )


PLACES = st.one_of(
    st.builds(StatesPlace, category=WORDS, as_of=POSITIONS, occurred=st.none() | NUMBERS, after_ref=REFS),
    st.builds(StatesPlace, subject_ref=REFS, as_of=POSITIONS, occurred=st.none() | NUMBERS, after_ref=REFS),
    st.builds(a_difference, st.tuples(POSITIONS, POSITIONS).map(sorted), st.none() | IN_ORDER, REFS),
    st.builds(HistoryPlace, stream_ref=REFS, as_of=POSITIONS, done=st.integers(0, 2**40)),
    st.builds(DocumentsPlace, read_model=WORDS, bucket=st.none() | WORDS, after_key=st.binary(max_size=40)),
    st.builds(ParkedPlace, subscription=WORDS, after=POSITIONS),
)


KINDS: tuple[type[PagePlace], ...] = (StatesPlace, DiffPlace, HistoryPlace, DocumentsPlace, ParkedPlace)


@given(PLACES)
def test_a_cursor_comes_back_as_it_was_given(place: PagePlace) -> None:
    """In letters that need no escaping; to its own ledger and its own kind of answer alone."""
    cursor = encode_page(LEDGER, place)

    assert decode_page(LEDGER, type(place), cursor) == place
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    with pytest.raises(InvalidError):
        decode_page(UUID(int=LEDGER.int ^ 1), type(place), cursor)
    for kind in KINDS:
        if not isinstance(place, kind):
            with pytest.raises(InvalidError):
                decode_page(LEDGER, kind, cursor)


def made_of(*document: object) -> str:
    """A cursor put together by hand."""
    return base64.urlsafe_b64encode(json.dumps(document, separators=(",", ":")).encode()).rstrip(b"=").decode()


MEMBERS = {"category": "ward", "as_of": 1, "after_ref": REF.hex()}


def states(**members: object) -> str:
    """The same of states, with some members changed."""
    return made_of(1, LEDGER.hex, "StatesPlace", {**MEMBERS, **members})


def test_the_forger_of_these_tests_can_forge() -> None:
    """With nothing wrong in it, a forged cursor is a cursor."""
    assert decode_page(LEDGER, StatesPlace, states()) == StatesPlace(category="ward", as_of=1, after_ref=REF)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "é",
        "not base64!",
        made_of(1, LEDGER.hex, "StatesPlace"),
        made_of(1, LEDGER.hex, "StatesPlace", {}),
        made_of(1, LEDGER.hex, "StatesPlace", MEMBERS, 1),
        made_of(1, "StatesPlace", MEMBERS),
        made_of(1, None, "StatesPlace", MEMBERS),
        made_of(2, LEDGER.hex, "StatesPlace", MEMBERS),
        made_of(1, LEDGER.hex, "HistoryPlace", MEMBERS),
        states(as_of=True),
        states(as_of=1.0),
        states(as_of=2**63),
        states(as_of="1"),
        states(as_of=None),
        states(as_of=-1),
        states(extra=1),
        states(after_ref="00"),
        states(after_ref=None),
        states(category="a\u0000"),
        states(category=["a"]),
        states(subject_ref=REF.hex()),
        states() + "=",
        "[" * 20_000,
    ],
)
def test_what_was_put_together_by_hand_is_refused(cursor: str) -> None:
    """With a word on what to do, and not one of the cursor's own."""
    with pytest.raises(InvalidError) as refused:
        decode_page(LEDGER, StatesPlace, cursor)

    assert [fault.pointer for fault in refused.value.faults] == ["/cursor"]


@pytest.mark.parametrize(
    "place",
    [
        StatesPlace(as_of=1, after_ref=REF),
        StatesPlace(category="ward", subject_ref=REF, as_of=1, after_ref=REF),
        StatesPlace(category="ward", as_of=1),
        StatesPlace(category="ward", as_of=-1, after_ref=REF),
        DiffPlace(category="ward", old=20, as_of=3, after_ref=REF),
        DiffPlace(category="ward", old=-2, as_of=3, after_ref=REF),
        DiffPlace(category="ward", old=1, as_of=3, old_occurred=1, after_ref=REF),
        DiffPlace(category="ward", old=1, as_of=3, new_occurred=1, after_ref=REF),
        DiffPlace(category="ward", old=1, as_of=3, old_occurred=2, new_occurred=1, after_ref=REF),
        DiffPlace(old=1, as_of=3, after_ref=REF),
        DiffPlace(category="ward", old=1, as_of=3),
        HistoryPlace(stream_ref=REF, as_of=-1),
        HistoryPlace(stream_ref=REF, as_of=1, done=-1),
        ParkedPlace(subscription="mailer", after=-1),
    ],
)
def test_a_place_where_no_page_ends_is_refused(place: PagePlace) -> None:
    """Such as one between moments that a question cannot have: its answer would be empty, or of another question."""
    with pytest.raises(InvalidError):
        decode_page(LEDGER, type(place), encode_page(LEDGER, place))
