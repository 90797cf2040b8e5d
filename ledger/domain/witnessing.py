"""What a witness does, as a decision: https://c2sp.org/tlog-witness without the HTTP, the clock and the disk.

A witness keeps one thing for each log: the size and root of the last checkpoint that it cosigned. It cosigns another
only if that one is proven to begin with the tree that it knows. So of a log that shows different histories to different
people, it can only ever have cosigned one.

The checks, in the order in which they decide (numbered again where they are made):

1. the body can be read (400);
2. the origin is known (404);
3. a trusted key has signed the checkpoint, and no signature that says to be by a trusted key is false (403);
4. the old size is not above the new one (400);
5. the old size is the one that was cosigned last (409, with that size);
6. the new tree begins with the old one (422).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from ledger.domain.checkpoints import PROOF_HASHES, Checkpoint, parse_checkpoint, parse_hash, parse_size
from ledger.domain.merkle import EMPTY_ROOT, ProofError, verify_consistency
from ledger.domain.notes import Note, NoteError, VerifierKey, Verify, parse_note, to_base64, verify_note
from ledger.errors import LedgerError

SIZE_TYPE: Final = "text/x.tlog.size"
"""The media type of a size, the answer to an old size that is not the witness's."""

BODY_BYTES: Final = 192 * 1024
"""A body is at most so long: 63 hashes, and a note of 128 KiB."""

_OLD: Final = "old "


class RefusalError(LedgerError):
    """The witness does not cosign. ``status``: the HTTP status that says why; ``size``: with 409 the size that was
    cosigned last."""

    def __init__(self, status: HTTPStatus, detail: str, size: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.size = size


@dataclass(frozen=True, slots=True)
class Seen:
    """What a witness keeps of a log: the last tree that it cosigned."""

    size: int
    root: bytes


NOTHING_SEEN: Final = Seen(0, EMPTY_ROOT)
"""A log that the witness has not cosigned anything of."""


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request to cosign. ``proof``: from the tree of ``old`` leaves to that of the checkpoint, which is not to be
    believed before ``decide``."""

    old: int
    proof: tuple[bytes, ...]
    note: Note
    checkpoint: Checkpoint


def format_add_checkpoint(old: int, proof: Sequence[bytes], note: str) -> bytes:
    """The body of a request."""
    return "".join([f"{_OLD}{old}\n", *(f"{to_base64(node)}\n" for node in proof), "\n", note]).encode()


def parse_add_checkpoint(body: bytes) -> AddCheckpoint:
    """Check 1. Raises ``RefusalError``."""
    try:
        head, blank, raw = body.decode().partition("\n\n")
        first, *lines = head.split("\n")
        if not blank or not first.startswith(_OLD):
            raise NoteError("the body must be «old SIZE», the lines of the proof, an empty line, and the checkpoint")
        if len(lines) > PROOF_HASHES:
            raise NoteError(f"there are more than {PROOF_HASHES} lines of proof")
        note = parse_note(raw)
        proof = tuple(parse_hash(line) for line in lines)
        return AddCheckpoint(parse_size(first.removeprefix(_OLD)), proof, note, parse_checkpoint(note.text))
    except UnicodeDecodeError:
        raise RefusalError(HTTPStatus.BAD_REQUEST, "the body is not UTF-8") from None
    except NoteError as error:
        raise RefusalError(HTTPStatus.BAD_REQUEST, error.detail) from None


def check_signatures(request: AddCheckpoint, trusted: Collection[VerifierKey], verify: Verify) -> Note:
    """Checks 2 and 3, which need nothing of what the witness has seen. ``trusted``: the keys for this origin.

    Gives the note with only the signatures that were verified. Raises ``RefusalError``.
    """
    if not trusted:
        raise RefusalError(HTTPStatus.NOT_FOUND, "the origin of the checkpoint is not known here")
    verified = []
    for signature in request.note.signatures:
        for key in trusted:
            if signature.is_by(key):
                try:
                    verify_note(Note(request.note.text, (signature,)), key, verify)
                except NoteError as error:
                    raise RefusalError(HTTPStatus.FORBIDDEN, error.detail) from None
                verified.append(signature)
    if not verified:
        raise RefusalError(HTTPStatus.FORBIDDEN, "the checkpoint is not signed by a key that is trusted for its origin")
    return Note(request.note.text, tuple(verified))


def decide(seen: Seen, request: AddCheckpoint) -> Seen:
    """Checks 4 to 6: what the witness has seen once it has cosigned. Raises ``RefusalError``.

    The answer holds only as long as ``seen`` is what the witness keeps: keep the new one in the same transaction.
    """
    checkpoint = request.checkpoint
    if request.old > checkpoint.size:
        raise RefusalError(HTTPStatus.BAD_REQUEST, "the old size is above that of the checkpoint")
    if request.old != seen.size:
        raise RefusalError(HTTPStatus.CONFLICT, "another size was cosigned last", seen.size)
    try:
        _check_consistency(seen, checkpoint, request.proof)
    except ProofError as error:
        raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, error.detail) from None
    return Seen(checkpoint.size, checkpoint.root)


def _check_consistency(seen: Seen, checkpoint: Checkpoint, proof: Sequence[bytes]) -> None:
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise ProofError("the empty tree has another root")
    if seen.size == 0:
        if proof:
            raise ProofError("a proof from the empty tree must be empty")
        return
    verify_consistency(
        old_size=seen.size,
        new_size=checkpoint.size,
        old_root=seen.root,
        new_root=checkpoint.root,
        proof=proof,
    )
