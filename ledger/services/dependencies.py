"""What the services work with, put together in one place by ``api/wiring.py``."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from ledger.domain.ids import uuid7
from ledger.ports import Alarms, Clock, Entropy, KeyVault, Store


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The outside world of the ledger. Shared by threads; holds no state of its own."""

    store: Store
    vault: KeyVault
    clock: Clock
    entropy: Entropy
    alarm: Alarms

    def new_id(self) -> UUID:
        """A fresh UUID version 7."""
        return uuid7(self.clock(), self.entropy(10))
