"""Events in the newest shape of their types: what readers, folds, projections and handlers see."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from ledger.domain.catalogue import Catalogue, bring_up, leave_down
from ledger.domain.events import OpenedEvent, RecordedEvent, Role
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.rules import rules_of
from ledger.services.opening import SEALED_ROLES, open_events


def open_current(
    deps: Dependencies, ledger_id: UUID, events: Sequence[RecordedEvent], roles: Collection[Role] = SEALED_ROLES
) -> list[OpenedEvent]:
    """Open events (see ``open_events``) and bring them to the newest version of their types.

    Costs one indexed count more than opening them. What cannot be brought there is given as recorded, and its
    ``schema_status`` says why: never an error, and never a guess.
    """
    opened = open_events(deps, ledger_id, events, roles)
    if not opened:
        return opened
    catalogue = _catalogue(deps, ledger_id)
    return [bring_up(event, catalogue, deps.upcasters) for event in opened]


def open_recorded(
    deps: Dependencies, ledger_id: UUID, events: Sequence[RecordedEvent], *, disclosing: bool = False
) -> list[OpenedEvent]:
    """Open events and leave them in the shape in which they were recorded; ``schema_status`` says what that is now.
    ``disclosing``: see ``open_events``."""
    opened = open_events(deps, ledger_id, events, disclosing=disclosing)
    if not opened:
        return opened
    catalogue = _catalogue(deps, ledger_id)
    return [leave_down(event, catalogue, deps.upcasters) for event in opened]


def _catalogue(deps: Dependencies, ledger_id: UUID) -> Catalogue:
    # Asked after the events were read: whoever recorded one in a new version had registered that before.
    return rules_of(deps, ledger_id).catalogue
