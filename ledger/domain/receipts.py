"""Receipts and statements: which bytes are signed, and how they are linked to a checkpoint, so that anybody can check
them offline.

The leaf that a receipt is about was the last one of the tree with the signed ``root``. The compact range of the tree in
front of it (its ``frontier``) gives both roots, without the leaf and with it; a consistency proof leads from there to
the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ledger.domain.checkpoints import Checkpoint
from ledger.domain.events import JsonObject
from ledger.domain.merkle import (
    check_frontier,
    extend_frontier,
    hash_leaf,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from ledger.domain.names import ERASURE_FINAL, NAME_UNLINKED

RECEIPT_DOMAIN: Final = b"audit-ledger v1 receipt\n"
"""Stands before the payload in what a receipt's signature signs, so that no other statement can pass for a receipt."""

STATEMENT_DOMAIN: Final = b"audit-ledger v1 statement\n"
"""Stands before the payload in what a statement's signature signs, so that no receipt can pass for a statement."""

SALT_BYTES: Final = 32
"""Of the salt that is hashed before the name in ``name_commitment``. Were another length taken, the end of the name
would do for the name, behind a salt that has its beginning."""

STATEMENT_TYPES: Final = {"final": ERASURE_FINAL, "unlinked": NAME_UNLINKED}
"""Kind of a statement → the type of the event that says the same."""


@dataclass(frozen=True, slots=True)
class RootProof:
    """Links a leaf, and the roots of the trees that end before it and with it, to a checkpoint.

    ``hashes``: the inclusion proof of the leaf in the checkpoint's tree. ``frontier``: the compact range of the tree of
    the ``index`` leaves before it, the largest subtree first. ``consistency``: from the tree that ends with the leaf to
    the checkpoint's.
    """

    index: int
    hashes: Sequence[bytes]
    frontier: Sequence[bytes]
    consistency: Sequence[bytes]


def verify_roots(proof: RootProof, leaf: bytes, checkpoint: Checkpoint) -> tuple[bytes, bytes]:
    """The roots of the trees that end just before this leaf and with it, both beginnings of the checkpoint's tree.
    Raises ``IntegrityError``."""
    leaf_hash = hash_leaf(leaf)
    verify_inclusion(
        index=proof.index, size=checkpoint.size, leaf_hash=leaf_hash, proof=proof.hashes, root=checkpoint.root
    )
    check_frontier(proof.index, proof.frontier)
    size, frontier = extend_frontier(proof.index, proof.frontier, [leaf_hash])
    root = root_of(frontier)
    verify_consistency(
        old_size=size, new_size=checkpoint.size, old_root=root, new_root=checkpoint.root, proof=proof.consistency
    )
    return root_of(proof.frontier), root


def canonical_json(payload: JsonObject) -> bytes:
    """RFC 8785, for payloads of strings, integers, nulls, and lists and objects of them under ASCII names."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
