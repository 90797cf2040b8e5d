"""What the ledger needs of the store of event types and policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from ledger.domain.events import JsonObject


@dataclass(frozen=True, slots=True)
class EventType:
    """One version of an event type, as registered.

    ``schema``, ``nonpersonal_schema``: JSON Schemas of ``data`` and ``nonpersonal``; None: anything goes. ``upcast``:
    the declarative steps that lead here from the version before; None for the first version, and where code does it.
    ``closes_stream``: nothing can be appended to a stream behind an event of this type.
    """

    event_type: str
    version: int
    schema: JsonObject | None
    nonpersonal_schema: JsonObject | None
    upcast: Sequence[JsonObject] | None
    closes_stream: bool
    registered_at: int
    registered_by: UUID


class Catalogues(Protocol):
    """The event types of each ledger: append-only, and small. Raises ``StoreUnavailableError``."""

    def catalogue_size(self, ledger_id: UUID) -> int:
        """How many versions of types are registered. It only grows, so who has read so many has read all."""

    def event_types(self, ledger_id: UUID) -> Sequence[EventType]:
        """All of them, in order of type and version."""

    def add_event_type(self, ledger_id: UUID, event_type: EventType) -> bool:
        """Add a version; False when it is there already (nothing changes). Of several that ask at once one wins."""

    def policy(self, ledger_id: UUID) -> JsonObject:
        """The ledger's policy as it was last set; empty at first."""

    def set_policy(self, ledger_id: UUID, policy: JsonObject) -> None:
        """Replace the policy."""
