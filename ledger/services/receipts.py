"""Receipts: the signed evidence of erasures, linked to a checkpoint.

1. The payload: everything in it is fixed once the erasure is recorded. It is signed with the ledger's key.
2. A checkpoint that has the event is published, and what links the signed roots to it is computed and checked.
3. What came of it is stored. The first one stays, whoever else made one at the same time: from here on the receipt is
   the same bytes, each time.

While there is no checkpoint (the ledger may not be published, say), a receipt says so with nulls: its payload and
signature are what they will be. The next one who asks tries again. A crash between any two steps costs nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.checkpoints import Checkpoint
from ledger.domain.encoding import leaf_of
from ledger.domain.events import JsonObject, RecordedEvent
from ledger.domain.ids import format_ref
from ledger.domain.leaves import parse_leaf
from ledger.domain.merkle import hash_leaf
from ledger.domain.receipts import RECEIPT_DOMAIN, RootProof, canonical_json, verify_roots
from ledger.domain.times import format_time
from ledger.errors import IntegrityError, NotFoundError
from ledger.ports import ErasureEntry, PublishedCheckpoint, Statement, StoredReceipt
from ledger.services.counting.count import count_events
from ledger.services.dependencies import Dependencies
from ledger.services.evidence import entry_of, event_of, evidence_of
from ledger.services.proving.proofs import prove_consistency, prove_inclusion
from ledger.services.proving.publishing import note_of, publish

_COMMITMENT: Final = "name_commitment"
_ORDER: Final = (
    *("id", "ledger_id", "subject_ref", _COMMITMENT, "key_ids", "events", "requested_at", "erased_at"),
    *("position", "leaf", "root", "root_before"),
)
"""In which the members of a payload are shown. What is signed has an order of its own."""


@dataclass(frozen=True, slots=True)
class SignedPayload:
    """Something signed, as the API shows it. ``signature`` (64 bytes, Ed25519) is over the domain of its kind and the
    payload as canonical JSON (RFC 8785). ``proof``, ``checkpoint``: None while there is no checkpoint, and for what was
    stated before the ledger recorded such things."""

    payload: JsonObject
    signature: bytes
    proof: JsonObject | None
    checkpoint: str | None


@dataclass(frozen=True, slots=True)
class Receipt(SignedPayload):
    """The signed evidence of one erasure. ``statements``: what was signed about the erasure later."""

    statements: Sequence[SignedPayload] = ()


def get_receipt(deps: Dependencies, ledger_id: UUID, erasure_id: UUID) -> Receipt:
    """The receipt of an erasure that is done. Raises ``NotFoundError``."""
    entry = entry_of(deps, ledger_id, erasure_id)
    if not entry.done:
        raise NotFoundError("the erasure is not done yet, so it has no receipt")
    return receipt_of(deps, entry)


def receipt_of(deps: Dependencies, entry: ErasureEntry) -> Receipt:
    """The receipt of a done erasure, made, signed and stored unless it is stored already."""
    ledger_id, erasure_id = entry.ledger_id, entry.erasure_id
    stored = deps.transparency.receipt(ledger_id, erasure_id)
    if stored is not None:
        signed = _from_stored(deps, entry, stored)
    else:
        payload = _payload(deps, entry)
        signature = _sign(deps, ledger_id, payload)
        signed = _completed(deps, ledger_id, erasure_id, payload, signature)
    statements = signed_statements(deps, ledger_id, erasure_id)
    return Receipt(signed.payload, signed.signature, signed.proof, signed.checkpoint, statements)


def signed_statements(deps: Dependencies, ledger_id: UUID, erasure_id: UUID) -> Sequence[SignedPayload]:
    """What was signed about an erasure later, with proofs of the events that say the same."""
    found = deps.vault.statements(ledger_id, [erasure_id]).get(erasure_id, ())
    return [_proven_statement(deps, ledger_id, statement) for statement in found]


def _proven_statement(deps: Dependencies, ledger_id: UUID, statement: Statement) -> SignedPayload:
    payload: JsonObject = json.loads(statement.payload)
    if "leaf" not in payload:
        # Signed before the ledger recorded statements: valid as it is.
        return SignedPayload(payload, statement.signature, None, None)
    event_id = parse_leaf(base64.b64decode(payload["leaf"])).envelope.event_id
    stored = deps.transparency.receipt(ledger_id, event_id)
    if stored is not None and (stored.payload, stored.signature) == (statement.payload, statement.signature):
        return _with_stored_proof(payload, statement.signature, stored)
    return _completed(deps, ledger_id, event_id, payload, statement.signature)


def _payload(deps: Dependencies, entry: ErasureEntry) -> JsonObject:
    """Step 1."""
    event = event_of(evidence_of(deps, entry))
    leaf = leaf_of(event)
    if hash_leaf(leaf) != event.leaf_hash:
        raise IntegrityError("the event of an erasure is not what its leaf says; run `audit-ledger verify`")
    roots = deps.store.roots_of_erasure(entry.ledger_id, entry.erasure_id)
    payload: JsonObject = {
        "id": str(entry.erasure_id),
        "ledger_id": str(entry.ledger_id),
        "subject_ref": format_ref("sub", entry.subject_ref),
        _COMMITMENT: _commitment(entry),
        "key_ids": [key_id.hex() for key_id, _ in entry.key_ids],
        "events": count_events(deps, entry.ledger_id, [key_id for key_id, _ in entry.key_ids]),
        "requested_at": format_time(entry.requested_at),
        "erased_at": format_time(event.recorded_at),
        "position": event.position,
        "leaf": _base64(leaf),
        "root": _base64(roots.root),
    }
    if roots.before is not None:
        # Of an erasure that an older version recorded nobody noted it, and its receipt stays the bytes that it was.
        payload["root_before"] = _base64(roots.before)
    return payload


def _completed(
    deps: Dependencies, ledger_id: UUID, about: UUID, payload: JsonObject, signature: bytes
) -> SignedPayload:
    """Steps 2 and 3, as far as they can be done now. ``about``: the event whose leaf is in the payload."""
    try:
        event = deps.store.find_events(ledger_id, [about])[about]
        published = publish(deps, ledger_id, at_least=event.position + 1)
        proof = _link(deps, event, payload, published)
        with_it = canonical_json({"proof": proof, "checkpoint": note_of(deps, published)}).decode()
        # I5: not even a salted hash of a name stands outside of the vault.
        without_name = {name: value for name, value in payload.items() if name != _COMMITMENT}
        made = StoredReceipt(canonical_json(without_name).decode(), signature, with_it)
        return _with_stored_proof(payload, signature, deps.transparency.add_receipt(ledger_id, about, made))
    except Exception:  # noqa: BLE001 - see the top: what is signed, and the salt that goes out with it, must not be lost
        return SignedPayload(payload, signature, None, None)


def _link(deps: Dependencies, event: RecordedEvent, payload: JsonObject, published: PublishedCheckpoint) -> JsonObject:
    """What leads from a leaf, and from the roots before and after it, to the checkpoint. It is kept for good, so it is
    checked here. Raises ``IntegrityError``, after an alarm."""
    ledger_id, index, size = event.envelope.ledger_id, event.position, event.position + 1
    hashes = prove_inclusion(deps, ledger_id, [index], published.size)[index]
    # The siblings of the last leaf are the frontier of the tree before it, from the smallest subtree up.
    frontier = prove_inclusion(deps, ledger_id, [index], size)[index][::-1]
    proof = RootProof(index, hashes, frontier, prove_consistency(deps, ledger_id, size, published.size))
    leaf = base64.b64decode(payload["leaf"])
    try:
        before, after = verify_roots(proof, leaf, Checkpoint(published.origin, published.size, published.root))
        if payload.get("root", _base64(after)) != _base64(after):
            raise IntegrityError("the root that was kept at an erasure is not the one of the tree")
        if payload.get("root_before", _base64(before)) != _base64(before):
            raise IntegrityError("the root that was kept from before an erasure is not the one of the tree")
    except IntegrityError as error:
        deps.alarm(ledger_id, index, None, f"a receipt cannot be proven: {error.detail}")
        raise
    return {
        "index": index,
        "hashes": [_base64(node) for node in proof.hashes],
        "frontier": [_base64(node) for node in proof.frontier],
        "consistency": [_base64(node) for node in proof.consistency],
    }


def _from_stored(deps: Dependencies, entry: ErasureEntry, stored: StoredReceipt) -> SignedPayload:
    """A receipt as it was first handed out. Raises ``IntegrityError`` for one that the ledger has not signed."""
    members: JsonObject = {**json.loads(stored.payload), _COMMITMENT: _commitment(entry)}
    payload = {name: members[name] for name in sorted(members, key=_place)}
    signature = _sign(deps, entry.ledger_id, payload)
    # Ed25519 signs the same bytes the same way each time. Only the commitment can differ: an erasure that was done
    # again in an older copy of the vault has none any more, and its receipt is signed without.
    if signature != stored.signature and payload != _payload(deps, entry):
        raise IntegrityError("a stored receipt is not what was signed; run `audit-ledger verify`")
    return _with_stored_proof(payload, signature, stored)


def _place(member: str) -> int:
    return _ORDER.index(member) if member in _ORDER else len(_ORDER)


def _with_stored_proof(payload: JsonObject, signature: bytes, stored: StoredReceipt) -> SignedPayload:
    came_with = json.loads(stored.proof)
    return SignedPayload(payload, signature, came_with["proof"], came_with["checkpoint"])


def _sign(deps: Dependencies, ledger_id: UUID, payload: JsonObject) -> bytes:
    return deps.vault.sign(ledger_id, RECEIPT_DOMAIN + canonical_json(payload))


def _commitment(entry: ErasureEntry) -> str | None:
    return _base64(entry.name_commitment) if entry.name_commitment is not None else None


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
