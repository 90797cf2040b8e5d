"""Receipts of erasures: read and checked offline, with nothing but the ledger's public key.

1. The payload is signed by the ledger.
2. The leaf in it is that of this erasure's ``SubjectErased``, and its parts of role 6 name the dead keys.
3. The leaf, and the roots before it and with it, are linked to a checkpoint that the ledger has signed.
4. What was stated later is signed, is about this erasure, and stands in the log too.
5. With the name and the salt: it is this person's.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from api.opened_files import OpenCheckpoint
from ledger.domain.checkpoints import Checkpoint
from ledger.domain.events import JsonObject, Role
from ledger.domain.ids import format_ref, parse_ref
from ledger.domain.leaves import Leaf, parse_leaf
from ledger.domain.merkle import HASH_BYTES
from ledger.domain.names import LEDGER_CATEGORY, SUBJECT_ERASED
from ledger.domain.notes import NoteError, from_base64, to_base64
from ledger.domain.opened import OpenedError, hashes_of, members, text_of
from ledger.domain.receipts import (
    RECEIPT_DOMAIN,
    SALT_BYTES,
    STATEMENT_DOMAIN,
    STATEMENT_TYPES,
    RootProof,
    canonical_json,
    verify_roots,
)
from ledger.domain.strict_json import parse_json
from ledger.domain.times import format_time, parse_time
from ledger.errors import LedgerError, MalformedError

LARGEST_FILE: Final = 4 * 2**20
"""Bytes of a receipt, at most."""

VerifySignature = Callable[[bytes, bytes], None]
"""Called with (signature, message); raises ``ValueError`` unless it is the ledger's."""

_RECEIPT: Final = frozenset({"payload", "proof", "checkpoint", "signature", "statements"})
_SIGNED: Final = _RECEIPT - {"statements"}
_OLD_STATEMENT: Final = frozenset({"payload", "signature"})
_PROOF: Final = frozenset({"index", "hashes", "frontier", "consistency"})
_OLD_PAYLOAD: Final = frozenset(
    {
        *("id", "ledger_id", "subject_ref", "name_commitment", "key_ids", "events", "requested_at", "erased_at"),
        *("position", "leaf", "root"),
    }
)
_ABOUT: Final = frozenset({"kind", "erasure_id", "ledger_id", "subject_ref"})
_SAID: Final[Mapping[str, frozenset[str]]] = {"final": frozenset({"epochs"}), "unlinked": frozenset()}
_PLACED: Final = frozenset({"position", "leaf"})


class UnprovenReceiptError(OpenedError):
    """A receipt does not prove what it says."""


@dataclass(frozen=True, slots=True)
class CheckedStatement:
    """Something that was signed about the erasure later. ``checkpoint``: what it is proven under; None: nothing."""

    kind: str
    at: str
    position: int | None
    checkpoint: Checkpoint | None


@dataclass(frozen=True, slots=True)
class CheckedReceipt:
    """A receipt of which everything was checked. ``checkpoint``: what it is proven under; None: it is signed, and not
    linked to one yet. ``name_salt``: what came with the answer to the erasure."""

    payload: JsonObject
    checkpoint: Checkpoint | None
    statements: tuple[CheckedStatement, ...]
    name_salt: str | None

    def require_name(self, name: str, salt: str) -> None:
        """Raise ``UnprovenReceiptError`` unless it is the receipt of whoever has this name. ``salt``: in base64."""
        commitment = self.payload["name_commitment"]
        if commitment is None:
            raise UnprovenReceiptError("this receipt commits to no name: nobody can show whose it is")
        try:
            opening = from_base64(salt)
        except NoteError:
            raise UnprovenReceiptError("the salt is not base64") from None
        if len(opening) != SALT_BYTES:
            raise UnprovenReceiptError(f"a salt has {SALT_BYTES} bytes: this is none")
        expected = sha256(opening + name.encode()).digest()
        if not hmac.compare_digest(expected, from_base64(commitment)):
            raise UnprovenReceiptError("this is not the receipt of that name, or the salt is another one's")


def check_receipt(text: bytes, verify: VerifySignature, open_checkpoint: OpenCheckpoint) -> CheckedReceipt:
    """Check a receipt, or the whole answer to an erasure. Raises ``UnprovenReceiptError``."""
    try:
        return _check(text, verify, open_checkpoint)
    except UnprovenReceiptError:
        raise
    except LedgerError as error:
        raise UnprovenReceiptError(error.detail) from None
    except (ValueError, RecursionError):
        raise UnprovenReceiptError("it holds something that no receipt holds") from None


def _check(text: bytes, verify: VerifySignature, open_checkpoint: OpenCheckpoint) -> CheckedReceipt:
    receipt, name_salt = _read(text)
    payload = receipt["payload"]
    if not isinstance(payload, dict) or payload.keys() - {"root_before"} != _OLD_PAYLOAD:
        raise UnprovenReceiptError("the payload has other members than a receipt's")
    _require_signed(receipt, RECEIPT_DOMAIN, verify, "the receipt")
    leaf = parse_leaf(from_base64(text_of(payload["leaf"], "its leaf")))
    _require_erasure(payload, leaf)
    checkpoint = _linked(receipt, open_checkpoint)
    if not isinstance(receipt["statements"], list):
        raise UnprovenReceiptError("its statements are not a list")
    statements = tuple(_statement(one, payload, verify, open_checkpoint) for one in receipt["statements"])
    kinds = [statement.kind for statement in statements]
    if len(set(kinds)) != len(kinds):
        raise UnprovenReceiptError("it has two statements of one kind")
    return CheckedReceipt(payload, checkpoint, statements, name_salt)


def _read(text: bytes) -> tuple[JsonObject, str | None]:
    if len(text) > LARGEST_FILE:
        raise UnprovenReceiptError("the file is larger than any receipt")
    try:
        found = parse_json(text)
    except MalformedError as error:
        raise UnprovenReceiptError(error.detail.replace("the body", "the file")) from None
    name_salt = None
    if isinstance(found, dict) and "receipt" in found:
        # The answer to an erasure: of what stands beside the receipt, nothing is signed but the salt is needed.
        name_salt, found = found.get("name_salt"), found["receipt"]
        if name_salt is not None:
            from_base64(text_of(name_salt, "the salt"))
    return members(found, _RECEIPT, "the receipt"), name_salt


def _require_signed(signed: JsonObject, domain: bytes, verify: VerifySignature, what: str) -> None:
    signature = from_base64(text_of(signed["signature"], "a signature"))
    try:
        verify(signature, domain + canonical_json(signed["payload"]))
    except ValueError:
        raise UnprovenReceiptError(f"{what} is not signed by this key, or was altered") from None


def _require_erasure(payload: JsonObject, leaf: Leaf) -> None:
    """Step 2."""
    envelope = leaf.envelope
    dead = [part.key_id.hex() for part in leaf.parts if part.role is Role.SHREDDED]
    told = {
        "id": str(envelope.event_id),
        "ledger_id": str(envelope.ledger_id),
        "position": leaf.position,
        "erased_at": format_time(leaf.recorded_at),
        "key_ids": dead,
    }
    for name, value in told.items():
        if canonical_json({name: payload[name]}) != canonical_json({name: value}):
            raise UnprovenReceiptError(f"its {name} is not what its leaf says")
    if (envelope.category, envelope.event_type) != (LEDGER_CATEGORY, SUBJECT_ERASED):
        raise UnprovenReceiptError("its leaf is not that of an erasure")
    commitment = payload["name_commitment"]
    if (
        parse_ref("sub", payload["subject_ref"]) is None
        or parse_time(payload["requested_at"]) is None
        or (type(payload["events"]) is not int or payload["events"] < 0)
        or (commitment is not None and len(from_base64(text_of(commitment, "the commitment"))) != HASH_BYTES)
    ):
        raise UnprovenReceiptError("a member of the payload has not the form that it must have")


def _linked(signed: JsonObject, open_checkpoint: OpenCheckpoint) -> Checkpoint | None:
    """Step 3. None while there is no checkpoint yet."""
    if signed["proof"] is None and signed["checkpoint"] is None:
        return None
    checkpoint = open_checkpoint(text_of(signed["checkpoint"], "the checkpoint"))
    given, payload = members(signed["proof"], _PROOF, "the proof"), signed["payload"]
    if type(given["index"]) is not int or given["index"] != payload["position"]:
        raise UnprovenReceiptError("the proof is of another position than the payload says")
    proof = RootProof(
        given["index"], hashes_of(given["hashes"]), hashes_of(given["frontier"]), hashes_of(given["consistency"])
    )
    before, after = verify_roots(proof, from_base64(payload["leaf"]), checkpoint)
    for name, root in (("root", after), ("root_before", before)):
        if name in payload and payload[name] != to_base64(root):
            raise UnprovenReceiptError(f"its {name} is not the root of the tree that the checkpoint's began as")
    return checkpoint


def _statement(
    shown: Any, receipt: JsonObject, verify: VerifySignature, open_checkpoint: OpenCheckpoint
) -> CheckedStatement:
    """Step 4."""
    old = isinstance(shown, dict) and shown.keys() == _OLD_STATEMENT
    signed = members(shown, _OLD_STATEMENT if old else _SIGNED, "a statement")
    payload = members(signed["payload"], None, "the payload of a statement")
    kind = text_of(payload.get("kind"), "the kind of a statement")
    if kind not in _SAID:
        raise UnprovenReceiptError("there is a statement of a kind that this version does not know")
    placed = "leaf" in payload
    at = f"{kind}_at"
    members(payload, _ABOUT | {at} | _SAID[kind] | (_PLACED if placed else frozenset()), "the payload of a statement")
    _require_signed(signed, STATEMENT_DOMAIN, verify, f"the statement {kind!r}")
    about = {"erasure_id": receipt["id"], "ledger_id": receipt["ledger_id"], "subject_ref": receipt["subject_ref"]}
    if any(payload[name] != value for name, value in about.items()):
        raise UnprovenReceiptError(f"the statement {kind!r} is about another erasure")
    if parse_time(payload[at]) is None:
        raise UnprovenReceiptError(f"the statement {kind!r} has no time")
    if not placed:
        if not old and (signed["proof"], signed["checkpoint"]) != (None, None):
            raise UnprovenReceiptError(f"the statement {kind!r} has a proof of nothing")
        return CheckedStatement(kind, payload[at], None, None)
    leaf = parse_leaf(from_base64(text_of(payload["leaf"], "a leaf")))
    envelope = leaf.envelope
    if (
        (envelope.category, envelope.event_type) != (LEDGER_CATEGORY, STATEMENT_TYPES[kind])
        or (str(envelope.ledger_id), format_ref("str", envelope.stream_ref)) != (receipt["ledger_id"], _stream(receipt))
        or type(payload["position"]) is not int
        or payload["position"] != leaf.position
    ):
        raise UnprovenReceiptError(f"the leaf of the statement {kind!r} is that of another event")
    return CheckedStatement(kind, payload[at], leaf.position, None if old else _linked(signed, open_checkpoint))


def _stream(receipt: JsonObject) -> str:
    """The stream of an erasure has its id for a ref."""
    return f"str_{str(receipt['id']).replace('-', '')}"
