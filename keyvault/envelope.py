"""The byte formats of the key vault: pure functions of keys and bytes (design §5).

Integers are big-endian. The first byte of a sealed part, a wrap or a wrap AAD fixes its whole layout; an unknown one is
an error. Nothing here can ever change: ``tests/vectors/keyvault.json`` pins every format.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Final, NoReturn
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from typing_extensions import override

from keyvault.errors import NotAuthenticError, UnknownFormatError

FORMAT: Final = b"\x01"
KEY_SIZE: Final = 32
KEY_ID_SIZE: Final = 32
NAME_HASH_SIZE: Final = 32
REF_SIZE: Final = 16
SALT_SIZE: Final = 16
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
COMMIT_SIZE: Final = 32

_SALT_END: Final = 1 + SALT_SIZE
_COMMIT_END: Final = _SALT_END + COMMIT_SIZE
_LEAST_PART_SIZE: Final = _COMMIT_END + TAG_SIZE

ABSENT_KEY_ID: Final = bytes(KEY_ID_SIZE)
ABSENT_REF: Final = bytes(REF_SIZE)

_HMAC_BLOCK: Final = 64
_OPENED_NAMES: Final = 16
"""Of one link key: few people have more names and streams, and many link keys are remembered."""

_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))

# Safe only because every part has a key of its own (fresh salt): a key that seals once needs no other nonce.
_ZERO_NONCE: Final = bytes(NONCE_SIZE)


class WrapKind(IntEnum):
    """What is inside a wrap; bound by its AAD so that no wrap can stand in for one of another kind."""

    DEK = 1
    LEDGER_DEK = 2
    NAME_KEY = 3
    SIGNING_KEY = 4
    LINK_KEY = 5


class NameKind(IntEnum):
    """Of what a row of the name index is; bound by its AAD."""

    SUBJECT = 1
    STREAM = 2


def key_id_of(dek: bytes) -> bytes:
    """The 32-byte key id: HKDF-Expand-SHA256(DEK, "audit-ledger v1 key id", 32) (RFC 5869 §2.3). Commits to the key."""
    _require_key(dek)
    return _expand(dek, b"audit-ledger v1 key id")


def part_key(dek: bytes, salt: bytes) -> bytes:
    """The single-use key of the part with this 16-byte salt. Whoever has it can open that part and nothing else."""
    return hmac.digest(dek, b"audit-ledger v1 part" + salt, "sha256")


def seal_part(dek: bytes, plaintext: bytes, aad: bytes, *, _salt: bytes | None = None) -> bytes:
    """Seal a part: ``0x01 ‖ salt[16] ‖ commit[32] ‖ ciphertext ‖ tag[16]``, AES-256-GCM under a fresh single-use key.

    ``_salt`` is for test vectors only: a salt used twice under one DEK gives the plaintext away.
    """
    return _seal(_part_keys(dek), os.urandom(SALT_SIZE) if _salt is None else _salt, plaintext, aad)


def open_part(dek: bytes, sealed: bytes, aad: bytes) -> bytes:
    """Open a part. Raises :class:`NotAuthenticError` when it is not authentic under this DEK and AAD."""
    return disclose_part(dek, sealed, aad)[0]


def disclose_part(dek: bytes, sealed: bytes, aad: bytes) -> tuple[bytes, bytes]:
    """Open a part, and give its single-use key beside the plaintext. Raises as :func:`open_part` does.

    There is no other way to that key: of what does not open nothing is given away, whatever salt somebody puts there.
    """
    return _disclose(_part_keys(dek), sealed, aad)


def _part_keys(dek: bytes) -> tuple[bytes, bytes]:
    """What makes the keys of a DEK's parts out of their salts, as :func:`part_key` does: the beginnings of both hashes
    of HMAC (RFC 2104 §2).

    ``hmac`` would begin anew at each part of a page or batch, which takes twice as long.
    """
    inner, outer = _hmac_begun(dek)
    return inner + b"audit-ledger v1 part", outer


def _hmac_begun(key: bytes) -> tuple[bytes, bytes]:
    """What the inner and the outer hash of an HMAC-SHA256 under a key of 32 bytes begin with (RFC 2104 §2)."""
    _require_key(key)
    block = key.ljust(_HMAC_BLOCK, b"\x00")
    return block.translate(_INNER), block.translate(_OUTER)


def _seal(part_keys: tuple[bytes, bytes], salt: bytes, plaintext: bytes, aad: bytes) -> bytes:
    inner, outer = part_keys
    key = sha256(outer + sha256(inner + salt).digest()).digest()
    return FORMAT + salt + _commit(key) + AESGCM(key).encrypt(_ZERO_NONCE, plaintext, aad)


def _disclose(part_keys: tuple[bytes, bytes], sealed: bytes, aad: bytes) -> tuple[bytes, bytes]:
    _require_part(sealed)
    inner, outer = part_keys
    key = sha256(outer + sha256(inner + sealed[1:_SALT_END]).digest()).digest()
    return _open(key, sealed, aad), key


def open_disclosed(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    """Open a part with its single-use key alone: needs no vault. Raises as :func:`open_part` does."""
    _require_key(key)
    _require_part(sealed)
    return _open(key, sealed, aad)


def _open(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    # GCM alone does not commit to its key: without this, one ciphertext could be opened to two texts.
    if not hmac.compare_digest(sealed[_SALT_END:_COMMIT_END], _commit(key)):
        raise NotAuthenticError("the sealed part was not made under this key")
    return _decrypt(key, _ZERO_NONCE, sealed[_COMMIT_END:], aad, "sealed part")


def wrap_aad(
    kind: WrapKind,
    *,
    key_id: bytes = ABSENT_KEY_ID,
    ledger_id: UUID,
    subject_ref: bytes = ABSENT_REF,
    purpose: str = "",
    generation: int = 0,
    epoch: int,
) -> bytes:
    """What a wrap is bound to:
    ``0x01 ‖ kind u8 ‖ key_id[32] ‖ ledger_id[16] ‖ subject_ref[16] ‖ len u8 ‖ purpose ‖ generation u32 ‖ epoch u32``.

    Absent fields are zero at their full width. Raises :class:`ValueError` for a field of the wrong size.
    """
    encoded_purpose = purpose.encode()
    if len(key_id) != KEY_ID_SIZE or len(subject_ref) != REF_SIZE or len(encoded_purpose) > 255:
        raise ValueError("a key id has 32 bytes, a subject ref 16, a purpose at most 255")
    return b"".join(
        (
            FORMAT,
            kind.to_bytes(1),
            key_id,
            ledger_id.bytes,
            subject_ref,
            len(encoded_purpose).to_bytes(1),
            encoded_purpose,
            generation.to_bytes(4),
            epoch.to_bytes(4),
        )
    )


def wrap(kek: bytes, plaintext: bytes, aad: bytes, *, _nonce: bytes | None = None) -> bytes:
    """Wrap a key: ``0x01 ‖ nonce[12] ‖ ciphertext ‖ tag[16]``, AES-256-GCM under the epoch's KEK.

    The random nonce allows 2³² wraps under one KEK (NIST SP 800-38D §8.3). ``_nonce`` is for test vectors only.
    """
    _require_key(kek)
    nonce = os.urandom(NONCE_SIZE) if _nonce is None else _nonce
    return FORMAT + nonce + AESGCM(kek).encrypt(nonce, plaintext, aad)


def unwrap(kek: bytes, wrapped: bytes, aad: bytes) -> bytes:
    """Unwrap a key. Raises :class:`NotAuthenticError` when the wrap is not authentic under this KEK and AAD."""
    _require_key(kek)
    _require_format(wrapped, 1 + NONCE_SIZE + TAG_SIZE, "wrap")
    return _decrypt(kek, wrapped[1 : 1 + NONCE_SIZE], wrapped[1 + NONCE_SIZE :], aad, "wrap")


def name_hash(name_key: bytes, kind: str, name: str) -> bytes:
    """HMAC-SHA256(name key, kind ‖ 0x00 ‖ name): 32 bytes that stand for a name, in the vault only.

    ``kind`` is ``"subject"`` or ``"stream"``; ``name`` is taken as it is (the caller has it in NFC).
    """
    return hmac.digest(name_key, kind.encode() + b"\x00" + name.encode(), "sha256")


def seal_refs(
    link_key: bytes,
    kind: NameKind,
    ledger_id: UUID,
    digest: bytes,
    link_id: bytes,
    refs: bytes,
    *,
    _nonce: bytes | None = None,
) -> bytes:
    """Seal what a name leads to, in the layout of a wrap: ``0x01 ‖ nonce[12] ‖ ciphertext ‖ tag[16]``, AES-256-GCM
    under HKDF-Expand-SHA256(link key, "audit-ledger v1 name index", 32).

    ``refs``: of a subject its ref, of a stream its own and its owner's. AAD: ``0x01 ‖ kind u8 ‖ ledger_id[16] ‖
    name_hash[32] ‖ link_id[32]``, so that it opens in its own row of the name index and in no other. ``_nonce`` is for
    test vectors only.
    """
    return _seal_refs(_refs_cipher(link_key), kind, ledger_id, digest, link_id, refs, _nonce)


def open_refs(link_key: bytes, kind: NameKind, ledger_id: UUID, digest: bytes, link_id: bytes, sealed: bytes) -> bytes:
    """Open what a name leads to. Raises :class:`NotAuthenticError` when it was not made for this row and key."""
    return _open_refs(_refs_cipher(link_key), kind, ledger_id, digest, link_id, sealed)


def _seal_refs(
    cipher: AESGCM,
    kind: NameKind,
    ledger_id: UUID,
    digest: bytes,
    link_id: bytes,
    refs: bytes,
    fixed_nonce: bytes | None = None,
) -> bytes:
    nonce = os.urandom(NONCE_SIZE) if fixed_nonce is None else fixed_nonce
    return FORMAT + nonce + cipher.encrypt(nonce, refs, _refs_aad(kind, ledger_id, digest, link_id))


def _open_refs(cipher: AESGCM, kind: NameKind, ledger_id: UUID, digest: bytes, link_id: bytes, sealed: bytes) -> bytes:
    _require_format(sealed, 1 + NONCE_SIZE + TAG_SIZE, "row of the name index")
    aad = _refs_aad(kind, ledger_id, digest, link_id)
    try:
        return cipher.decrypt(sealed[1 : 1 + NONCE_SIZE], sealed[1 + NONCE_SIZE :], aad)
    except InvalidTag:
        raise NotAuthenticError("the row of the name index is not authentic") from None


def _refs_cipher(link_key: bytes) -> AESGCM:
    _require_key(link_key)
    return AESGCM(_expand(link_key, b"audit-ledger v1 name index"))


def _refs_aad(kind: NameKind, ledger_id: UUID, digest: bytes, link_id: bytes) -> bytes:
    if len(digest) != NAME_HASH_SIZE or len(link_id) != KEY_ID_SIZE:
        raise NotAuthenticError("a row of the name index has a name hash and a link id of 32 bytes each")
    return FORMAT + kind.to_bytes(1) + ledger_id.bytes + digest + link_id


def derive_event_id(name_key: bytes, label: str, number: int) -> UUID:
    """The UUID version 8 (RFC 9562 §5.8) from the first 16 bytes of
    HMAC-SHA256(name key, "event-id" ‖ 0x00 ‖ label ‖ 0x00 ‖ number u64)."""
    digest = hmac.digest(name_key, b"event-id\x00" + label.encode() + b"\x00" + number.to_bytes(8), "sha256")
    raw = bytearray(digest[:16])
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return UUID(bytes=bytes(raw))


@dataclass(frozen=True, slots=True, eq=False)
class DataKey:
    """An opened DEK. Shows its key id and nothing else, cannot be pickled or copied, and is meant to be short-lived:
    Python cannot promise to wipe it from memory."""

    _dek: bytes = field(repr=False)
    key_id: bytes
    _part_keys: tuple[bytes, bytes] | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, dek: bytes) -> DataKey:
        """The key with its key id recomputed from it."""
        return cls(dek, key_id_of(dek))

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """See :func:`seal_part`."""
        return _seal(self._part_keys or self._begin_part_keys(), os.urandom(SALT_SIZE), plaintext, aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """See :func:`open_part`."""
        return self.disclose(sealed, aad)[0]

    def disclose(self, sealed: bytes, aad: bytes) -> tuple[bytes, bytes]:
        """See :func:`disclose_part`."""
        return _disclose(self._part_keys or self._begin_part_keys(), sealed, aad)

    def _begin_part_keys(self) -> tuple[bytes, bytes]:
        # A page or a batch has many parts of one key.
        part_keys = _part_keys(self._dek)
        object.__setattr__(self, "_part_keys", part_keys)
        return part_keys

    @override
    def __reduce__(self) -> NoReturn:
        raise TypeError("a data key is never pickled or copied")


@dataclass(frozen=True, slots=True, eq=False)
class NameKey:
    """An opened name key. As short-lived as a data key.

    Holds beside the key what both hashes of HMAC begin with in :func:`name_hash` (RFC 2104 §2), made once for all the
    names of an append: ``hmac`` would take three times as long.
    """

    _key: bytes = field(repr=False)
    _subject: bytes = field(repr=False)
    _stream: bytes = field(repr=False)
    _outer: bytes = field(repr=False)

    @classmethod
    def of(cls, key: bytes) -> NameKey:
        """The key, made ready."""
        inner, outer = _hmac_begun(key)
        return cls(key, inner + b"subject\x00", inner + b"stream\x00", outer)

    def subject_hash(self, name: str) -> bytes:
        """See :func:`name_hash`."""
        return sha256(self._outer + sha256(self._subject + name.encode()).digest()).digest()

    def stream_hash(self, name: str) -> bytes:
        """See :func:`name_hash`."""
        return sha256(self._outer + sha256(self._stream + name.encode()).digest()).digest()

    def event_id(self, label: str, number: int) -> UUID:
        """See :func:`derive_event_id`."""
        return derive_event_id(self._key, label, number)

    @override
    def __reduce__(self) -> NoReturn:
        raise TypeError("a name key is never pickled or copied")


@dataclass(frozen=True, slots=True, eq=False)
class LinkKey:
    """An opened link key: whoever has it gets from the names of one subject to its refs. As short-lived as a data key.

    Holds not the key but the cipher of :func:`seal_refs`, made from it once for all the names of an append; and of a
    few names what they led to, sealed and opened, which ends with it. ``link_id``: its key id, which stands beside the
    names and commits to it.
    """

    key: InitVar[bytes]
    link_id: bytes
    _cipher: AESGCM = field(init=False, repr=False)
    _opened: dict[bytes, tuple[tuple[NameKind, UUID, bytes], bytes]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self, key: bytes) -> None:
        object.__setattr__(self, "_cipher", _refs_cipher(key))

    @classmethod
    def of(cls, key: bytes) -> LinkKey:
        """The key with its link id recomputed from it."""
        return cls(key, key_id_of(key))

    def seal(self, kind: NameKind, ledger_id: UUID, digest: bytes, refs: bytes) -> bytes:
        """See :func:`seal_refs`."""
        return _seal_refs(self._cipher, kind, ledger_id, digest, self.link_id, refs)

    def open(self, kind: NameKind, ledger_id: UUID, digest: bytes, sealed: bytes) -> bytes:
        """See :func:`open_refs`. What was opened once is known for these very bytes in this very row."""
        row = (kind, ledger_id, digest)
        known = self._opened.get(sealed)
        if known is not None and known[0] == row:
            return known[1]
        refs = _open_refs(self._cipher, kind, ledger_id, digest, self.link_id, sealed)
        if len(self._opened) < _OPENED_NAMES:
            self._opened[sealed] = (row, refs)
        return refs

    @override
    def __reduce__(self) -> NoReturn:
        raise TypeError("a link key is never pickled or copied")


def seal_document(
    ledger_key: DataKey, keys: Sequence[DataKey], plaintext: bytes, aad: bytes, *, _salt: bytes | None = None
) -> bytes:
    """Seal a derived document: ``0x01 ‖ salt[16] ‖ ciphertext ‖ tag[16]``, AES-256-GCM under a single-use key made from
    the ledger's own key and *all* of ``keys``, so that it dies with any one of them.

    ``keys`` distinct, in order of key_id. ``_salt`` is for test vectors only.
    """
    salt = os.urandom(SALT_SIZE) if _salt is None else _salt
    return FORMAT + salt + AESGCM(_document_key(ledger_key, keys, salt)).encrypt(_ZERO_NONCE, plaintext, aad)


def open_document(ledger_key: DataKey, keys: Sequence[DataKey], sealed: bytes, aad: bytes) -> bytes:
    """Open a derived document. Raises :class:`NotAuthenticError` when it is not authentic under these keys and AAD."""
    _require_format(sealed, 1 + SALT_SIZE + TAG_SIZE, "document")
    salt = sealed[1 : 1 + SALT_SIZE]
    return _decrypt(_document_key(ledger_key, keys, salt), _ZERO_NONCE, sealed[1 + SALT_SIZE :], aad, "document")


def _document_key(ledger_key: DataKey, keys: Sequence[DataKey], salt: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869): PRK = Extract("audit-ledger v1 derived", ledger DEK ‖ the DEKs), K = Expand(PRK,
    "audit-ledger v1 document" ‖ salt, 32)."""
    ids = [key.key_id for key in keys]
    if ids != sorted(set(ids)):
        raise ValueError("the keys of a document are distinct and in order of their key ids")
    material = b"".join(key._dek for key in (ledger_key, *keys))
    extracted = hmac.digest(b"audit-ledger v1 derived", material, "sha256")
    info = b"audit-ledger v1 document" + salt
    return HKDFExpand(algorithm=SHA256(), length=KEY_SIZE, info=info).derive(extracted)


def _expand(key: bytes, label: bytes) -> bytes:
    """HKDF-Expand-SHA256(key, label, 32): one block (RFC 5869 §2.3). Every append needs a few of these, and this way
    each takes a microsecond or two."""
    return hmac.digest(key, label + b"\x01", "sha256")


def _commit(key: bytes) -> bytes:
    return sha256(b"audit-ledger v1 commit" + key).digest()


def _decrypt(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes, what: str) -> bytes:
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, aad)
    except InvalidTag:
        raise NotAuthenticError(f"the {what} is not authentic") from None


def _require_key(key: bytes) -> None:
    if len(key) != KEY_SIZE:
        raise ValueError("a key has exactly 32 bytes")


def _require_part(sealed: bytes) -> None:
    if sealed[:1] != FORMAT or len(sealed) < _LEAST_PART_SIZE:
        _require_format(sealed, _LEAST_PART_SIZE, "sealed part")


def _require_format(blob: bytes, least: int, what: str) -> None:
    if blob[:1] != FORMAT:
        raise UnknownFormatError(f"the {what} has a layout that this version does not know")
    if len(blob) < least:
        raise NotAuthenticError(f"the {what} is cut short")
