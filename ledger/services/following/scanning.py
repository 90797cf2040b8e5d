"""Go through a ledger in bounded steps, whatever it holds and however little of it matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.events import RecordedEvent
from ledger.domain.query import EventFilter, Place
from ledger.services.dependencies import Dependencies

WINDOW: Final = 10_000
"""Positions that one step looks at, so that a rare type of event makes no statement that takes minutes."""

STEP_BYTES: Final = 8 * 2**20
"""Sealed bytes that a step aims at."""

_CHUNK: Final = 100


@dataclass(frozen=True, slots=True)
class Step:
    """What a step found. ``end``: up to there it has seen everything that matches."""

    rows: Sequence[RecordedEvent]
    end: int


def scan(deps: Dependencies, ledger_id: UUID, which: EventFilter, limit: int) -> Step:
    """The next events that match, in order of positions: at most ``limit``, and about ``STEP_BYTES``."""
    rows: list[RecordedEvent] = []
    size = 0
    place: Place | None = None
    chunk = _CHUNK
    while True:
        wanted = min(chunk, limit - len(rows))
        found = deps.store.select_events(ledger_id, which, place, wanted)
        rows += found
        if len(found) < wanted:
            return Step(rows, which.last_position)
        place = Place(rows[-1].position)
        size += sum(len(part.sealed) for row in found for part in row.parts)
        if len(rows) >= limit or size >= STEP_BYTES:
            return Step(rows, place.position)
        # As many as fit into what is left, if they are as large as those so far.
        chunk = max(1, min(_CHUNK, (STEP_BYTES - size) * len(rows) // max(size, 1)))
