"""The audit: what the server shows now against what the auditor has seen of this log before.

1. The checkpoint is signed by the ledger's key, and is one of this log. From here on it is never forgotten before check
   4 has shown that it is of the same history as all others: an interruption or a server that answers no more must not
   hide which tree was signed.
2. It is not smaller than one that was seen before (a rollback), and of the same size it has the same root (a fork).
3. Enough witnesses have cosigned it, where a policy asks for that.
4. All hashes of the tree are fetched from where the last audit ended; with those from before, they give its root. So it
   has the earlier tree as its beginning; where it has not, it is found out whose fault that is (a fork, or tiles that
   are not those of the checkpoint).
5. With entries: every leaf is the one that the tree has, can be read, and fits to those before it (``LeafTrail``).

A contradiction is kept as evidence before it is told. What was kept from before stays as it is then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.audit.fetching import AuditError, LogClient
from api.audit.memory import EVIDENCE_FOLDER, Memory, MemoryFolder, Track
from api.evidence import keep_evidence
from keyvault.signatures import verify_ed25519
from ledger.domain.checkpoints import Checkpoint, TlogProof, open_checkpoint
from ledger.domain.leaf_trail import TrailError
from ledger.domain.merkle import (
    EMPTY_ROOT,
    ProofError,
    extend_frontier,
    hash_leaf,
    verify_consistency,
    verify_inclusion,
)
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
        known = self._remember(note, checkpoint)
        self._compare(note, checkpoint, known)
        self._require_quorum(note)
        for target in sorted(self._memory.pending, key=lambda one: self._opened(one).size):
            self._compute_tree(target)
        if entries:
            self._follow_entries(checkpoint)
        return Audited(checkpoint, before, self._memory.entries.size)

    def _opened(self, note: str) -> Checkpoint:
        """Check 1."""
        try:
            return open_checkpoint(note, self._key, verify_ed25519)
        except NoteError as error:
            raise AuditError(f"the checkpoint does not count: {error.detail}") from None

    def _remember(self, note: str, checkpoint: Checkpoint) -> list[str]:
        """Keep a checkpoint before anything can go wrong with it; gives those that were known before."""
        memory = self._memory
        known = [one for one in (memory.checkpoint, *memory.pending) if one is not None]
        # The same one again may bear more cosignatures.
        others = [one for one in memory.pending if not _is_same(self._opened(one), checkpoint)]
        memory.pending = [*others, note]
        self._save()
        return known

    def _compare(self, note: str, checkpoint: Checkpoint, known: list[str]) -> None:
        """Check 2, also of those that were known before: a finding stays."""
        first: dict[int, str] = {}
        for one in (*known, note):
            seen = self._opened(one)
            before = first.setdefault(seen.size, one)
            if self._opened(before).root != seen.root:
                detail = f"the log has signed two different trees of {seen.size} events"
                raise self._finding("fork", seen, detail, _notes(before, one))
        largest = max(first)
        if checkpoint.size < largest:
            detail = f"the log had {largest} events, and shows a checkpoint of {checkpoint.size} now"
            raise self._finding("rollback", checkpoint, detail, _notes(first[largest], note))

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
        if target.size < memory.verified.size:
            self._check_beginning(note, target)
        else:
            self._extend_tree(note, target)
            memory.checkpoint, memory.verified = note, memory.progress
        memory.pending.remove(note)
        self._save()

    def _extend_tree(self, note: str, target: Checkpoint) -> None:
        memory = self._memory
        # What was computed beyond it, for another checkpoint, does not show this one.
        if memory.progress.size > target.size or memory.progress.size < memory.verified.size:
            memory.progress = memory.verified
        for number, tile in enumerate(_tiles_between(memory.progress.size, target.size), 1):
            hashes = split_hashes(self._log.hashes(tile))[memory.progress.size - tile.first :]
            memory.progress = Track(*extend_frontier(memory.progress.size, memory.progress.frontier, hashes))
            self._progress(memory.progress.size, target.size)
            if number % SAVE_EVERY == 0:
                self._save()
        if memory.progress.root != target.root:
            served = to_base64(memory.progress.root)
            memory.progress = memory.verified
            self._save()
            text = f"With what was seen before, the hashes of level 0 that are served give the root {served}."
            raise self._what_contradicts(note, target, text)

    def _check_beginning(self, note: str, target: Checkpoint) -> None:
        """Of a smaller checkpoint: a rollback when it was shown, which may be of another history besides."""
        try:
            if target.size or target.root != EMPTY_ROOT:
                seen = self._seen(self._memory.verified)
                _require_beginning(target, seen, consistency_proof(self._log.read, target.size, seen.size))
        except IntegrityError as error:
            text = f"That it is the beginning of what was seen is not shown: {error.detail}."
            raise self._what_contradicts(note, target, text) from None

    def _seen(self, track: Track) -> Checkpoint:
        return Checkpoint(self._key.name, track.size, track.root)

    def _what_contradicts(self, note: str, target: Checkpoint, text: str) -> FindingError:
        """A checkpoint does not fit to the tree that was seen before. Either the tiles are not those of the larger one,
        or its tree is not the one that begins with the smaller one. ``text``: what was found."""
        memory = self._memory
        notes = _notes(memory.checkpoint or "nothing", note)
        if not target.size:
            return self._finding("fork", target, "the log has signed a tree without events and with a root", notes)
        small, large = sorted((self._seen(memory.verified), target), key=lambda one: one.size)
        try:
            if root_from_tiles(self._log.read, large.size) != large.root:
                raise ProofError("they lead to another root")
            if small.size:
                proof = consistency_proof(self._log.read, small.size, large.size)
                other = root_from_tiles(self._log.read, small.size)
                _require_beginning(Checkpoint(small.origin, small.size, other), large, proof)
                if other != small.root:
                    detail = f"the tree of {large.size} events does not begin with the {small.size} that were shown"
                    shown = [f"Its first {small.size} events have the root {to_base64(other)}. Proof of consistency:"]
                    return self._finding("fork", target, detail, "\n".join([*shown, *map(to_base64, proof), "", notes]))
        except (IntegrityError, AuditError) as error:
            why = error.detail
        else:
            why = "those of level 0 are not those of the levels above"
        detail = f"the tiles are not those of the checkpoint of {large.size} events: {why}"
        return self._finding("tiles", target, detail, f"{text}\n\n{notes}")

    def _follow_entries(self, target: Checkpoint) -> None:
        """Check 5. What is kept of it is shown to be in the tree first: else false leaves, in an audit that was
        interrupted, would stand against the true ones in the next."""
        memory, dead = self._memory, list[bytes]()
        for number, tile in enumerate(_tiles_between(memory.entries.size, target.size), 1):
            skip = memory.entries.size - tile.first
            hashes = split_hashes(self._log.hashes(tile))[skip:]
            leaves = self._log.entries(tile)[skip:]
            memory.entries = Track(*extend_frontier(memory.entries.size, memory.entries.frontier, hashes))
            for leaf, expected in zip(leaves, hashes, strict=True):
                dead += self._follow(leaf, expected, target)
            self._progress(memory.entries.size, target.size)
            if number % SAVE_EVERY == 0 and memory.entries.size < target.size:
                self._require_entries(target)
                self._save(dead)
                dead.clear()
        self._require_entries(target)
        self._save(dead)

    def _require_entries(self, target: Checkpoint) -> None:
        """Raise unless the hashes that the leaves were compared with are those of the tree."""
        if not target.size:
            return
        entries = self._seen(self._memory.entries)
        try:
            _require_beginning(entries, target, consistency_proof(self._log.read, entries.size, target.size))
        except IntegrityError:
            detail = "the entries are not those of the checkpoint, and neither are the hashes that were served for them"
            raise self._finding("entries", target, detail, self._memory.checkpoint or "") from None

    def _follow(self, leaf: bytes, expected: bytes, target: Checkpoint) -> list[bytes]:
        position = self._memory.trail.size
        try:
            if hash_leaf(leaf) != expected:
                raise TrailError(position, "is not the one that the tree has")
            return self._memory.trail.follow(leaf)
        except TrailError as error:
            # Those before it may be the false ones; who cannot be asked that does not make this one fit.
            with suppress(AuditError):
                self._require_entries(target)
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


def _require_beginning(small: Checkpoint, large: Checkpoint, proof: Sequence[bytes]) -> None:
    verify_consistency(old_size=small.size, new_size=large.size, old_root=small.root, new_root=large.root, proof=proof)


def _is_same(one: Checkpoint, other: Checkpoint) -> bool:
    return (one.size, one.root) == (other.size, other.root)


def _notes(before: str, now: str) -> str:
    return f"Seen before:\n\n{before}\nShown now:\n\n{now}"
