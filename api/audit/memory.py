"""What an auditor keeps from one time to the next, in a folder of its own.

That is what makes a second history show: so it is replaced in one piece (written beside, synced, renamed, the folder
synced), and never goes back.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from api.audit.fetching import AuditError
from api.private_files import sync, write_private
from keyvault.signatures import verify_ed25519
from ledger.domain.checkpoints import Checkpoint, open_checkpoint
from ledger.domain.leaf_trail import LeafTrail
from ledger.domain.merkle import EMPTY_ROOT, HASH_BYTES, decode_frontier, encode_frontier, root_of
from ledger.domain.notes import NoteError, VerifierKey, from_base64, parse_verifier_key, to_base64

MEMORY_FILE: Final = "audit.json"
DEAD_KEYS_FILE: Final = "dead-keys"
EVIDENCE_FOLDER: Final = "evidence"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Track:
    """A tree as far as it was computed: its size, and its compact range."""

    size: int = 0
    frontier: tuple[bytes, ...] = ()

    @property
    def root(self) -> bytes:
        """Of these leaves."""
        return root_of(self.frontier)


@dataclass(slots=True)
class Memory:
    """``checkpoint``: the last one that the whole tree was computed for, ``verified``: that tree. ``pending``: all
    others that the log has signed, until it is shown that they are of the same history; ``progress``: the tree as far
    as it was computed for the next of them. ``entries`` and ``trail``: as far as the leaves themselves were followed,
    and are shown to be those of the tree."""

    key: VerifierKey
    checkpoint: str | None = None
    verified: Track = field(default_factory=Track)
    pending: list[str] = field(default_factory=list)
    progress: Track = field(default_factory=Track)
    entries: Track = field(default_factory=Track)
    trail: LeafTrail = field(default_factory=LeafTrail)


class MemoryFolder:
    """The folder, for one audit at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept_dead = 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else audits into this folder during the block. Raises ``AuditError``."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise AuditError(f"another audit is using {self.folder}; wait for it, or take another folder") from None
        finally:
            os.close(descriptor)

    def load(self, key: VerifierKey) -> Memory:
        """What was kept; of a folder without anything, nothing. Raises ``AuditError`` for what is of another log, or
        cannot be read: then nobody may go on as if nothing had been kept."""
        path = self.folder / MEMORY_FILE
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            write_private(self.folder / DEAD_KEYS_FILE, b"")
            return Memory(key)
        except ValueError:
            kept = {}
        try:
            memory = self._memory_from(kept)
        except (KeyError, TypeError, ValueError, NoteError):
            raise AuditError(
                f"{path} cannot be read: what was kept is lost. Look for a copy of it; only if there is none, begin "
                "anew in another folder"
            ) from None
        if memory.key != key:
            raise AuditError(f"{self.folder} is of {memory.key.name} under another key; take another folder")
        return memory

    def save(self, memory: Memory, dead: list[bytes]) -> None:
        """Keep this. ``dead``: the keys that were named since the last time."""
        if dead:
            with (self.folder / DEAD_KEYS_FILE).open("rb+") as file:
                # Behind those that count, whatever an interrupted audit has left there.
                file.seek(self._kept_dead * HASH_BYTES)
                file.truncate()
                file.write(b"".join(dead))
                file.flush()
                os.fsync(file.fileno())
            self._kept_dead += len(dead)
        trail = memory.trail
        kept = {
            "format": _FORMAT,
            "verifier_key": memory.key.text,
            "checkpoint": memory.checkpoint,
            "verified": _track_json(memory.verified),
            "pending": memory.pending,
            "progress": _track_json(memory.progress),
            "entries": {
                **_track_json(memory.entries),
                "recorded_at": trail.recorded_at,
                "ledger_id": str(trail.ledger_id) if trail.ledger_id is not None else None,
                "dead_keys": self._kept_dead,
            },
        }
        draft = self.folder / f".{MEMORY_FILE}.draft"
        write_private(draft, json.dumps(kept, indent=1).encode())
        draft.rename(self.folder / MEMORY_FILE)
        sync(self.folder)

    def _memory_from(self, kept: dict[str, Any]) -> Memory:
        if kept["format"] != _FORMAT:
            raise ValueError("another format")
        entries = kept["entries"]
        ledger_id = entries["ledger_id"]
        track = _track_from(entries)
        dead = self._load_dead_keys(entries["dead_keys"])
        memory = Memory(
            key=parse_verifier_key(kept["verifier_key"]),
            checkpoint=kept["checkpoint"],
            verified=_track_from(kept["verified"]),
            pending=list(kept["pending"]),
            progress=_track_from(kept["progress"]),
            entries=track,
            trail=LeafTrail(track.size, entries["recorded_at"], UUID(ledger_id) if ledger_id else None, dead),
        )
        _require_whole(memory)
        return memory

    def _load_dead_keys(self, count: int) -> set[bytes]:
        """Those that count."""
        path = self.folder / DEAD_KEYS_FILE
        with path.open("rb") as file:
            content = file.read(count * HASH_BYTES)
        if len(content) != count * HASH_BYTES:
            raise ValueError("keys are missing")
        self._kept_dead = count
        return {content[at : at + HASH_BYTES] for at in range(0, len(content), HASH_BYTES)}


def _require_whole(memory: Memory) -> None:
    """Raise unless what was kept fits together: else a damaged file would show as a fault of the log."""
    for note in memory.pending:
        open_checkpoint(note, memory.key, verify_ed25519)
    seen = Checkpoint(memory.key.name, 0, EMPTY_ROOT)
    if memory.checkpoint is not None:
        seen = open_checkpoint(memory.checkpoint, memory.key, verify_ed25519)
    if (memory.verified.size, memory.verified.root) != (seen.size, seen.root):
        raise ValueError("the tree is not that of the checkpoint")
    if memory.entries.size > memory.verified.size:
        raise ValueError("more leaves were followed than there are")


def _track_json(track: Track) -> dict[str, Any]:
    return {"size": track.size, "frontier": to_base64(encode_frontier(track.frontier))}


def _track_from(kept: dict[str, Any]) -> Track:
    track = Track(int(kept["size"]), decode_frontier(from_base64(kept["frontier"])))
    if len(track.frontier) != track.size.bit_count():
        raise ValueError("the size and the hashes do not belong together")
    return track
