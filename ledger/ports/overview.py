"""What whoever runs the service wants to know of all ledgers at once: each answer is one statement, however many there
are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from ledger.domain.marks import LedgerState
from ledger.ports.derived import Cursor


@dataclass(frozen=True, slots=True)
class Follower:
    """A cursor, and how far it is behind.

    ``behind``: events between it and the head. ``waiting_since``: when the oldest of them was recorded, in
    microseconds; None when there are none.
    """

    ledger_id: UUID
    cursor: Cursor
    behind: int
    waiting_since: int | None


class Overview(Protocol):
    """All ledgers at once. Raises ``StoreUnavailableError``."""

    def sizes(self) -> Mapping[UUID, int]:
        """How many events each ledger has."""

    def states(self) -> Mapping[UUID, LedgerState]:
        """How far each ledger is, and what it remembers of the key vault."""

    def followers(self) -> Sequence[Follower]:
        """All cursors that are not retired, in order of ledger, kind, name and number."""

    def parked(self) -> Mapping[tuple[UUID, str], int]:
        """How many messages are parked, by ledger and subscription; one that has none is absent."""
