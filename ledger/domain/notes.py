"""Signed notes and verifier keys, to the byte as https://c2sp.org/signed-note and /tlog-cosignature have them.

What is read here comes from outside: whatever the specifications do not allow is refused, and of two texts for the same
thing (base64 with stray bits, say) only one is taken.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from typing_extensions import override

from ledger.errors import IntegrityError

ED25519: Final = 1
"""The signature type of a log's own signature."""

COSIGNATURE: Final = 4
"""The signature type of a witness: a time, and Ed25519 over it and the note's text."""

NOTE_BYTES: Final = 128 * 1024
"""A note is at most so long: sixteen signatures of five kilobytes, as others may have them, fit."""

MOST_SIGNATURES: Final = 64
LATEST_TIMESTAMP: Final = 2**63 - 1

Verify = Callable[[bytes, bytes, bytes], None]
"""Called with (public key, signature, message); raises ``ValueError`` unless the signature is good."""

_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_KEY_ID_BYTES: Final = 4
_TIME_BYTES: Final = 8
_DASH: Final = "— "
_KEY_ID: Final = re.compile(r"[0-9a-f]{8}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NoteError(IntegrityError):
    """A note, a key or a proof cannot be read, or does not verify."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name. ``kind``: ``ED25519`` or ``COSIGNATURE``; ``public_key``: 32 bytes."""

    name: str
    kind: int
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes that stand for the key in a signature line. Not a hash to rely on."""
        return sha256(self.name.encode() + b"\n" + bytes((self.kind,)) + self.public_key).digest()[:_KEY_ID_BYTES]

    @property
    def text(self) -> str:
        """The key as it is handed on ("vkey")."""
        return f"{self.name}+{self.key_id.hex()}+{to_base64(bytes((self.kind,)) + self.public_key)}"


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line, taken apart. ``signature``: what stands behind the key id."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """As it stands in a note, with its newline."""
        return f"{_DASH}{self.name} {to_base64(self.key_id + self.signature)}\n"

    def is_by(self, key: VerifierKey) -> bool:
        """Whether it says that it is by this key."""
        return self.name == key.name and self.key_id == key.key_id


@dataclass(frozen=True, slots=True)
class Note:
    """A text with its signatures. ``text`` ends with a newline."""

    text: str
    signatures: tuple[NoteSignature, ...]

    @override
    def __str__(self) -> str:
        """The whole note, as it is sent."""
        return f"{self.text}\n{''.join(signature.line for signature in self.signatures)}"


def is_key_name(name: str) -> bool:
    """Whether a key can have this name: not empty, no white space, no plus, no control characters."""
    return bool(name) and "+" not in name and not any(char.isspace() or char < " " for char in name)


def parse_verifier_key(text: str) -> VerifierKey:
    """Read a vkey. Raises ``NoteError``."""
    name, key_id, encoded = [*text.split("+", 2), "", ""][:3]
    if not is_key_name(name) or _KEY_ID.fullmatch(key_id) is None:
        raise NoteError("this is not a verifier key: it has the form NAME+8 hexadecimal digits+base64")
    material = from_base64(encoded)
    if len(material) != 1 + _KEY_BYTES or material[0] not in (ED25519, COSIGNATURE):
        raise NoteError("the verifier key is of a type that is not supported; supported is Ed25519 (types 1 and 4)")
    key = VerifierKey(name, material[0], material[1:])
    if key.key_id.hex() != key_id:
        raise NoteError("the verifier key was mistyped: its parts do not belong together")
    return key


def parse_note(raw: str) -> Note:
    """Read a note. Nothing in it is to be believed before it is verified. Raises ``NoteError``."""
    if len(raw) > NOTE_BYTES:
        raise NoteError("the note is too long")
    text, blank, lines = raw.rpartition("\n\n")
    if not blank or not lines:
        raise NoteError("this is not a signed note: no blank line with signatures behind it")
    if _CONTROL.search(raw) is not None:
        raise NoteError("the note has control characters")
    return Note(f"{text}\n", parse_signature_lines(lines))


def parse_signature_lines(raw: str) -> tuple[NoteSignature, ...]:
    """Read signature lines, at least one. Raises ``NoteError``."""
    lines = raw.split("\n")
    if lines.pop() or not lines:
        raise NoteError("the last signature line does not end")
    if len(lines) > MOST_SIGNATURES:
        raise NoteError("there are too many signatures")
    return tuple(_parse_signature(line) for line in lines)


def _parse_signature(line: str) -> NoteSignature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not is_key_name(name):
        raise NoteError("a signature line does not have the form «— NAME base64»")
    signed = from_base64(encoded)
    if len(signed) <= _KEY_ID_BYTES:
        raise NoteError("a signature line holds no signature")
    return NoteSignature(name, signed[:_KEY_ID_BYTES], signed[_KEY_ID_BYTES:])


def signed_note(text: str, key: VerifierKey, signature: bytes) -> Note:
    """A note with a first signature (64 bytes, over the text) by this key."""
    return Note(text, (NoteSignature(key.name, key.key_id, signature),))


def verify_note(note: Note, key: VerifierKey, verify: Verify) -> None:
    """Raise ``NoteError`` unless the note is signed by this key. Signatures by others are not looked at."""
    if key.kind != ED25519:
        raise NoteError("this verifier key is a witness's, and not a log's")
    for signature in _by(note, key):
        _check(key, signature.signature, note.text.encode(), verify)


def verify_cosignature(note: Note, key: VerifierKey, verify: Verify) -> int:
    """Raise ``NoteError`` unless the note is cosigned by this witness; gives when, in POSIX seconds: of several
    cosignatures the last one."""
    if key.kind != COSIGNATURE:
        raise NoteError("this verifier key is a log's, and not a witness's")
    times = []
    for signature in _by(note, key):
        timestamp = int.from_bytes(signature.signature[:_TIME_BYTES], "big")
        # Zero stands for "no time", which is no statement about the newest checkpoint.
        if not 0 < timestamp <= LATEST_TIMESTAMP:
            raise NoteError("the time of a cosignature is out of range")
        _check(key, signature.signature[_TIME_BYTES:], cosigned_message(note.text, timestamp), verify)
        times.append(timestamp)
    return max(times)


def _by(note: Note, key: VerifierKey) -> Sequence[NoteSignature]:
    found = [signature for signature in note.signatures if signature.is_by(key)]
    if not found:
        raise NoteError(f"the note has no signature by {key.name} ({key.key_id.hex()})")
    return found


def _check(key: VerifierKey, signature: bytes, message: bytes, verify: Verify) -> None:
    if len(signature) != _SIGNATURE_BYTES:
        raise NoteError(f"the signature by {key.name} has another length than such signatures have")
    try:
        verify(key.public_key, signature, message)
    except ValueError:
        raise NoteError(f"the signature by {key.name} does not verify") from None


def cosigned_message(text: str, timestamp: int) -> bytes:
    """What a witness signs: that it saw this text at this time (POSIX seconds)."""
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


def cosignature(key: VerifierKey, timestamp: int, signature: bytes) -> NoteSignature:
    """The signature line's content of a witness. ``signature``: 64 bytes, over ``cosigned_message``."""
    return NoteSignature(key.name, key.key_id, timestamp.to_bytes(_TIME_BYTES, "big") + signature)


def to_base64(value: bytes) -> str:
    """Standard base64 (RFC 4648 §4)."""
    return base64.b64encode(value).decode()


def from_base64(text: str) -> bytes:
    """The inverse; only the one text that ``to_base64`` gives is taken. Raises ``NoteError``."""
    try:
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        value = None
    if value is None or to_base64(value) != text:
        raise NoteError("something that should be base64 is not")
    return value
