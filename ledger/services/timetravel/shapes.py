"""Which shapes events are shown in now."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from ledger.services.dependencies import Dependencies
from ledger.services.evolution.rules import rules_of


def newest_versions(deps: Dependencies, ledger_id: UUID) -> Mapping[str, int]:
    """Event type → its newest version, as ``open_current`` shows it; a type that nobody knows is absent."""
    return rules_of(deps, ledger_id).catalogue.newest_of_all(deps.upcasters)
