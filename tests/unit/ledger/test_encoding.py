"""Stored parts are read back exactly, or refused: no byte may be missing, surplus or unknown."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.encoding import (
    PADDING_BLOCK,
    decode_plaintext,
    encode_aad,
    encode_aads,
    encode_plaintext,
    pack_parts,
    unpack_parts,
)
from ledger.domain.events import Envelope, Role, SealedPart
from ledger.errors import UnknownFormatError

PARTS = st.lists(
    st.builds(SealedPart, st.sampled_from(Role), st.binary(min_size=32, max_size=32), st.binary(max_size=40)),
    max_size=64,
)
SOME_PARTS = st.lists(
    st.builds(SealedPart, st.sampled_from(Role), st.binary(min_size=32, max_size=32), st.binary(max_size=40)),
    max_size=3,
)


@given(PARTS)
def test_parts_are_read_back(parts: list[SealedPart]) -> None:
    """What is packed is unpacked the same, up to 64 parts."""
    assert unpack_parts(pack_parts(parts)) == tuple(parts)


@given(SOME_PARTS)
def test_every_truncation_is_refused(parts: list[SealedPart]) -> None:
    """Cut anywhere, the parts are not read at all."""
    stored = pack_parts(parts)
    for end in range(len(stored)):
        with pytest.raises(UnknownFormatError):
            unpack_parts(stored[:end])


@given(SOME_PARTS, st.binary(min_size=1, max_size=80))
def test_every_trailing_byte_is_refused(parts: list[SealedPart], tail: bytes) -> None:
    """Nothing can hide behind the parts."""
    with pytest.raises(UnknownFormatError):
        unpack_parts(pack_parts(parts) + tail)


@given(SOME_PARTS, st.integers(0, 255).filter(lambda byte: byte != 1))
def test_an_unknown_first_byte_is_an_error(parts: list[SealedPart], first: int) -> None:
    """The first byte fixes the layout; nothing is tried twice."""
    with pytest.raises(UnknownFormatError):
        unpack_parts(bytes((first,)) + pack_parts(parts)[1:])


@pytest.mark.parametrize("role", [0, 7, 255])
def test_an_unknown_role_is_an_error(role: int) -> None:
    """A role that this version does not know is not guessed at."""
    stored = bytearray(pack_parts([SealedPart(Role.SUBJECT, bytes(32), b"x")]))
    stored[2] = role
    with pytest.raises(UnknownFormatError):
        unpack_parts(bytes(stored))


@given(st.binary(max_size=200))
def test_unpacking_fails_in_one_way_only(stored: bytes) -> None:
    """Whatever stands in the column: parts that pack to the same bytes, or ``UnknownFormatError``."""
    try:
        parts = unpack_parts(stored)
    except UnknownFormatError:
        return
    assert pack_parts(parts) == stored


@given(st.lists(st.tuples(st.sampled_from(Role), st.binary(min_size=32, max_size=32)), max_size=64))
def test_the_aads_of_an_event_are_those_of_its_parts(parts: list[tuple[Role, bytes]]) -> None:
    """Made together or one by one, each with its own number."""
    envelope = Envelope(UUID(int=1), UUID(int=2), bytes(16), "ward", "Opened", 3, 4, None, UUID(int=5))
    aads = encode_aads(envelope, parts)
    assert aads == [encode_aad(envelope, parts, number) for number in range(len(parts))]
    assert len(set(aads)) == len(parts)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
DATA = st.dictionaries(TEXT, st.recursive(st.none() | st.booleans() | st.integers() | TEXT, st.lists, max_leaves=5))


@given(st.none() | TEXT, st.none() | TEXT, st.none() | DATA)
def test_plaintexts_are_read_back_and_hide_their_length(
    subject: str | None, stream: str | None, data: dict[str, Any] | None
) -> None:
    """A part's JSON comes back as it was, and its length tells no more than the number of 64-byte blocks."""
    plaintext = encode_plaintext(subject=subject, stream=stream, data=data)
    assert len(plaintext) % PADDING_BLOCK == 0
    assert len(plaintext) - len(plaintext.rstrip(b" ")) < PADDING_BLOCK
    members = {"subject": subject, "stream": stream, "data": data}
    assert decode_plaintext(plaintext) == {name: value for name, value in members.items() if value is not None}


@pytest.mark.parametrize("plaintext", [b"", b"  ", b"[]", b"1", b'"a"', b"null", b"{", b"{}x", b"\xff"])
def test_what_nobody_sealed_is_no_plaintext(plaintext: bytes) -> None:
    """Authentic or not, what is not a JSON object is not shown."""
    with pytest.raises(ValueError, match=r"not a JSON object|Expecting|Extra data|codec"):
        decode_plaintext(plaintext)
