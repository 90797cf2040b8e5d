"""What the services work with, put together in one place by ``api/wiring.py``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from uuid import UUID

from ledger.domain.ids import uuid7
from ledger.domain.upcasting import Upcasters
from ledger.ports import (
    Alarms,
    Catalogues,
    Clock,
    Derived,
    Entropy,
    KeyVault,
    RestoreGuard,
    SignedCheckpoints,
    Store,
    Transparency,
)
from ledger.ports.witness import Witnesses


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The outside world of the ledger. Shared by threads; holds no state of its own.

    ``origin``: the host name in the names of the logs (``origin/ledger``). ``witnesses``: None where none are
    configured. ``upcasters``: the ways from old versions of events to new ones that are written in code.
    ``while_waiting``: what a thread does around the time in which it waits for others; must not raise.
    """

    store: Store
    vault: KeyVault
    catalogues: Catalogues
    derived: Derived
    clock: Clock
    entropy: Entropy
    alarm: Alarms
    guard: RestoreGuard
    transparency: Transparency
    signed: SignedCheckpoints
    origin: str
    witnesses: Witnesses | None = None
    upcasters: Upcasters = field(default_factory=Upcasters)
    while_waiting: Callable[[], AbstractContextManager[object]] = nullcontext

    def new_id(self) -> UUID:
        """A fresh UUID version 7."""
        return uuid7(self.clock(), self.entropy(10))
