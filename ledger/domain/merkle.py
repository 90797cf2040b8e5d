"""The Merkle tree of RFC 6962 §2.1, as arithmetic on hashes (32 bytes each, SHA-256)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

from ledger.errors import IntegrityError

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
TREE_SIZES: Final = 2**63
"""Trees are smaller than this."""

_LEAF_PREFIX: Final = b"\x00"
_NODE_PREFIX: Final = b"\x01"


class ProofError(IntegrityError):
    """A proof does not show what it should show."""


def hash_leaf(leaf: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(_LEAF_PREFIX + leaf).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(_NODE_PREFIX + left + right).digest()


def extend_frontier(
    size: int, frontier: Sequence[bytes], leaf_hashes: Iterable[bytes]
) -> tuple[int, tuple[bytes, ...]]:
    """Append leaves to the compact range of a tree of ``size`` leaves; gives the new size and frontier.

    The frontier holds the roots of the perfect subtrees that the tree falls into, the largest first: one for each bit
    that is set in ``size``.
    """
    check_frontier(size, frontier)
    nodes = list(frontier)
    for leaf_hash in leaf_hashes:
        node = leaf_hash
        merges = size
        while merges & 1:
            node = hash_node(nodes.pop(), node)
            merges >>= 1
        nodes.append(node)
        size += 1
    return size, tuple(nodes)


def check_frontier(size: int, frontier: Sequence[bytes]) -> None:
    """Raise ``IntegrityError`` when a frontier cannot belong to a tree of this size."""
    if len(frontier) != size.bit_count() or any(len(node) != HASH_BYTES for node in frontier):
        raise IntegrityError(f"the frontier of the head does not fit its size {size}")


def root_of(frontier: Sequence[bytes]) -> bytes:
    """The root hash of the tree that a frontier stands for."""
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for node in reversed(frontier[:-1]):
        root = hash_node(node, root)
    return root


def encode_frontier(frontier: Sequence[bytes]) -> bytes:
    """The column ``heads.frontier``: the hashes one after another."""
    return b"".join(frontier)


def decode_frontier(stored: bytes) -> tuple[bytes, ...]:
    """Read the column ``heads.frontier``."""
    return tuple(stored[offset : offset + HASH_BYTES] for offset in range(0, len(stored), HASH_BYTES))


def verify_inclusion(*, index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf is the one at ``index`` in the tree of ``size`` leaves and this root (RFC 9162 §2.1.3.2).

    Raises ``ProofError``.
    """
    if not 0 <= index < size < TREE_SIZES:
        raise ProofError("the index is not below the tree size")
    _check_hashes((leaf_hash, root, *proof))
    node_index, last = index, size - 1
    node = leaf_hash
    for sibling in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if node_index & 1 or node_index == last:
            node = hash_node(sibling, node)
            while node_index and not node_index & 1:
                node_index, last = node_index >> 1, last >> 1
        else:
            node = hash_node(node, sibling)
        node_index, last = node_index >> 1, last >> 1
    if last != 0:
        raise ProofError("the inclusion proof is too short")
    if node != root:
        raise ProofError("the inclusion proof leads to another root")


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of ``old_size`` leaves is the beginning of the tree of ``new_size`` (RFC 9162 §2.1.4.2).

    ``old_size`` must be at least 1: the empty tree is the beginning of every tree, and a proof of it says nothing.
    Raises ``ProofError``.
    """
    if not 0 < old_size <= new_size < TREE_SIZES:
        raise ProofError("the sizes are not 0 < old ≤ new")
    if old_size == new_size:
        # Nothing is hashed here, so whatever stands for the root need only be the same.
        if proof:
            raise ProofError("a proof between equal sizes must be empty")
        if old_root != new_root:
            raise ProofError("two roots for one size")
        return
    _check_hashes((old_root, new_root, *proof))
    path = [old_root, *proof] if old_size.bit_count() == 1 else list(proof)
    if not path:
        raise ProofError("the consistency proof is empty")
    node_index, last = old_size - 1, new_size - 1
    while node_index & 1:
        node_index, last = node_index >> 1, last >> 1
    old_node = new_node = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if node_index & 1 or node_index == last:
            old_node, new_node = hash_node(sibling, old_node), hash_node(sibling, new_node)
            while node_index and not node_index & 1:
                node_index, last = node_index >> 1, last >> 1
        else:
            new_node = hash_node(new_node, sibling)
        node_index, last = node_index >> 1, last >> 1
    if last != 0:
        raise ProofError("the consistency proof is too short")
    if old_node != old_root or new_node != new_root:
        raise ProofError("the consistency proof leads to other roots")


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(node) != HASH_BYTES for node in hashes):
        raise ProofError("something that is not a SHA-256 hash")
