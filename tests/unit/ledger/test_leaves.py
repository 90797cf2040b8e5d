"""Leaves are read back exactly, or refused: every byte means something, and only one thing."""

from __future__ import annotations

import json
import string
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.encoding import encode_aad, encode_leaf, leaf_and_shared_aad, leaf_of
from ledger.domain.events import Envelope, RecordedEvent, Role, SealedPart
from ledger.domain.leaves import Leaf, LeafPart, parse_leaf
from ledger.errors import UnknownFormatError

VECTORS = Path(__file__).parents[2] / "vectors" / "ledger" / "events.json"
WORDS = st.text(string.ascii_letters + string.digits + "_.", min_size=1, max_size=128)
IDS = st.uuids()
TIMES = st.integers(-(2**63), 2**63 - 1)
SEALED = st.builds(SealedPart, st.sampled_from(Role), st.binary(min_size=32, max_size=32), st.binary(max_size=40))
ENVELOPES = st.builds(
    Envelope,
    ledger_id=IDS,
    event_id=IDS,
    stream_ref=st.binary(min_size=16, max_size=16),
    category=WORDS,
    event_type=WORDS,
    schema_version=st.integers(0, 2**32 - 1),
    occurred_at=st.none() | TIMES,
    correlation_id=st.none() | IDS,
    causation_id=st.none() | IDS,
)
PLACES = st.fixed_dictionaries(
    {
        "position": st.integers(0, 2**64 - 1),
        "stream_version": st.integers(0, 2**64 - 1),
        "recorded_at": TIMES,
        "recorded_by": IDS,
    }
)


def read_of(envelope: Envelope, parts: list[SealedPart], place: dict[str, Any]) -> Leaf:
    """What the leaf of an event must be read as."""
    read = tuple(LeafPart(part.role, part.key_id, sha256(part.sealed).digest()) for part in parts)
    return Leaf(envelope, read, **place)


def encoded(leaf: Leaf) -> bytes:
    """The bytes of a leaf that was read, in which only hashes of the sealed parts are known."""
    unsealed = [SealedPart(part.role, part.key_id, b"") for part in leaf.parts]
    raw = bytearray(
        encode_leaf(
            leaf.envelope,
            unsealed,
            position=leaf.position,
            stream_version=leaf.stream_version,
            recorded_at=leaf.recorded_at,
            recorded_by=leaf.recorded_by,
        )
    )
    for number, part in enumerate(reversed(leaf.parts)):
        end = len(raw) - 65 * number
        raw[end - 32 : end] = part.sealed_hash
    return bytes(raw)


@given(ENVELOPES, st.lists(SEALED, max_size=64), PLACES)
def test_leaves_are_read_back(envelope: Envelope, parts: list[SealedPart], place: dict[str, Any]) -> None:
    """What is encoded is read the same, with the AAD of each part, and gives the same bytes again."""
    raw = encode_leaf(envelope, parts, **place)
    leaf = parse_leaf(raw)
    assert leaf == read_of(envelope, parts, place)
    assert encoded(leaf) == raw
    roles = [(part.role, part.key_id) for part in parts]
    for number in range(len(parts)):
        assert leaf.aad(number) == encode_aad(envelope, roles, number)


@pytest.mark.parametrize("vector", json.loads(VECTORS.read_text()), ids=lambda vector: str(vector["name"]))
def test_the_vectors_are_read(vector: dict[str, Any]) -> None:
    """Every published leaf is read, to the values that it was made of."""
    leaf = parse_leaf(bytes.fromhex(vector["leaf"]))
    assert leaf.envelope.event_id == UUID(hex=vector["event_id"])
    assert (leaf.position, leaf.stream_version, leaf.recorded_at) == (
        vector["position"],
        vector["stream_version"],
        vector["recorded_at"],
    )
    assert encoded(leaf).hex() == vector["leaf"]


@given(ENVELOPES, st.lists(SEALED, max_size=2), PLACES, st.integers(1, 255))
def test_every_altered_byte_is_refused_or_read_as_another_leaf(
    envelope: Envelope, parts: list[SealedPart], place: dict[str, Any], change: int
) -> None:
    """No two byte strings mean the same: whatever byte is altered, the leaf is refused or says something else."""
    raw = encode_leaf(envelope, parts, **place)
    leaf = parse_leaf(raw)
    for index in range(len(raw)):
        altered = raw[:index] + bytes((raw[index] ^ change,)) + raw[index + 1 :]
        try:
            other = parse_leaf(altered)
        except UnknownFormatError:
            continue
        assert other != leaf
        assert encoded(other) == altered


@given(ENVELOPES, st.lists(SEALED, max_size=2), PLACES, st.binary(min_size=1, max_size=70))
def test_nothing_may_be_missing_or_follow(
    envelope: Envelope, parts: list[SealedPart], place: dict[str, Any], tail: bytes
) -> None:
    """Cut anywhere, or with anything behind it, it is no leaf."""
    raw = encode_leaf(envelope, parts, **place)
    for end in range(len(raw)):
        with pytest.raises(UnknownFormatError):
            parse_leaf(raw[:end])
    with pytest.raises(UnknownFormatError):
        parse_leaf(raw + tail)


@given(st.binary(max_size=300))
def test_reading_fails_in_one_way_only(raw: bytes) -> None:
    """Whatever the bytes: a leaf that encodes to them, or ``UnknownFormatError``."""
    try:
        leaf = parse_leaf(raw)
    except UnknownFormatError:
        return
    assert encoded(leaf) == raw


SMALL = encode_leaf(
    Envelope(UUID(int=1), UUID(int=2), bytes(16), "patient", "CRP", 1, None, None, None),
    [SealedPart(Role.SUBJECT, bytes(32), b"x")],
    position=0,
    stream_version=1,
    recorded_at=5,
    recorded_by=UUID(int=3),
)
_CATEGORY, _FLAGS, _COUNT = 65, 91, -66
"""Where in it the category, the three flags of what may be absent, and the number of parts stand."""


@pytest.mark.parametrize(
    ("index", "byte"),
    [
        (0, 0),
        (0, 2),
        (_CATEGORY + 2, 0xE9),
        (_CATEGORY + 2, ord("-")),
        (_CATEGORY, 1),
        (_FLAGS, 2),
        (_FLAGS + 1, 0xFF),
        (_COUNT, 0),
        (_COUNT, 65),
        (_COUNT + 1, 0),
        (_COUNT + 1, 7),
    ],
)
def test_what_no_event_can_have_is_refused(index: int, byte: int) -> None:
    """Another layout, words outside of their alphabet or length, unclear presence, unknown roles, too many parts."""
    assert parse_leaf(SMALL).parts[0].role is Role.SUBJECT
    altered = bytearray(SMALL)
    altered[index] = byte
    with pytest.raises(UnknownFormatError):
        parse_leaf(bytes(altered))


@given(ENVELOPES, st.lists(SEALED, max_size=4), PLACES)
def test_leaf_and_aad_in_one_go_are_what_they_are_alone(
    envelope: Envelope, parts: list[SealedPart], place: dict[str, Any]
) -> None:
    """Byte for byte, for every part."""
    event = RecordedEvent(envelope, tuple(parts), leaf_hash=b"", **place)
    leaf, shared_aad = leaf_and_shared_aad(event)
    assert leaf == leaf_of(event) == encode_leaf(envelope, parts, **place)
    roles = [(part.role, part.key_id) for part in parts]
    for number in range(len(parts)):
        assert shared_aad + bytes((number,)) == encode_aad(envelope, roles, number)
