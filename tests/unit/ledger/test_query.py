"""A cursor gives back exactly the query and place that it was made of; anything else is refused."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.events import Role
from ledger.domain.query import (
    KeyCondition,
    PinnedQuery,
    Place,
    decode_cursor,
    encode_cursor,
    narrow,
    same_question,
)
from ledger.errors import InvalidError

LEDGER = UUID("0193a5e0-7c00-7000-8000-000000000001")
NUMBERS = st.integers(-(2**63), 2**63 - 1)
REFS = st.none() | st.binary(min_size=16, max_size=16)
WORDS = st.text("abcXYZ019_.", min_size=1, max_size=128)
QUERIES = st.builds(
    PinnedQuery,
    as_of=st.integers(0, 2**63 - 1),
    order_by=st.sampled_from(["recorded", "occurred"]),
    order=st.sampled_from(["asc", "desc"]),
    nothing=st.booleans(),
    stream_ref=REFS,
    after_version=NUMBERS,
    category=st.none() | WORDS,
    types=st.lists(WORDS, max_size=3).map(tuple),
    subject_ref=REFS,
    actor_ref=REFS,
    involving_ref=REFS,
    correlation_id=st.none() | st.uuids(),
    recorded_by=st.none() | st.uuids(),
    recorded_from=st.none() | NUMBERS,
    recorded_to=st.none() | NUMBERS,
    occurred_from=st.none() | NUMBERS,
    occurred_to=st.none() | NUMBERS,
    after_position=NUMBERS,
)


@given(QUERIES, st.data(), NUMBERS)
def test_cursors_round_trip(query: PinnedQuery, data: st.DataObject, occurred_at: int) -> None:
    """Every query and place comes back as it was, from text that is safe in a URL."""
    position = data.draw(st.integers(0, query.as_of))
    place = Place(position, occurred_at if query.order_by == "occurred" else None)
    cursor = encode_cursor(LEDGER, query, place)
    assert decode_cursor(LEDGER, cursor) == (query, place)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def forged(
    members: dict[str, Any] | None = None, *, version: Any = 1, position: Any = 3, occurred_at: Any = None
) -> str:
    """What a client could put together that knows how cursors are made."""
    # In the order in which the fields are declared, as cursors have them.
    fields = {"order_by": "recorded", "order": "asc", "as_of": 9, **(members or {})}
    document = [version, LEDGER.hex, "events", fields, position, occurred_at]
    return text_cursor(json.dumps(document, separators=(",", ":")))


TEXT = f'[1,"{LEDGER.hex}","events",{{"order_by":"recorded","order":"asc","as_of":9}},3,null]'
"""A cursor's text."""


def text_cursor(text: str) -> str:
    """Any text in the outer form of a cursor."""
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def test_the_forger_of_these_tests_can_forge() -> None:
    """With nothing wrong in it, a forged cursor is a cursor."""
    assert decode_cursor(LEDGER, forged()) == (PinnedQuery(as_of=9), Place(3))
    assert text_cursor(TEXT) == forged()


def test_a_cursor_is_of_one_ledger() -> None:
    """Anywhere else its positions are those of other events, and what lies before them would be left out unseen."""
    with pytest.raises(InvalidError) as caught:
        decode_cursor(UUID(int=LEDGER.int ^ 1), forged())
    assert [fault.pointer for fault in caught.value.faults] == ["/cursor"]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "=",
        "é",
        "W10",
        "next page please",
        forged() + "=",
        forged() + "\n",
        forged()[:-1],
        forged()[1:],
        forged(version=2),
        forged(version=True),
        forged(version=1.0),
        forged(position="3"),
        forged(position=True),
        forged(position=3.0),
        forged(position=None),
        forged(position=2**63),
        forged(position=-(2**63) - 1),
        forged(occurred_at=5),
        forged({"order_by": "occurred"}),
        forged({"order_by": "occurred"}, occurred_at=True),
        forged({"order_by": "occurred"}, occurred_at=2**63),
        forged({"order_by": "occurred"}, occurred_at="5"),
        forged({"order_by": "position"}),
        forged({"order": "random"}),
        forged({"order": None}),
        forged({"order": ["asc"]}),
        forged({"as_of": None}),
        forged({"as_of": True}),
        forged({"as_of": 2**63}),
        forged({"as_of": "9"}),
        forged({"after_version": 2**64}),
        forged({"after_position": 1e3}),
        forged({"occurred_from": -(2**70)}),
        forged({"recorded_to": 10**400}),
        forged({"category": 5}),
        forged({"category": "a\x00b"}),
        forged({"category": "\ud800"}),
        forged({"types": "CRP"}),
        forged({"types": [1]}),
        forged({"types": ["a\x00"]}),
        forged({"types": ["\ud800"]}),
        forged({"types": [["CRP"]]}),
        forged({"types": {"CRP": 1}}),
        forged({"nothing": 1}),
        forged({"nothing": "yes"}),
        forged({"stream_ref": "00"}),
        forged({"stream_ref": "zz" * 16}),
        forged({"stream_ref": " ".join(["00"] * 16)}),
        forged({"stream_ref": 16}),
        forged({"subject_ref": "AA" * 16}),
        forged({"correlation_id": "5"}),
        forged({"correlation_id": 5}),
        forged({"recorded_by": "{" + "0" * 32 + "}"}),
        forged({"limit": 5}),
        forged({"__class__": "x"}),
        forged(position=10),
        forged(position=-1),
        forged({"as_of": -1}, position=-1),
        text_cursor(TEXT.replace("events", "StatesPlace")),
        text_cursor(TEXT.replace(LEDGER.hex, LEDGER.hex.upper())),
        text_cursor(TEXT.replace(f'"{LEDGER.hex}"', "null")),
        text_cursor(TEXT.replace(f'"{LEDGER.hex}",', "")),
        text_cursor(TEXT.replace(",null]", "]")),
        text_cursor(TEXT.replace(",null]", ",null,null]")),
        text_cursor(TEXT.replace('{"order_by":"recorded","order":"asc","as_of":9}', "{}")),
        text_cursor(TEXT.replace('{"order_by":"recorded","order":"asc","as_of":9}', "[]")),
        text_cursor(TEXT.replace('{"order_by":"recorded","order":"asc","as_of":9}', "null")),
        text_cursor(TEXT.replace('"as_of":9', '"as_of":9,"as_of":9')),
        text_cursor(TEXT.replace(",3,", ",NaN,")),
        text_cursor(TEXT.replace("[1,", "[1, ")),
        text_cursor(TEXT.replace('"order_by":"recorded","order":"asc"', '"order":"asc","order_by":"recorded"')),
        text_cursor("{}"),
        text_cursor("1"),
        text_cursor("null"),
        text_cursor("[" * 100_000),
    ],
)
def test_what_no_answer_gave_is_no_cursor(cursor: str) -> None:
    """A cursor that was cut, altered or put together by hand is a 422 of the caller, wherever it is wrong."""
    with pytest.raises(InvalidError) as caught:
        decode_cursor(LEDGER, cursor)
    assert [fault.pointer for fault in caught.value.faults] == ["/cursor"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=10,
)
MEMBERS = st.dictionaries(st.sampled_from([*PinnedQuery.__dataclass_fields__, "other"]), JSON, max_size=4)


@given(MEMBERS, JSON, JSON)
def test_any_forgery_is_refused_or_is_what_would_have_been_given(members: Any, position: Any, occurred_at: Any) -> None:
    """No forged cursor ends in anything but a refusal, or a query that gives the same cursor again."""
    cursor = forged(members, position=position, occurred_at=occurred_at)
    try:
        query, place = decode_cursor(LEDGER, cursor)
    except InvalidError:
        return
    assert encode_cursor(LEDGER, query, place) == cursor


@given(st.text(max_size=60))
def test_any_text_is_refused(text: str) -> None:
    """Text that nobody made into a cursor is refused, never a crash."""
    with pytest.raises(InvalidError):
        decode_cursor(LEDGER, text)


def test_a_filter_is_as_narrow_as_the_query_and_its_moment() -> None:
    """The recorded range, the place in the feed and as-of each bound the positions."""
    query = PinnedQuery(as_of=8, order_by="recorded", order="desc", after_position=2, category="c", types=("T",))
    keys = (KeyCondition((Role.SUBJECT,), (b"k" * 32,)),)
    which = narrow(query, 1, 20, keys)
    assert (which.first_position, which.last_position) == (3, 8)
    assert (which.category, which.types, which.keys, which.order) == ("c", ("T",), keys, "desc")
    narrower = narrow(query, 4, 6, ())
    assert (narrower.first_position, narrower.last_position) == (4, 6)


def test_a_question_is_the_same_whatever_moment_it_is_asked_of() -> None:
    """A query that is sent again beside its cursor is compared in everything but the pinned position."""
    pinned = PinnedQuery(as_of=8, order_by="recorded", order="asc", correlation_id=UUID(int=1))
    assert same_question(PinnedQuery(as_of=-1, correlation_id=UUID(int=1)), pinned)
    assert not same_question(PinnedQuery(as_of=-1, order="desc", correlation_id=UUID(int=1)), pinned)
    assert not same_question(PinnedQuery(as_of=-1), pinned)
