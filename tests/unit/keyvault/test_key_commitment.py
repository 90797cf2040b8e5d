"""Why a sealed part holds a commitment to its key: AES-GCM alone lets somebody who chooses the keys make one ciphertext
that opens, authentic, to two texts. An operator could record it, and show the one or the other text later."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from keyvault import envelope
from keyvault.errors import NotAuthenticError

BLOCK = 16
ZERO_NONCE = bytes(12)
ONE, OTHER = bytes(range(32)), bytes(range(32, 64))
AAD = b"whatever the event's envelope says"
_REDUCTION = 0xE1 << 120


def multiply(left: int, right: int) -> int:
    """The product in GF(2^128) as GCM has it (NIST SP 800-38D §6.3), of blocks as big-endian integers."""
    product = 0
    for bit in range(127, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = (right >> 1) ^ (_REDUCTION if right & 1 else 0)
    return product


def power(base: int, exponent: int) -> int:
    """``base`` to that power, in the same field."""
    result = 1 << 127
    while exponent:
        if exponent & 1:
            result = multiply(result, base)
        base, exponent = multiply(base, base), exponent >> 1
    return result


def inverse(element: int) -> int:
    """What times ``element`` is one."""
    return power(element, 2**128 - 2)


def keystream(key: bytes, counter: int, size: int) -> bytes:
    """AES in counter mode from that counter behind the zero nonce: 0 gives GHASH's key, 1 the tag's mask, 2 the text's
    first block."""
    return Cipher(AES(key), CTR(ZERO_NONCE + counter.to_bytes(4))).encryptor().update(bytes(size))


def xor(left: bytes, right: bytes) -> bytes:
    """Byte by byte."""
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def blocks_of(aad: bytes, ciphertext: bytes) -> list[int]:
    """What GHASH runs over: both padded, and their lengths in bits."""
    padded = b"".join(part + bytes(-len(part) % BLOCK) for part in (aad, ciphertext))
    lengths = (8 * len(aad)).to_bytes(8) + (8 * len(ciphertext)).to_bytes(8)
    whole = padded + lengths
    return [int.from_bytes(whole[start : start + BLOCK]) for start in range(0, len(whole), BLOCK)]


def tag(key: bytes, blocks: Sequence[int]) -> bytes:
    """GCM's tag of these blocks under a key and the zero nonce."""
    hash_key, digest = int.from_bytes(keystream(key, 0, BLOCK)), 0
    for block in blocks:
        digest = multiply(digest ^ block, hash_key)
    return xor(digest.to_bytes(BLOCK), keystream(key, 1, BLOCK))


def two_faced(first: bytes, second: bytes) -> bytes:
    """A ciphertext with a tag that both keys take for their own. Under ``ONE`` its first block says ``first``; under
    ``OTHER`` its second says ``second``; the third is what makes the two tags the same: one linear equation."""
    chosen = xor(first, keystream(ONE, 2, BLOCK)) + xor(second, keystream(OTHER, 3, BLOCK))
    blocks = blocks_of(AAD, chosen + bytes(BLOCK))
    keys = [int.from_bytes(keystream(key, 0, BLOCK)) for key in (ONE, OTHER)]

    def factor(index: int) -> int:
        exponent = len(blocks) - index
        return power(keys[0], exponent) ^ power(keys[1], exponent)

    wanted = int.from_bytes(xor(keystream(ONE, 1, BLOCK), keystream(OTHER, 1, BLOCK)))
    unknown = len(blocks) - 2
    for index, block in enumerate(blocks):
        wanted ^= multiply(block, factor(index))
    blocks[unknown] = multiply(wanted, inverse(factor(unknown)))
    assert tag(ONE, blocks) == tag(OTHER, blocks)
    return chosen + blocks[unknown].to_bytes(BLOCK) + tag(ONE, blocks)


ATTACK = two_faced(b'{"guilty":false,', b'"guilty": true }')


def test_plain_aes_gcm_opens_to_two_texts() -> None:
    """The attack works on the cipher itself: no key is broken and no tag is forged, and both texts are authentic."""
    one = AESGCM(ONE).decrypt(ZERO_NONCE, ATTACK, AAD)
    other = AESGCM(OTHER).decrypt(ZERO_NONCE, ATTACK, AAD)
    assert one != other
    assert one.startswith(b'{"guilty":false,')
    assert other[BLOCK:].startswith(b'"guilty": true }')


@pytest.mark.parametrize(("committed", "refused"), [(ONE, OTHER), (OTHER, ONE)])
def test_a_sealed_part_opens_to_one_text(committed: bytes, refused: bytes) -> None:
    """The same ciphertext in a part: its commitment names one of the keys, and the other is refused before anything is
    decrypted. So a second text takes a second part, and the leaf holds the hash of the recorded one."""
    part = envelope.FORMAT + bytes(16) + envelope._commit(committed) + ATTACK
    assert envelope.open_disclosed(committed, part, AAD) == AESGCM(committed).decrypt(ZERO_NONCE, ATTACK, AAD)
    with pytest.raises(NotAuthenticError, match="not made under this key"):
        envelope.open_disclosed(refused, part, AAD)


def test_our_tag_is_that_of_gcm() -> None:
    """What the attack computes with is GCM, not something that merely suits it."""
    text = b"some text of two blocks and more"
    sealed = AESGCM(ONE).encrypt(ZERO_NONCE, text, AAD)
    assert tag(ONE, blocks_of(AAD, sealed[:-BLOCK])) == sealed[-BLOCK:]
    assert xor(sealed[:-BLOCK], text) == keystream(ONE, 2, len(text))
