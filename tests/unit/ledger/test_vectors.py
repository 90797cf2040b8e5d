"""The ledger's byte formats never drift: first recomputed from the design with general tools only, then compared with
what the ledger's own code makes."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ledger.domain import encoding, merkle
from ledger.domain.events import Envelope, Role, SealedPart

FOLDER = Path(__file__).parents[2] / "vectors" / "ledger"


def vectors(name: str) -> list[dict[str, Any]]:
    """The vectors of one file."""
    found: list[dict[str, Any]] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert found
    return found


def by_name(vector: dict[str, Any]) -> str:
    """The test's id."""
    return str(vector.get("name", vector.get("size")))


def word(text: str) -> bytes:
    """Length u16 and ASCII."""
    return struct.pack(">H", len(text)) + text.encode("ascii")


def time_or_nothing(value: int | None) -> bytes:
    """0x00, or 0x01 and microseconds."""
    return b"\x00" if value is None else b"\x01" + struct.pack(">q", value)


def id_or_nothing(value: str | None) -> bytes:
    """0x00, or 0x01 and 16 bytes."""
    return b"\x00" if value is None else b"\x01" + bytes.fromhex(value)


def uuid_or_none(value: str | None) -> UUID | None:
    """The UUID of hex."""
    return None if value is None else UUID(hex=value)


def envelope_of(vector: dict[str, Any]) -> Envelope:
    """The ledger's own value of a vector's inputs."""
    return Envelope(
        ledger_id=UUID(hex=vector["ledger_id"]),
        event_id=UUID(hex=vector["event_id"]),
        stream_ref=bytes.fromhex(vector["stream_ref"]),
        category=vector["category"],
        event_type=vector["type"],
        schema_version=vector["schema_version"],
        occurred_at=vector["occurred_at"],
        correlation_id=uuid_or_none(vector["correlation_id"]),
        causation_id=uuid_or_none(vector["causation_id"]),
    )


def parts_of(vector: dict[str, Any]) -> list[SealedPart]:
    """The ledger's own values of a vector's parts."""
    return [
        SealedPart(Role(part["role"]), bytes.fromhex(part["key_id"]), bytes.fromhex(part["sealed"]))
        for part in vector["parts"]
    ]


@pytest.mark.parametrize("vector", vectors("events.json"), ids=by_name)
def test_leaf(vector: dict[str, Any]) -> None:
    """A leaf commits to every recorded field, in this order and these widths, and to ciphertext only."""
    expected = bytes.fromhex(vector["leaf"])
    assert expected == (
        b"\x01"
        + bytes.fromhex(vector["ledger_id"])
        + struct.pack(">Q", vector["position"])
        + bytes.fromhex(vector["event_id"])
        + bytes.fromhex(vector["stream_ref"])
        + struct.pack(">Q", vector["stream_version"])
        + word(vector["category"])
        + word(vector["type"])
        + struct.pack(">I", vector["schema_version"])
        + struct.pack(">q", vector["recorded_at"])
        + time_or_nothing(vector["occurred_at"])
        + id_or_nothing(vector["correlation_id"])
        + id_or_nothing(vector["causation_id"])
        + bytes.fromhex(vector["recorded_by"])
        + struct.pack(">B", len(vector["parts"]))
        + b"".join(
            struct.pack(">B", part["role"])
            + bytes.fromhex(part["key_id"])
            + hashlib.sha256(bytes.fromhex(part["sealed"])).digest()
            for part in vector["parts"]
        )
    )
    assert expected == encoding.encode_leaf(
        envelope_of(vector),
        parts_of(vector),
        position=vector["position"],
        stream_version=vector["stream_version"],
        recorded_at=vector["recorded_at"],
        recorded_by=UUID(hex=vector["recorded_by"]),
    )


@pytest.mark.parametrize("vector", vectors("events.json"), ids=by_name)
def test_leaf_hash(vector: dict[str, Any]) -> None:
    """A leaf hash is SHA-256(0x00 ‖ leaf), as in RFC 6962."""
    leaf = bytes.fromhex(vector["leaf"])
    assert hashlib.sha256(b"\x00" + leaf).hexdigest() == vector["leaf_hash"]
    assert merkle.hash_leaf(leaf).hex() == vector["leaf_hash"]


@pytest.mark.parametrize("vector", vectors("events.json"), ids=by_name)
def test_aad(vector: dict[str, Any]) -> None:
    """The AAD of each part binds all that is known before the head is locked, its neighbours and its number."""
    roles = [(part.role, part.key_id) for part in parts_of(vector)]
    assert len(vector["aad"]) == len(roles)
    for number, text in enumerate(vector["aad"]):
        expected = bytes.fromhex(text)
        assert expected == (
            b"\x01"
            + bytes.fromhex(vector["ledger_id"])
            + bytes.fromhex(vector["event_id"])
            + bytes.fromhex(vector["stream_ref"])
            + word(vector["category"])
            + word(vector["type"])
            + struct.pack(">I", vector["schema_version"])
            + time_or_nothing(vector["occurred_at"])
            + id_or_nothing(vector["correlation_id"])
            + id_or_nothing(vector["causation_id"])
            + struct.pack(">B", len(vector["parts"]))
            + b"".join(struct.pack(">B", part["role"]) + bytes.fromhex(part["key_id"]) for part in vector["parts"])
            + struct.pack(">B", number)
        )
        assert expected == encoding.encode_aad(envelope_of(vector), roles, number)


@pytest.mark.parametrize("vector", vectors("events.json"), ids=by_name)
def test_packed_parts(vector: dict[str, Any]) -> None:
    """The column ``events.sealed`` holds role, key id, length and ciphertext of each part, and is read back whole."""
    expected = bytes.fromhex(vector["packed"])
    assert expected == (
        b"\x01"
        + struct.pack(">B", len(vector["parts"]))
        + b"".join(
            struct.pack(">B", part["role"])
            + bytes.fromhex(part["key_id"])
            + struct.pack(">I", len(part["sealed"]) // 2)
            + bytes.fromhex(part["sealed"])
            for part in vector["parts"]
        )
    )
    parts = tuple(parts_of(vector))
    assert expected == encoding.pack_parts(parts)
    assert parts == encoding.unpack_parts(expected)


@pytest.mark.parametrize("vector", vectors("plaintexts.json"), ids=by_name)
def test_plaintext(vector: dict[str, Any]) -> None:
    """The plaintext of a part is compact JSON in UTF-8, with spaces up to a multiple of 64 bytes."""
    text = vector["text"].encode("utf-8")
    expected = bytes.fromhex(vector["plaintext"])
    assert expected == text.ljust((len(text) + 63) // 64 * 64, b" ")
    members = {name: vector[name] for name in ("subject", "stream", "data") if vector[name] is not None}
    assert members == json.loads(expected)
    assert list(members) == list(json.loads(expected))
    inputs = {name: vector[name] for name in ("subject", "stream", "data")}
    assert expected == encoding.encode_plaintext(**inputs)
    assert members == encoding.decode_plaintext(expected)


def merkle_tree_hash(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    left, right = merkle_tree_hash(leaves[:split]), merkle_tree_hash(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@pytest.mark.parametrize("vector", vectors("trees.json"), ids=by_name)
def test_tree(vector: dict[str, Any]) -> None:
    """The frontier is the roots of the perfect subtrees, largest first, and leads to the root of RFC 6962."""
    leaves = [struct.pack(">Q", number) for number in range(vector["size"])]
    assert merkle_tree_hash(leaves).hex() == vector["root"]
    first = 0
    subtrees = []
    for width in (1 << bit for bit in reversed(range(vector["size"].bit_length()))):
        if vector["size"] & width:
            subtrees.append(merkle_tree_hash(leaves[first : first + width]).hex())
            first += width
    assert subtrees == vector["frontier"]
    assert "".join(subtrees) == vector["stored"]

    size, frontier = merkle.extend_frontier(0, (), map(merkle.hash_leaf, leaves))
    assert (vector["size"], vector["frontier"]) == (size, [node.hex() for node in frontier])
    assert vector["root"] == merkle.root_of(frontier).hex()
    assert vector["stored"] == merkle.encode_frontier(frontier).hex()
    assert frontier == merkle.decode_frontier(bytes.fromhex(vector["stored"]))
