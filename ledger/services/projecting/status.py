"""How far projections have come, and whether anybody runs them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.events import Head
from ledger.errors import BusyError, Fault, InvalidError
from ledger.ports import Cursor
from ledger.services.dependencies import Dependencies

LOOK_SECONDS: Final = 0.05
"""How often somebody who waits for a read model looks at its cursor."""


@dataclass(frozen=True, slots=True)
class ProjectionStatus:
    """One generation of a projection. Lag is measured twice: ``behind``, in events behind the head, and ``age``, the
    microseconds since the oldest event that is not projected was recorded (None: all are). ``held``: somebody has its
    lease now; when it is behind and nobody has, nobody runs it. ``seen``: it is the one that readers see."""

    cursor: Cursor
    behind: int
    age: int | None
    held: bool
    seen: bool


def projection_statuses(deps: Dependencies, ledger_id: UUID) -> Sequence[ProjectionStatus]:
    """All generations that are not retired, in order of name and number."""
    living = [cursor for cursor in deps.derived.cursors.cursors(ledger_id, "projection") if cursor.state != "retired"]
    # The head after the cursors: it can only make them look further behind than they are, never ahead of the log.
    head, now = deps.store.head(ledger_id), deps.clock()
    first = {cursor.key.name: cursor.key.number for cursor in reversed(living)}
    return [_status(deps, ledger_id, cursor, head, now, first[cursor.key.name]) for cursor in living]


def _status(deps: Dependencies, ledger_id: UUID, cursor: Cursor, head: Head, now: int, first: int) -> ProjectionStatus:
    behind = head.size - 1 - cursor.position
    age = max(0, now - deps.store.recorded_at(ledger_id, cursor.position + 1)) if behind > 0 else None
    held = cursor.holder is not None and cursor.lease_until > now
    return ProjectionStatus(cursor, behind, age, held, seen=cursor.key.number == first)


def wait_for(
    deps: Dependencies,
    ledger_id: UUID,
    name: str,
    position: int,
    timeout: float,
    *,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Wait until readers see a read model that holds the event at ``position``: so that they read their own writes.

    ``timeout`` in seconds; 0 looks once. Raises ``BusyError`` when the time is up (or this process is stopping), and
    ``InvalidError`` for a position that nothing is recorded at.
    """
    if position >= deps.store.head(ledger_id).size:
        fault = Fault("/min_position", "must be the position of an event that is recorded")
        raise InvalidError("nothing is recorded at min_position", [fault])
    deadline = time.monotonic() + timeout
    while (reached := _position_seen(deps, ledger_id, name)) < position:
        rest = deadline - time.monotonic()
        if rest <= 0 or stopping():
            raise BusyError(f"the read model is at position {reached} and not yet at {position}; ask again")
        time.sleep(min(rest, LOOK_SECONDS))


def _position_seen(deps: Dependencies, ledger_id: UUID, name: str) -> int:
    cursors = deps.derived.cursors.cursors(ledger_id, "projection", name)
    return next((cursor.position for cursor in cursors if cursor.state != "retired"), -1)
