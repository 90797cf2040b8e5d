"""What a ledger publishes is checked by code that nobody here wrote: Go's packages for notes and transparent logs."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ledger.domain.merkle import hash_leaf
from ledger.domain.tiles import TILE_WIDTH, Tile, width_of
from ledger.services.proving.entries import entry_bundle
from ledger.services.proving.proofs import prove_consistency, prove_inclusion
from ledger.services.proving.publishing import log_key, note_of, publish
from tests.support.golang import GoError, check_with_go
from tests.support.ledgers import Ledger, a_fact, a_visit

VECTORS = Path(__file__).parents[1] / "vectors" / "rfc6962"
STEPS = (1, 1, 5, 120, 129, 1, 300)


def leaves_of(ledger: Ledger, size: int) -> Iterator[bytes]:
    """All leaves, as they are served."""
    for number in range((size + TILE_WIDTH - 1) // TILE_WIDTH):
        bundle = entry_bundle(ledger.deps, ledger.ledger_id, Tile(0, number, width_of(0, number, size)))
        while bundle:
            (length,) = struct.unpack_from(">H", bundle)
            yield bundle[2 : 2 + length]
            bundle = bundle[2 + length :]


def published_task(ledger: Ledger) -> dict[str, Any]:
    """Everything that a growing ledger has published, with somebody erased on the way."""
    checkpoints = []
    for step in STEPS:
        ledger.append(a_visit("A"), *(a_fact() for _ in range(step - 1)))
        checkpoints.append(publish(ledger.deps, ledger.ledger_id, at_least=2**40))
    ledger.erase("patient:A")
    checkpoints.append(publish(ledger.deps, ledger.ledger_id, at_least=2**40))
    newest = checkpoints[-1]
    leaves = list(leaves_of(ledger, newest.size))
    proofs = prove_inclusion(ledger.deps, ledger.ledger_id, range(newest.size), newest.size)
    return {
        "VerifierKey": log_key(ledger.deps, ledger.ledger_id).text,
        "Checkpoints": [note_of(ledger.deps, one) for one in checkpoints],
        "Leaves": leaves,
        "Roots": [{"Size": one.size, "Root": one.root} for one in checkpoints],
        "Inclusion": [
            {"Size": newest.size, "Index": at, "Root": newest.root, "Leaf": leaf, "Proof": list(proofs[at])}
            for at, leaf in enumerate(leaves)
        ],
        "Consistency": [
            {
                "Old": old.size,
                "New": new.size,
                "OldRoot": old.root,
                "NewRoot": new.root,
                "Proof": list(prove_consistency(ledger.deps, ledger.ledger_id, old.size, new.size)),
            }
            for old in checkpoints
            for new in checkpoints
            if old.size <= new.size
        ],
    }


def test_what_is_published_is_right_for_others_too(ledger: Ledger) -> None:
    """Notes, whole trees, the proof of every event and of the growth between any two checkpoints."""
    task = published_task(ledger)
    size = sum(STEPS) + 1

    assert check_with_go(task) == [len(STEPS) + 1, size, (len(STEPS) + 1) * (len(STEPS) + 2) // 2, len(STEPS) + 1]


def test_what_is_wrong_is_found(ledger: Ledger) -> None:
    """The check can fail: with another note, leaf, proof or root it does."""
    ledger.append(*(a_fact() for _ in range(5)))
    checkpoint = publish(ledger.deps, ledger.ledger_id)
    leaves = list(leaves_of(ledger, 5))
    proof = list(prove_inclusion(ledger.deps, ledger.ledger_id, [3], 5)[3])
    note, key = note_of(ledger.deps, checkpoint), log_key(ledger.deps, ledger.ledger_id).text
    inclusion = {"Size": 5, "Index": 3, "Root": checkpoint.root, "Leaf": leaves[3], "Proof": proof}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"VerifierKey": key, "Checkpoints": [note.replace("\n5\n", "\n6\n")]}, "checkpoint 0"),
        ({"Inclusion": [{**inclusion, "Leaf": leaves[2]}]}, "inclusion proof 0"),
        ({"Inclusion": [{**inclusion, "Proof": proof[::-1]}]}, "inclusion proof 0"),
        ({"Leaves": [*leaves[:4], leaves[0]], "Roots": [{"Size": 5, "Root": checkpoint.root}]}, "root of size 5"),
    ]

    for task, what in wrong:
        with pytest.raises(GoError, match=what):
            check_with_go(task)
    assert check_with_go({"Inclusion": [{**inclusion, "Leaf": leaves[2], "Wrong": True}]}) == [0, 1, 0, 0]


def root_for_others(vector: dict[str, Any], name: str) -> str:
    """A root of a vector. Between equal sizes roots are only compared, and some are no hashes; others take hashes only,
    so there the hash of the root stands for it."""
    root: str = vector[name] or ""
    if vector["size1"] != vector["size2"]:
        return root
    return base64.b64encode(sha256(root.encode()).digest()).decode()


def test_the_vectors_mean_the_same_to_others() -> None:
    """All 196: what is accepted here is accepted there, and what is refused here is refused there."""
    inclusion = [
        {
            "Size": one["treeSize"],
            "Index": one["leafIdx"],
            "Root": one["root"] or "",
            "LeafHash": one["leafHash"] or "",
            "Proof": one["proof"] or [],
            "Wrong": one["wantErr"],
        }
        for one in json.loads((VECTORS / "inclusion.json").read_text(encoding="utf-8"))
    ]
    consistency = [
        {
            "Old": one["size1"],
            "New": one["size2"],
            "OldRoot": root_for_others(one, "root1"),
            "NewRoot": root_for_others(one, "root2"),
            "Proof": one["proof"] or [],
            "Wrong": one["wantErr"],
        }
        for one in json.loads((VECTORS / "consistency.json").read_text(encoding="utf-8"))
    ]

    assert check_with_go({"Inclusion": inclusion, "Consistency": consistency}) == [0, 98, 98, 0]


def test_leaves_are_hashed_alike() -> None:
    """A leaf's hash is SHA-256(0x00 ‖ leaf), there as here."""
    leaf = b"\x01leaf"
    one = {"Size": 1, "Index": 0, "Root": hash_leaf(leaf), "Leaf": leaf, "Proof": []}

    assert check_with_go({"Inclusion": [one]}) == [0, 1, 0, 0]
    assert base64.b64encode(hash_leaf(b"")) == b"bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0="
