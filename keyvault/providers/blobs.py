"""What the first byte of a wrap means: the one place where a provider takes a byte for a layout of its own.

- ``0x01``, ``file``: ``nonce[12] ‖ ciphertext ‖ tag[16]``, AES-256-GCM, bound to the AAD itself
  (:func:`keyvault.envelope.wrap`);
- ``0x02``, ``pkcs11``: ``nonce[12] ‖ ciphertext ‖ tag[16]``, AES-256-GCM in the token, bound to SHA-256(AAD);
- ``0x03``, ``awskms``: the blob that KMS gave, bound to SHA-256(AAD) by its encryption context.

A byte is never given a second meaning, and a blob is never tried in two ways.
"""

from __future__ import annotations

import hashlib
from typing import Final

from keyvault.errors import NotAuthenticError, UnknownFormatError

PKCS11: Final = b"\x02"
AWSKMS: Final = b"\x03"


def body_of(blob: bytes, layout: bytes, least: int) -> bytes:
    """What follows the first byte.

    Raises :class:`UnknownFormatError` for another layout, :class:`NotAuthenticError` for less than ``least`` bytes.
    """
    if blob[:1] != layout:
        raise UnknownFormatError("the wrap has a layout that this key provider does not make")
    if len(blob) - 1 < least:
        raise NotAuthenticError("the wrap is cut short")
    return blob[1:]


def digest_of(aad: bytes) -> bytes:
    """The 32 bytes that stand for the AAD where a provider's own format binds a wrap to it."""
    return hashlib.sha256(aad).digest()
