"""The projections that every ledger has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ledger.domain.events import PERSONAL_ROLES, JsonObject, OpenedEvent
from ledger.domain.fold import MERGE_PATCH
from ledger.domain.partition import BY_DAY, BY_STREAM, BY_SUBJECT
from ledger.domain.projection import Projection
from ledger.domain.times import format_time


def _count_type(counts: Mapping[str, int], event: OpenedEvent) -> dict[str, int]:
    event_type = event.recorded.envelope.event_type
    return {**counts, event_type: counts.get(event_type, 0) + 1}


def _activity(document: JsonObject, event: OpenedEvent) -> JsonObject:
    time = format_time(event.recorded.recorded_at)
    return {
        "first_recorded_at": document.get("first_recorded_at", time),
        "last_recorded_at": time,
        "types": _count_type(document.get("types", {}), event),
    }


def _daily_counts(document: JsonObject, event: OpenedEvent) -> JsonObject:
    return {"types": _count_type(document.get("types", {}), event)}


CURRENT_STATE: Final = Projection(
    "current_state", MERGE_PATCH.version, BY_STREAM, MERGE_PATCH.apply, roles=MERGE_PATCH.roles
)
"""The state of every stream as it is now, listed by category: what ``state`` answers, without folding."""

ACTIVITY: Final = Projection("activity", 1, BY_SUBJECT, _activity, roles=frozenset(PERSONAL_ROLES))
"""Of each person: when they first and last had a part in an event, in any role, and in how many of each type."""

DAILY_COUNTS: Final = Projection("daily_counts", 1, BY_DAY, _daily_counts, roles=frozenset())
"""How many events of each type were recorded on each day (UTC), listed by month. No personal data; kept in clear."""

SHIPPED: Final[Mapping[str, Projection]] = {
    projection.name: projection for projection in (CURRENT_STATE, ACTIVITY, DAILY_COUNTS)
}
"""By name."""
