"""Events in the newest shape of their types: what folds, projections and handlers see."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from ledger.domain.events import OpenedEvent, RecordedEvent, Role
from ledger.services.dependencies import Dependencies
from ledger.services.opening import SEALED_ROLES, open_events


def open_current(
    deps: Dependencies, ledger_id: UUID, events: Sequence[RecordedEvent], roles: Collection[Role] = SEALED_ROLES
) -> list[OpenedEvent]:
    """Open events (see ``open_events``) and bring them to the newest version of their types."""
    return open_events(deps, ledger_id, events, roles)
