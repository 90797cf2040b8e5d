"""Checkpoints and proofs as files: https://c2sp.org/tlog-checkpoint and https://c2sp.org/tlog-proof."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from ledger.domain.merkle import HASH_BYTES, TREE_SIZES
from ledger.domain.notes import NoteError, VerifierKey, Verify, from_base64, parse_note, to_base64, verify_note

PROOF_HASHES: Final = 63
"""An inclusion or consistency proof has at most so many hashes."""

PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"

_EXTRA: Final = "extra "
_INDEX: Final = "index "
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_FIXED_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The statement «the log of this name has so many leaves and this root». Worth something only when signed.

    ``extensions``: further lines, which our own checkpoints do not have.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The text of the note."""
        return "".join(f"{line}\n" for line in (self.origin, self.size, to_base64(self.root), *self.extensions))


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the text of a note. Raises ``NoteError``."""
    lines = text.split("\n")
    if lines.pop() or len(lines) < _FIXED_LINES or not all(lines):
        raise NoteError("the note is not a checkpoint: it has fewer than three lines, or an empty one")
    root = parse_hash(lines[2])
    return Checkpoint(lines[0], parse_size(lines[1]), root, tuple(lines[_FIXED_LINES:]))


def open_checkpoint(raw: str, key: VerifierKey, verify: Verify) -> Checkpoint:
    """The checkpoint of a note that this log has signed. Raises ``NoteError``."""
    note = parse_note(raw)
    verify_note(note, key, verify)
    checkpoint = parse_checkpoint(note.text)
    if checkpoint.origin != key.name:
        raise NoteError(f"the checkpoint is of another log than {key.name}")
    return checkpoint


def parse_size(text: str) -> int:
    """The size of a tree, or an index in it. Raises ``NoteError``."""
    if _NUMBER.fullmatch(text) is None or int(text) >= TREE_SIZES:
        raise NoteError("something that should be the size of a tree, or an index in it, is not")
    return int(text)


def parse_hash(text: str) -> bytes:
    """A hash in base64. Raises ``NoteError``."""
    value = from_base64(text)
    if len(value) != HASH_BYTES:
        raise NoteError("something that should be a SHA-256 hash has another length")
    return value


@dataclass(frozen=True, slots=True)
class TlogProof:
    """That the leaf at ``index`` stands in the tree of a checkpoint, which comes along as the whole note.

    ``hashes``: the inclusion proof, from the leaf's sibling up. ``extra``: what is needed to have the leaf; nothing
    vouches for it until its hash has been proven.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None

    @override
    def __str__(self) -> str:
        """The file ``.tlog-proof``."""
        extra = [] if self.extra is None else [f"{_EXTRA}{to_base64(self.extra)}"]
        lines = [PROOF_HEADER, *extra, f"{_INDEX}{self.index}", *(to_base64(node) for node in self.hashes), ""]
        return "".join(f"{line}\n" for line in lines) + self.checkpoint


def parse_tlog_proof(raw: str) -> TlogProof:
    """Read a file ``.tlog-proof``. Nothing in it is to be believed before it is verified. Raises ``NoteError``."""
    head, blank, checkpoint = raw.partition("\n\n")
    lines = head.split("\n")
    if not blank or lines.pop(0) != PROOF_HEADER:
        raise NoteError(f"this is not a proof: it does not begin with {PROOF_HEADER}")
    extra = None
    if lines and lines[0].startswith(_EXTRA):
        extra = from_base64(lines.pop(0).removeprefix(_EXTRA))
    if not lines or not lines[0].startswith(_INDEX):
        raise NoteError("the proof does not say which index it is of")
    index = parse_size(lines.pop(0).removeprefix(_INDEX))
    if len(lines) > PROOF_HASHES:
        raise NoteError("the proof has more hashes than a tree can be high")
    return TlogProof(index, tuple(parse_hash(line) for line in lines), checkpoint, extra)
