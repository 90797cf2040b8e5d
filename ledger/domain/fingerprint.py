"""Compare two collections that come in different orders, and that nobody holds in memory.

The sum, modulo 2^256, of a hash that is keyed with fresh randomness of the run: whoever altered one of the collections
before the key was drawn can have aimed at nothing (MSet-Add-Hash; Clarke et al., ASIACRYPT 2003).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

KEY_BYTES: Final = 32
MODULUS: Final = 1 << 256


def fingerprint(key: bytes, records: Iterable[bytes]) -> int:
    """The fingerprint of a collection; those of two parts add up, modulo ``MODULUS``, to that of the whole."""
    return sum([int.from_bytes(sha256(key + record).digest(), "big") for record in records]) % MODULUS
