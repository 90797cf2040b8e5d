"""Ed25519 (RFC 8032) for whoever has only public keys, and for a witness's own key. Needs no vault."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SEED_BYTES = 32


def verify_ed25519(public_key: bytes, signature: bytes, message: bytes) -> None:
    """Raise ``ValueError`` unless the 64-byte signature of the message is by this 32-byte key."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        raise ValueError("the signature is not by this key") from None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key that stands by itself, outside any vault. ``seed``: its 32 secret bytes."""

    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> SigningKey:
        """A fresh one."""
        return cls(os.urandom(SEED_BYTES))

    @property
    def public_key(self) -> bytes:
        """32 bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)
