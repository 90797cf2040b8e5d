"""Which shapes events are shown in now."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from ledger.services.dependencies import Dependencies


def newest_versions(deps: Dependencies, ledger_id: UUID) -> Mapping[str, int]:
    """Event type → its newest registered version; a type that is not registered is absent."""
    return {}
