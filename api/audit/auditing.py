"""The audit: what the server shows now against what the auditor has seen of this log before.

1. The checkpoint is signed by the ledger's key, and is one of this log.
2. It is not smaller than one that was seen before (a rollback), and of the same size it has the same root (a fork).
3. Enough witnesses have cosigned it, where a policy asks for that.
4. All hashes of the tree are fetched from where the last audit ended; with those from before, they give its root. So it
   has the earlier tree as its beginning; where it has not, it is found out whose fault that is (a fork, or tiles that
   are not those of the checkpoint).
5. With entries: every leaf is the one that the tree has, can be read, and fits to those before it (``LeafTrail``).

A contradiction is kept as evidence before it is told. What was kept from before stays as it is then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.audit.fetching import AuditError, LogClient
from api.audit.memory import EVIDENCE_FOLDER, Memory, MemoryFolder, Track
from api.evidence import keep_evidence
from keyvault.signatures import verify_ed25519
from ledger.domain.checkpoints import Checkpoint, TlogProof, open_checkpoint
from ledger.domain.leaf_trail import LeafTrail, TrailError
from ledger.domain.merkle import ProofError, extend_frontier, hash_leaf, verify_consistency, verify_inclusion
from ledger.domain.notes import NoteError, VerifierKey, parse_note, to_base64
from ledger.domain.tiles import TILE_WIDTH, Tile, consistency_proof, inclusion_proof, root_from_tiles, split_hashes
from ledger.domain.times import format_time
from ledger.domain.witness_policy import QuorumError, WitnessPolicy, require_quorum
from ledger.errors import IntegrityError

SAVE_EVERY: Final = 64
"""Tiles after which it is noted how far the audit is, so that an interrupted one goes on from there."""

Progress = Callable[[int, int], None]
"""Told how many leaves of how many were looked at."""


class FindingError(IntegrityError):
    """The log contradicts itself. ``kind``: a word; ``evidence``: the file that shows it."""

    def __init__(self, kind: str, detail: str, evidence: Path) -> None:
        super().__init__(detail)
        self.kind = kind
        self.evidence = evidence


@dataclass(frozen=True, slots=True)
class Audited:
    """What holds. ``before``: the size that was known before; ``entries``: leaves that were followed, over all time."""

    checkpoint: Checkpoint
    before: int
    entries: int


class Audit:
    """One audit of one log. ``now``: microseconds since 1970 UTC, for the evidence."""

    def __init__(
        self,
        log: LogClient,
        folder: MemoryFolder,
        key: VerifierKey,
        policy: WitnessPolicy | None,
        *,
        now: int,
        progress: Progress,
    ) -> None:
        self._log = log
        self._folder = folder
        self._key = key
        self._policy = policy
        self._now = now
        self._progress = progress
        self._memory = Memory(key)

    def run(self, *, entries: bool) -> Audited:
        """All checks. Raises :class:`FindingError`, and ``AuditError`` when the audit cannot be done."""
        self._memory = self._folder.load(self._key)
        before = self._memory.verified.size
        note = self._log.checkpoint()
        checkpoint = self._opened(note)
        self._compare(note, checkpoint)
        self._require_quorum(note)
        # One that an interrupted audit has seen, and not looked into, is not forgotten.
        earlier, self._memory.pending = self._memory.pending, note
        for target in [one for one in (earlier, note) if one is not None]:
            self._compute_tree(target)
        self._memory.pending = None
        self._save()
        if entries:
            self._follow_entries(checkpoint)
        return Audited(checkpoint, before, self._memory.entries.size)

    def _opened(self, note: str) -> Checkpoint:
        """Check 1."""
        try:
            return open_checkpoint(note, self._key, verify_ed25519)
        except NoteError as error:
            raise AuditError(f"the checkpoint does not count: {error.detail}") from None

    def _compare(self, note: str, checkpoint: Checkpoint) -> None:
        """Check 2."""
        for known in (self._memory.pending, self._memory.checkpoint):
            if known is None:
                continue
            seen = self._opened(known)
            if checkpoint.size < seen.size:
                detail = f"the log had {seen.size} events, and shows a checkpoint of {checkpoint.size} now"
                raise self._finding("rollback", checkpoint, detail, _notes(known, note))
            if checkpoint.size == seen.size and checkpoint.root != seen.root:
                detail = f"the log has signed two different trees of {seen.size} events"
                raise self._finding("fork", checkpoint, detail, _notes(known, note))

    def _require_quorum(self, note: str) -> None:
        """Check 3."""
        if self._policy is None:
            return
        try:
            require_quorum(self._policy, parse_note(note), verify_ed25519)
        except (QuorumError, NoteError) as error:
            raise AuditError(f"the checkpoint does not count: {error.detail}") from None

    def _compute_tree(self, note: str) -> None:
        """Check 4."""
        memory, target = self._memory, self._opened(note)
        # What was computed beyond it, for another checkpoint, does not show this one.
        if memory.progress.size > target.size or memory.progress.size < memory.verified.size:
            memory.progress = memory.verified
        self._save()
        for number, tile in enumerate(_tiles_between(memory.progress.size, target.size), 1):
            hashes = split_hashes(self._log.hashes(tile))[memory.progress.size - tile.first :]
            memory.progress = Track(*extend_frontier(memory.progress.size, memory.progress.frontier, hashes))
            self._progress(memory.progress.size, target.size)
            if number % SAVE_EVERY == 0:
                self._save()
        if memory.progress.root != target.root:
            served = memory.progress.root
            memory.progress = memory.verified
            self._save()
            raise self._what_contradicts(note, target, served)
        memory.checkpoint, memory.verified = note, memory.progress
        self._save()

    def _what_contradicts(self, note: str, target: Checkpoint, served: bytes) -> FindingError:
        """The fetched hashes do not give the root, but ``served``. Either they are not those of the checkpoint, or its
        tree is not the one that begins with what was seen."""
        known = self._memory.verified
        try:
            if root_from_tiles(self._log.read, target.size) != target.root:
                raise ProofError("they lead to another root")
            if known.size:
                proof = consistency_proof(self._log.read, known.size, target.size)
                other = root_from_tiles(self._log.read, known.size)
                verify_consistency(
                    old_size=known.size,
                    new_size=target.size,
                    old_root=other,
                    new_root=target.root,
                    proof=proof,
                )
                if other != known.root and self._memory.checkpoint is not None:
                    detail = (
                        f"the tree of {target.size} events does not begin with the {known.size} that were seen before"
                    )
                    shown = [f"Its first {known.size} events have the root {to_base64(other)}. Proof of consistency:"]
                    text = "\n".join([*shown, *map(to_base64, proof), "", _notes(self._memory.checkpoint, note)])
                    return self._finding("fork", target, detail, text)
        except (IntegrityError, AuditError) as error:
            why = error.detail
        else:
            why = "those of level 0 are not those of the levels above"
        detail = f"the tiles are not those of the checkpoint of {target.size} events: {why}"
        text = f"With what was seen before, the hashes of level 0 that are served give the root {to_base64(served)}."
        return self._finding("tiles", target, detail, f"{text}\n\n{_notes(self._memory.checkpoint or 'nothing', note)}")

    def _follow_entries(self, target: Checkpoint) -> None:
        """Check 5."""
        memory, dead = self._memory, list[bytes]()
        for number, tile in enumerate(_tiles_between(memory.entries.size, target.size), 1):
            skip = memory.entries.size - tile.first
            hashes = split_hashes(self._log.hashes(tile))[skip:]
            leaves = self._log.entries(tile)[skip:]
            for leaf, expected in zip(leaves, hashes, strict=True):
                dead += self._follow(leaf, expected, target)
            memory.entries = Track(*extend_frontier(memory.entries.size, memory.entries.frontier, hashes))
            self._progress(memory.entries.size, target.size)
            if number % SAVE_EVERY == 0:
                self._save(dead)
                dead.clear()
        if memory.entries.root != target.root:
            # Some of them were false, and nobody knows which: the next audit reads all of them again.
            memory.entries, memory.trail = Track(), LeafTrail()
            self._folder.forget_keys()
            self._save()
            detail = "the entries are not those of the checkpoint, and neither are the hashes that were served for them"
            raise self._finding("entries", target, detail, self._memory.checkpoint or "")
        self._save(dead)

    def _follow(self, leaf: bytes, expected: bytes, target: Checkpoint) -> list[bytes]:
        position = self._memory.trail.size
        try:
            if hash_leaf(leaf) != expected:
                raise TrailError(position, "is not the one that the tree has")
            return self._memory.trail.follow(leaf)
        except TrailError as error:
            text = f"The leaf: {to_base64(leaf)}\nIts hash in the tree: {to_base64(expected)}\n"
            kind = f"entry-{error.position}"
            raise self._finding(kind, target, error.detail, text + self._proof_of(position, leaf, target)) from None

    def _proof_of(self, position: int, leaf: bytes, target: Checkpoint) -> str:
        """That a leaf which should not be there is recorded: then it is no fault of who serves it."""
        note = self._memory.checkpoint or ""
        try:
            hashes = inclusion_proof(self._log.read, position, target.size)
            verify_inclusion(
                index=position, size=target.size, leaf_hash=hash_leaf(leaf), proof=hashes, root=target.root
            )
        except (IntegrityError, AuditError):
            return f"It is not shown that this leaf is in the tree of this checkpoint:\n\n{note}"
        return f"That this leaf is in the tree:\n\n{TlogProof(position, tuple(hashes), note, leaf)}"

    def _save(self, dead: list[bytes] | None = None) -> None:
        self._folder.save(self._memory, dead or [])

    def _finding(self, kind: str, checkpoint: Checkpoint, detail: str, text: str) -> FindingError:
        name = f"{checkpoint.size}-{checkpoint.root.hex()}"
        head = f"{self._key.text}\n{format_time(self._now)}: {kind}: {detail}.\n\n"
        path = keep_evidence(self._folder.folder / EVIDENCE_FOLDER, kind, name, head + text)
        return FindingError(kind, detail, path)


def _tiles_between(old: int, new: int) -> list[Tile]:
    """The tiles of level 0 that hold the leaves from ``old`` on, in a tree of ``new`` leaves."""
    numbers = range(old // TILE_WIDTH, -(-new // TILE_WIDTH)) if new > old else range(0)
    return [Tile(0, number, min(TILE_WIDTH, new - number * TILE_WIDTH)) for number in numbers]


def _notes(before: str, now: str) -> str:
    return f"Seen before:\n\n{before}\nShown now:\n\n{now}"
