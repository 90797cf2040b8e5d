"""Events in the newest shape of their types: what readers, folds, projections and handlers see."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from uuid import UUID

from ledger.domain.catalogue import Catalogue, bring_up, leave_down
from ledger.domain.events import OpenedEvent, RecordedEvent, Role
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.rules import rules_of
from ledger.services.opening import SEALED_ROLES, open_each


def open_current(
    deps: Dependencies, ledger_id: UUID, events: Sequence[RecordedEvent], roles: Collection[Role] = SEALED_ROLES
) -> list[OpenedEvent]:
    """Open events (see ``open_events``) and bring them to the newest version of their types.

    Costs one indexed count more than opening them. What cannot be brought there is given as recorded, and its
    ``schema_status`` says why: never an error, and never a guess.
    """
    return list(each_current(deps, ledger_id, events, roles))


def open_recorded(
    deps: Dependencies, ledger_id: UUID, events: Sequence[RecordedEvent], *, disclosing: bool = False
) -> list[OpenedEvent]:
    """Open events and leave them in the shape in which they were recorded; ``schema_status`` says what that is now.
    ``disclosing``: see ``open_events``."""
    return list(each_recorded(deps, ledger_id, events, disclosing=disclosing))


def each_current(
    deps: Dependencies, ledger_id: UUID, events: Sequence[RecordedEvent], roles: Collection[Role] = SEALED_ROLES
) -> Iterator[OpenedEvent]:
    """As ``open_current``, each event when it is its turn (see ``open_each``)."""
    if not events:
        return iter(())
    opened = open_each(deps, ledger_id, events, roles)
    catalogue = _catalogue(deps, ledger_id)
    return (bring_up(event, catalogue, deps.upcasters) for event in opened)


def each_recorded(
    deps: Dependencies, ledger_id: UUID, events: Sequence[RecordedEvent], *, disclosing: bool = False
) -> Iterator[OpenedEvent]:
    """As ``open_recorded``, each event when it is its turn (see ``open_each``)."""
    if not events:
        return iter(())
    opened = open_each(deps, ledger_id, events, disclosing=disclosing)
    catalogue = _catalogue(deps, ledger_id)
    return (leave_down(event, catalogue, deps.upcasters) for event in opened)


def _catalogue(deps: Dependencies, ledger_id: UUID) -> Catalogue:
    # Asked after the events were read: whoever recorded one in a new version had registered that before.
    return rules_of(deps, ledger_id).catalogue
