"""Opened answers made by hand: sealed, recorded, proven and signed here, and shown as the contract says, without the
code that makes the real ones."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from keyvault.envelope import DataKey
from keyvault.signatures import SigningKey
from ledger.domain.checkpoints import Checkpoint
from ledger.domain.encoding import encode_aad, encode_leaf
from ledger.domain.events import Envelope, Role, SealedPart
from ledger.domain.merkle import extend_frontier, hash_leaf, hash_node, root_of
from ledger.domain.notes import ED25519, VerifierKey, signed_note

LEDGER = UUID("0193a5e0-7c00-7000-8000-00000000000a")
STREAM_REF = bytes(range(16, 32))
WRITER = UUID("0193a5e0-7c00-7000-8000-0000000000aa")
LOG = SigningKey(bytes(range(32)))
KEY = VerifierKey("ledger.example/hospital", ED25519, LOG.public_key)
PATIENT, NURSE, FRIEND, OWN = (DataKey.of(bytes((number,)) * 32) for number in range(1, 5))

Part = tuple[Role, DataKey | None, dict[str, Any] | None]
"""Role, key, and what it says; without a key: a part of role 6."""


def b64(value: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(value).decode()


def padded(content: dict[str, Any] | str) -> bytes:
    """A plaintext as it is sealed; a string is taken as it is."""
    text = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    return text + b" " * (-len(text) % 64)


@dataclass(frozen=True)
class Event:
    """An event as it was recorded. ``keys``: the single-use key of each part."""

    leaf: bytes
    sealed: Sequence[bytes]
    keys: Sequence[bytes | None]


def record(position: int, parts: Sequence[tuple[Role, DataKey | None, Any]], **fields: Any) -> Event:
    """Seal the parts of an event and make its leaf."""
    envelope = Envelope(
        ledger_id=fields.get("ledger_id", LEDGER),
        event_id=UUID(int=0x0193A5E07C0070008000000000000E00 + position),
        stream_ref=STREAM_REF,
        category="patient",
        event_type=fields.get("event_type", "ERRegistration"),
        schema_version=1,
        occurred_at=fields.get("occurred_at"),
        correlation_id=None,
        causation_id=fields.get("causation_id"),
    )
    roles = [(role, bytes(32) if key is None else key.key_id) for role, key, _ in parts]
    sealed: list[bytes] = []
    keys: list[bytes | None] = []
    for number, (_, key, content) in enumerate(parts):
        aad = encode_aad(envelope, roles, number)
        sealed.append(b"" if key is None else key.seal(padded(content), aad))
        keys.append(None if key is None else key.disclose(sealed[-1], aad)[1])
    leaf = encode_leaf(
        envelope,
        [SealedPart(role, key_id, body) for (role, key_id), body in zip(roles, sealed, strict=True)],
        position=position,
        stream_version=position + 1,
        recorded_at=1_700_000_000_000_000 + position,
        recorded_by=WRITER,
    )
    return Event(leaf, sealed, keys)


def path_to(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """The inclusion proof, by the definition of RFC 6962 §2.1.1."""
    if len(leaves) == 1:
        return []
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < split:
        return [*path_to(index, leaves[:split]), tree_hash(leaves[split:])]
    return [*path_to(index - split, leaves[split:]), tree_hash(leaves[:split])]


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """The root of some leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hash_node(tree_hash(leaves[:split]), tree_hash(leaves[split:]))


def note_of(hashes: Sequence[bytes], *, by: SigningKey = LOG, name: str = KEY.name) -> str:
    """The signed checkpoint of the tree of these leaf hashes."""
    root = root_of(extend_frontier(0, (), hashes)[1])
    text = Checkpoint(name, len(hashes), root).text
    return str(signed_note(text, VerifierKey(name, ED25519, by.public_key), by.sign(text.encode())))


def proof_of(event: Event, index: int, hashes: Sequence[bytes], opened: Sequence[int]) -> dict[str, Any]:
    """The member ``proof``, with these parts opened."""
    keys = {number: event.keys[number] for number in opened}
    return {
        "index": index,
        "hashes": [b64(node) for node in path_to(index, hashes)],
        "leaf": b64(event.leaf),
        "parts": [
            {"part": number, "sealed": b64(event.sealed[number]), "key": b64(key)}
            for number, key in keys.items()
            if key is not None
        ],
    }


def envelope_shown(position: int, **changed: Any) -> dict[str, Any]:
    """An event as the contract shows it, before what its parts say."""
    return {
        "position": position,
        "id": f"0193a5e0-7c00-7000-8000-000000000e0{position}",
        "type": "ERRegistration",
        "schema_version": 1,
        "stream": None,
        "stream_ref": "str_101112131415161718191a1b1c1d1e1f",
        "stream_version": position + 1,
        "category": "patient",
        "recorded_at": f"2023-11-14T22:13:20.00000{position}Z",
        "occurred_at": None,
        "recorded_by": str(WRITER),
        "correlation_id": None,
        "causation_id": None,
        "subject": None,
        "subject_ref": None,
        "purpose": None,
        "data": None,
        "actor": None,
        "parts": [],
        "nonpersonal": None,
        "redactions": [],
        "shown_version": 1,
        "schema_status": "unregistered",
        **changed,
    }


REF = "sub_" + "0f" * 16
ERASED = {
    "pointer": "/data",
    "subject_ref": REF,
    "purpose": "",
    "reason": "erased",
    "at": "2024-01-01T00:00:00.000000Z",
    "erasure_id": "0193a5e0-7c00-7000-8000-0000000000e9",
}

_SAID = {"subject": "patient:A", "stream": "patient-A", "data": {"age": 85, "weight": 71.5, "note": "für „A“"}}
_PARTS: Sequence[Part] = (
    (Role.SUBJECT, PATIENT, _SAID),
    (Role.ACTOR, NURSE, {"subject": "nurse:N"}),
    (Role.FURTHER, FRIEND, {"subject": "friend:F", "data": {"phone": "1"}}),
    (Role.NONPERSONAL, OWN, {"data": {"ward": "ER"}}),
)
EVENTS = (
    record(0, _PARTS, occurred_at=1_413_976_541_000_000, causation_id=UUID(int=7)),
    record(1, [(Role.SUBJECT, PATIENT, {"subject": "patient:A", "stream": "patient-A", "data": {}}), _PARTS[3]]),
    record(2, [(Role.NONPERSONAL, OWN, {"stream": "patient-A", "data": {}}), (Role.SHREDDED, None, None)]),
)
HASHES = [hash_leaf(event.leaf) for event in EVENTS]
SHOWN = (
    envelope_shown(
        0,
        occurred_at="2014-10-22T11:15:41.000000Z",
        causation_id="00000000-0000-0000-0000-000000000007",
        stream="patient-A",
        subject="patient:A",
        subject_ref=REF,
        purpose="",
        data=_SAID["data"],
        actor={"subject": "nurse:N", "subject_ref": REF, "data": {}},
        parts=[{"subject": "friend:F", "subject_ref": REF, "purpose": "", "data": {"phone": "1"}}],
        nonpersonal={"ward": "ER"},
        proof=proof_of(EVENTS[0], 0, HASHES, [0, 1, 2, 3]),
    ),
    # Erased since: the envelope is proven, and what concerns nobody.
    envelope_shown(
        1,
        subject_ref=REF,
        purpose="",
        nonpersonal={"ward": "ER"},
        redactions=[ERASED],
        proof=proof_of(EVENTS[1], 1, HASHES, [1]),
    ),
    envelope_shown(2, stream="patient-A", nonpersonal={}, proof=proof_of(EVENTS[2], 2, HASHES, [0])),
)


def page() -> dict[str, Any]:
    """A page of all events, to be altered at will."""
    as_of = {"position": 2, "recorded_at": "2023-11-14T22:13:20.000002Z"}
    events = copy.deepcopy(list(SHOWN))
    return {"as_of": as_of, "next": None, "checkpoint": note_of(HASHES), "events": events}


def single(number: int = 0) -> dict[str, Any]:
    """One event, to be altered at will."""
    return {**copy.deepcopy(SHOWN[number]), "checkpoint": note_of(HASHES)}


def stream() -> list[dict[str, Any]]:
    """The lines of a stream, to be altered at will."""
    return [{"checkpoint": note_of(HASHES)}, *copy.deepcopy(SHOWN), {"end": True, "count": len(SHOWN)}]


def as_bytes(answer: Any) -> bytes:
    """An answer as it is sent."""
    lines = answer if isinstance(answer, list) else [answer]
    texts = [json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in lines]
    return "".join(f"{text}\n" for text in texts).encode() if isinstance(answer, list) else texts[0].encode()
