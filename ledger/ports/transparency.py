"""What the ledger needs to be a transparency log: tiles of its tree, and what was published of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from ledger.domain.events import Head


@dataclass(frozen=True, slots=True)
class PublishedCheckpoint:
    """A checkpoint that was handed out. ``note``: its text with the log's signature, as sent; ``published_at`` in
    microseconds. ``cosignatures``: the lines of witnesses that had arrived when it was read; None: nobody looked."""

    ledger_id: UUID
    origin: str
    size: int
    root: bytes
    published_at: int
    note: str
    cosignatures: str | None = None


@dataclass(frozen=True, slots=True)
class LogState:
    """A ledger as a log, at one moment: its origin, its head, and the last checkpoint that was published of it."""

    origin: str
    head: Head
    last: PublishedCheckpoint | None


HashRange = tuple[int, int, int]
"""Level, first index within it, and how many hashes."""


@dataclass(frozen=True, slots=True)
class FullTile:
    """A complete tile: 256 hashes one after another, and the root over them."""

    level: int
    number: int
    root: bytes
    hashes: bytes


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """A receipt as it was first handed out. ``payload``: the canonical JSON that was signed (64 bytes, Ed25519), less
    the commitment to a name, which stays in the vault (I5); ``proof``: what else came with it, as JSON."""

    payload: str
    signature: bytes
    proof: str


class Transparency(Protocol):
    """Tiles, checkpoints and receipts, in the ledger database. Durable when a call returns, like the store.

    Nothing here is ever changed but tiles, which can be computed again.
    """

    def log_state(self, ledger_id: UUID, host: str) -> LogState:
        """Where the log ``host/<name of the ledger>`` is, with the cosignatures on its last checkpoint."""

    def hashes(
        self,
        ledger_id: UUID,
        tiles: Collection[tuple[int, int]],
        ranges: Collection[HashRange],
        *,
        fresh: bool = False,
    ) -> tuple[Mapping[tuple[int, int], bytes], Mapping[HashRange, bytes]]:
        """Hashes of the tree, one after another: of stored tiles (level, number), as far as there are any; and of
        ranges, which are put together from leaf hashes (level 0) or the roots of the stored tiles of the level below.

        They never change, so some may come from memory, unless they are to be ``fresh``. Raises ``IntegrityError``
        unless all of a range are there and look like hashes.
        """

    def add_tiles(self, ledger_id: UUID, tiles: Sequence[FullTile]) -> None:
        """Store tiles, in the place of what is there."""

    def latest_published(self, ledger_id: UUID, origin: str, *, cosigned: bool = False) -> PublishedCheckpoint | None:
        """The largest checkpoint; ``cosigned``: of those that a witness has cosigned."""

    def published_sizes(self, host: str) -> Mapping[UUID, int]:
        """The size of the last checkpoint of each log of this host; of ledgers that were published."""

    def add_checkpoint(self, checkpoint: PublishedCheckpoint, *, after: int | None) -> bool:
        """Publish a checkpoint behind the one of size ``after`` (None: it is the first). False, and nothing is changed,
        when another process has published one behind that already."""

    def checkpoints(self, ledger_id: UUID, after: tuple[int, str] | None, limit: int) -> Sequence[PublishedCheckpoint]:
        """The next checkpoints, of all origins, in order of (size, origin)."""

    def add_cosignature(self, ledger_id: UUID, origin: str, size: int, *, name: str, line: str, timestamp: int) -> None:
        """Keep a witness's signature line on a checkpoint. The first one of a name stays."""

    def cosignatures(self, ledger_id: UUID, origin: str, size: int) -> Sequence[str]:
        """The signature lines of witnesses on a checkpoint, in order of their names."""

    def last_cosigned(self, ledger_id: UUID, origin: str, name: str) -> int:
        """The size of the last checkpoint that this witness has cosigned; 0: none."""

    def add_receipt(self, ledger_id: UUID, erasure_id: UUID, receipt: StoredReceipt) -> StoredReceipt:
        """Keep the receipt of an erasure, or of a statement about one under the id of its event, unless there is one.
        Gives the one that stays."""

    def receipt(self, ledger_id: UUID, erasure_id: UUID) -> StoredReceipt | None: ...


class SignedCheckpoints(Protocol):
    """The last checkpoint that was signed of each log, kept outside of all databases: so a ledger that was restored
    from an older copy is not published again."""

    def read(self, ledger_id: UUID, origin: str) -> str | None:
        """Its note. Raises the vault's "journal" error for what cannot be read, and "unavailable"."""

    def keep(self, ledger_id: UUID, origin: str, note: str, *, after: str | None) -> bool:
        """Note that this was signed, behind what ``read`` gave; durable when it returns. False, and nothing is changed,
        when something else is there by now."""
