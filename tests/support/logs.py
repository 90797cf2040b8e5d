"""A log with a key, without a ledger behind it: it can also do what a ledger never does, and show two histories."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from keyvault.signatures import SigningKey
from ledger.domain.checkpoints import Checkpoint
from ledger.domain.notes import ED25519, VerifierKey, signed_note
from ledger.domain.witnessing import format_add_checkpoint
from tests.support.tiled_trees import Tree


class SignedLog:
    """A tree and the key that signs its checkpoints."""

    def __init__(self, leaves: Iterable[bytes], origin: str | None = None) -> None:
        self.tree = Tree(leaves)
        self.signer = SigningKey.generate()
        self.key = VerifierKey(origin or f"log.example/{secrets.token_hex(4)}", ED25519, self.signer.public_key)

    def fork(self, size: int, leaves: Iterable[bytes]) -> SignedLog:
        """Another log of the same key, that is the same up to ``size``."""
        other = SignedLog([*self.tree.leaves[:size], *leaves], self.key.name)
        other.signer, other.key = self.signer, self.key
        return other

    def note(self, size: int | None = None) -> str:
        """The signed checkpoint of a size; None: the newest."""
        size = self.tree.size if size is None else size
        text = Checkpoint(self.key.name, size, self.tree.root(size)).text
        return str(signed_note(text, self.key, self.signer.sign(text.encode())))

    def request(self, old: int, new: int) -> bytes:
        """An honest request to cosign."""
        return format_add_checkpoint(old, self.tree.consistency(old, new), self.note(new))


def leaves(count: int, kind: str = "leaf") -> list[bytes]:
    """Different leaves, always the same ones."""
    return [f"{kind} {number}".encode() for number in range(count)]
