"""The tree is that of RFC 6962, however it is built; a proof that is wrong in any way is refused."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.merkle import (
    EMPTY_ROOT,
    ProofError,
    decode_frontier,
    encode_frontier,
    extend_frontier,
    hash_leaf,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from ledger.errors import IntegrityError

FOLDER = Path(__file__).parents[2] / "vectors" / "rfc6962"


def vectors(name: str) -> list[dict[str, Any]]:
    """The 98 vectors of one kind."""
    found: list[dict[str, Any]] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert len(found) == 98
    return found


def unbase64(text: str | None) -> bytes:
    """The bytes of a vector's field."""
    return base64.b64decode(text or "")


def proof_of(vector: dict[str, Any]) -> list[bytes]:
    """The proof of a vector; ``null`` is an empty one."""
    return [base64.b64decode(node) for node in vector["proof"] or []]


@pytest.mark.parametrize("vector", vectors("inclusion.json"), ids=lambda vector: vector["name"])
def test_inclusion_vectors(vector: dict[str, Any]) -> None:
    """Good inclusion proofs are accepted and every altered one is refused."""
    arguments: dict[str, Any] = {
        "index": vector["leafIdx"],
        "size": vector["treeSize"],
        "leaf_hash": unbase64(vector["leafHash"]),
        "proof": proof_of(vector),
        "root": unbase64(vector["root"]),
    }
    if vector["wantErr"]:
        with pytest.raises(ProofError):
            verify_inclusion(**arguments)
    else:
        verify_inclusion(**arguments)


@pytest.mark.parametrize("vector", vectors("consistency.json"), ids=lambda vector: vector["name"])
def test_consistency_vectors(vector: dict[str, Any]) -> None:
    """Good consistency proofs are accepted and every altered one is refused."""
    arguments: dict[str, Any] = {
        "old_size": vector["size1"],
        "new_size": vector["size2"],
        "old_root": unbase64(vector["root1"]),
        "new_root": unbase64(vector["root2"]),
        "proof": proof_of(vector),
    }
    if vector["wantErr"]:
        with pytest.raises(ProofError):
            verify_consistency(**arguments)
    else:
        verify_consistency(**arguments)


def tree_hash(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:split]) + tree_hash(leaves[split:])).digest()


def inclusion_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962 §2.1.1, as it is written there."""
    if len(leaves) <= 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*inclusion_path(index, leaves[:split]), tree_hash(leaves[split:])]
    return [*inclusion_path(index - split, leaves[split:]), tree_hash(leaves[:split])]


def consistency_path(old: int, leaves: list[bytes], *, whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962 §2.1.2, as it is written there."""
    if old == len(leaves):
        return [] if whole else [tree_hash(leaves)]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if old <= split:
        return [*consistency_path(old, leaves[:split], whole=whole), tree_hash(leaves[split:])]
    return [*consistency_path(old - split, leaves[split:], whole=False), tree_hash(leaves[:split])]


LEAVES = st.lists(st.binary(max_size=40), max_size=70)


@given(LEAVES, st.data())
def test_a_frontier_grown_in_batches_has_the_root_of_the_whole_tree(leaves: list[bytes], data: st.DataObject) -> None:
    """However appends are cut into batches, the head's frontier leads to the root of RFC 6962."""
    cut = data.draw(st.integers(0, len(leaves)))
    hashes = [hash_leaf(leaf) for leaf in leaves]
    size, frontier = extend_frontier(0, (), hashes[:cut])
    size, frontier = extend_frontier(size, decode_frontier(encode_frontier(frontier)), hashes[cut:])
    assert size == len(leaves)
    assert len(frontier) == len(leaves).bit_count()
    assert root_of(frontier) == tree_hash(leaves)


@given(LEAVES.filter(bool), st.data())
def test_proofs_made_by_the_rfc_are_accepted_and_flipped_ones_refused(leaves: list[bytes], data: st.DataObject) -> None:
    """Proofs of the RFC's own definitions verify; with one bit flipped anywhere they do not."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    old = data.draw(st.integers(1, len(leaves)))
    root, old_root = tree_hash(leaves), tree_hash(leaves[:old])
    path, consistency = inclusion_path(index, leaves), consistency_path(old, leaves)
    leaf_hash = hash_leaf(leaves[index])
    verify_inclusion(index=index, size=len(leaves), leaf_hash=leaf_hash, proof=path, root=root)
    verify_consistency(old_size=old, new_size=len(leaves), old_root=old_root, new_root=root, proof=consistency)

    flipped = bytes((root[0] ^ 1,)) + root[1:]
    with pytest.raises(ProofError):
        verify_inclusion(index=index, size=len(leaves), leaf_hash=leaf_hash, proof=path, root=flipped)
    with pytest.raises(ProofError):
        verify_consistency(old_size=old, new_size=len(leaves), old_root=old_root, new_root=flipped, proof=consistency)
    for proof in (path[:-1], [*path, root]) if path else ([root],):
        with pytest.raises(ProofError):
            verify_inclusion(index=index, size=len(leaves), leaf_hash=leaf_hash, proof=proof, root=root)


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    """The root of an empty ledger is SHA-256 of the empty string (RFC 6962 §2.1)."""
    assert root_of(()) == EMPTY_ROOT == hashlib.sha256(b"").digest()


@pytest.mark.parametrize(
    ("size", "frontier"), [(0, (b"x" * 32,)), (1, ()), (2, (b"x" * 32,) * 2), (3, (b"x" * 32, b"x" * 31))]
)
def test_a_frontier_that_does_not_fit_its_size_is_never_built_upon(size: int, frontier: tuple[bytes, ...]) -> None:
    """A head that was altered by hand stops the append instead of being built upon."""
    with pytest.raises(IntegrityError):
        extend_frontier(size, frontier, [b"y" * 32])


def test_a_hash_of_another_length_is_no_hash() -> None:
    """A proof with something in it that is not 32 bytes is refused."""
    root = tree_hash([b"a", b"b"])
    with pytest.raises(ProofError):
        verify_inclusion(index=0, size=2, leaf_hash=hash_leaf(b"a"), proof=[hash_leaf(b"b") + b"!"], root=root)
