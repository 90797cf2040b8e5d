"""What the ledger needs of the store of event types and policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from ledger.domain.catalogue import EventType
from ledger.domain.events import JsonObject

__all__ = ["CatalogueMark", "Catalogues", "EventType"]


@dataclass(frozen=True, slots=True)
class CatalogueMark:
    """Where a ledger's rules stand. ``types``: how many versions of types are registered; it only grows, so who has
    read so many has read all. ``policy``: as it was last set, empty at first; None when it cannot be read."""

    types: int
    policy: JsonObject | None


class Catalogues(Protocol):
    """The event types of each ledger: append-only, and small. Raises ``StoreUnavailableError``."""

    def catalogue_mark(self, ledger_id: UUID) -> CatalogueMark:
        """Where the rules stand now: one short statement."""

    def event_types(self, ledger_id: UUID) -> Sequence[EventType]:
        """All of them, in order of type and version."""

    def add_event_type(self, ledger_id: UUID, event_type: EventType) -> bool:
        """Add a version; False when it is there already (nothing changes). Of several that ask at once one wins."""

    def set_policy(self, ledger_id: UUID, policy: JsonObject) -> None:
        """Replace the policy."""
