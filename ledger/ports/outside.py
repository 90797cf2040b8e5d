"""Time, randomness, and where alarms go."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    """Microseconds since 1970-01-01 UTC. May stand still or go back; a ledger's recorded-at never does."""

    def __call__(self) -> int: ...


class Entropy(Protocol):
    """So many random bytes, fit for secrets."""

    def __call__(self, size: int, /) -> bytes: ...


class Alarms(Protocol):
    """Where integrity alarms go. Must not raise, and gets no personal data. ``part`` None: the whole event."""

    def __call__(self, ledger_id: UUID, position: int, part: int | None, what: str, /) -> None: ...
