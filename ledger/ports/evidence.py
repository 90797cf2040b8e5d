"""What ``verify`` reads of the ledger database, in the forms in which it is checked quickest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from ledger.ports.transparency import FullTile, PublishedCheckpoint, StoredReceipt

LeafRow = tuple[bytes, bytes, bytes, bytes, bytes]
"""A row of ``events`` in the bytes of its leaf: position (8), what is hashed of the leaf up to its parts (0x00, then
the leaf), recorded-at (8), the stored leaf hash, the column ``sealed``."""


KeyRow = tuple[int, int, int, bytes]
"""A row of ``event_keys``: position, part, role, key_id."""


@dataclass(frozen=True, slots=True)
class ErasureRoots:
    """``root``: of the tree that ends with an erasure's ``SubjectErased``. ``before``: of the tree that ends just
    before it; None for an erasure that was recorded when this was not kept yet."""

    root: bytes
    before: bytes | None


@dataclass(frozen=True, slots=True)
class ShreddedKey:
    """A row of ``shredded_keys``. ``recorded``: the event that it names is a ``SubjectErased`` of this id and, as
    ``event_keys`` has it, shreds this key."""

    key_id: bytes
    position: int
    erasure_id: UUID
    recorded: bool


@dataclass(frozen=True, slots=True)
class StrangeVersion:
    """An event whose version does not follow that of the event before it in its stream."""

    position: int
    version: int
    expected: int


@dataclass(frozen=True, slots=True)
class RootRecord:
    """A row of ``erasure_roots`` as bytes, and where its ``SubjectErased`` stands."""

    erasure_id: UUID
    position: int
    record: bytes


@dataclass(frozen=True, slots=True)
class CosignatureRow:
    """A row of ``cosignatures``. ``note``: of the checkpoint, where it was published."""

    origin: str
    size: int
    name: str
    line: str
    note: str | None


class Evidence(Protocol):
    """Reads for ``verify``. Each is one statement, however large the ledger, and sees what was committed before it.
    Raises ``StoreUnavailableError``."""

    def leaf_rows(self, ledger_id: UUID, first: int, last: int) -> Sequence[LeafRow] | None:
        """The rows at the positions from ``first`` to ``last``, in order, as far as they exist. None when one of them
        holds something that no leaf can."""

    def key_records(self, ledger_id: UUID, first: bytes | None, beyond: bytes | None) -> Iterator[Sequence[bytes]]:
        """The rows of ``event_keys`` whose key_id is not below ``first`` and is below ``beyond`` (None: whatever it
        is), some at a time, in any order: each as ``key_record`` writes it. A row that it cannot have written becomes
        something that it cannot write either."""

    def key_rows_in(self, ledger_id: UUID, first: int, last: int, limit: int) -> Sequence[KeyRow]:
        """Rows of ``event_keys`` at the positions from ``first`` to ``last``, in order
        of position. Reads through the whole table."""

    def strange_versions(self, ledger_id: UUID, first: int, size: int, limit: int) -> Sequence[StrangeVersion]:
        """Of the events from ``first`` on and below ``size``: those whose version is not one more than that of the
        event before them in their stream (the first one's: 1), in order of position. Of what stands before ``first``
        the newest version counts."""

    def shredded_rows(self, ledger_id: UUID, after: bytes | None, limit: int) -> Sequence[ShreddedKey]:
        """The next rows of ``shredded_keys`` in order of key_id."""

    def shredded_among(self, ledger_id: UUID, key_ids: Collection[bytes]) -> Mapping[bytes, ShreddedKey]:
        """The rows of ``shredded_keys`` of these keys."""

    def roots_of(self, ledger_id: UUID, erasure_ids: Collection[UUID]) -> Mapping[UUID, ErasureRoots]:
        """The rows of ``erasure_roots`` of these erasures."""

    def roots_without_event(self, ledger_id: UUID, limit: int) -> Sequence[UUID]:
        """The ids in ``erasure_roots`` under which no ``SubjectErased`` is recorded."""

    def root_records(self, ledger_id: UUID, after: UUID | None, limit: int) -> Sequence[RootRecord]:
        """The next rows of ``erasure_roots`` that belong to an erasure, in order of its id."""

    def broken_chains(self, ledger_id: UUID, limit: int) -> Sequence[tuple[int, int, int]]:
        """The checkpoints that were not published behind the one that now stands before them: (size, the size that
        they were published behind, the size before; -1: none)."""

    def cosignature_rows(
        self, ledger_id: UUID, after: tuple[int, str, str] | None, limit: int
    ) -> Sequence[CosignatureRow]:
        """The next cosignatures in order of size and, as the database orders them, origin and name."""

    def receipt_rows(self, ledger_id: UUID, after: UUID | None, limit: int) -> Sequence[tuple[UUID, StoredReceipt]]:
        """The next receipts in order of the ids of the events that they are about."""

    def full_tiles(self, ledger_id: UUID, level: int, first: int, count: int) -> Sequence[FullTile]:
        """The stored tiles of a level from this number on, as far as there are any, in order."""

    def misplaced_tiles(self, ledger_id: UUID, limit: int) -> Sequence[tuple[int, int]]:
        """Level and number of the stored tiles that are not full in the tree of the head."""

    def checkpoints_between(
        self, ledger_id: UUID, first: int, last: int, after: tuple[int, str] | None, limit: int
    ) -> Sequence[PublishedCheckpoint]:
        """The next checkpoints of sizes above ``first`` and up to ``last``, of all origins, in order of size and, as
        the database orders it, origin."""

    def strange_ends(self, ledger_id: UUID, first: int, size: int, limit: int) -> Sequence[tuple[int, str]]:
        """What does not fit ``closed_streams``, from position ``first`` on and below ``size``: (position, what)."""
