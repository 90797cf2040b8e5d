"""Keep snapshots up to date, behind the log: what the worker does."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final
from uuid import UUID

from ledger.domain.events import Role
from ledger.domain.fold import MERGE_PATCH, Folded
from ledger.domain.names import LEDGER_CATEGORY, SUBJECT_ERASED
from ledger.domain.query import EventFilter
from ledger.domain.snapshot import EVERY
from ledger.errors import LeaseLostError
from ledger.ports import Cursor, CursorKey
from ledger.services.dependencies import Dependencies
from ledger.services.timetravel import snapshots
from ledger.services.timetravel.folding import fold_onward

CURSOR: Final = CursorKey("snapshots", MERGE_PATCH.name)
"""How far the log is looked through for snapshots that are due and keys that are dead."""

WINDOW: Final = 1000
"""Events of the log that one step looks at."""

LEASE: Final = 5_000_000
"""Microseconds."""

_EVENTS_AT_ONCE: Final = 1000


def step(deps: Dependencies, ledger_id: UUID, holder: UUID) -> bool:
    """Look at the next events of the log: write snapshots that are due, drop those that lost a key. False when there
    is nothing to do, or somebody else does it.

    Can be killed at any point: what was written is right, and the next one begins where this one began (I12).
    """
    head = deps.store.head(ledger_id).size - 1
    taken = _take(deps, ledger_id, holder, head)
    if taken is None:
        return False
    first, last = taken.position + 1, min(taken.position + WINDOW, head)

    def move(to: int) -> None:
        now = deps.clock()
        deps.derived.cursors.move_cursor(ledger_id, CURSOR, holder, taken.position, to, now, now + LEASE)

    try:
        _drop_dead(deps, ledger_id, first, last, lambda: move(taken.position))
        _write_due(deps, ledger_id, first, last, lambda: move(taken.position))
        move(last)
    except LeaseLostError:
        # Who has it now does the same work again, to the same end.
        return False
    return True


def _take(deps: Dependencies, ledger_id: UUID, holder: UUID, head: int) -> Cursor | None:
    """The cursor, leased; None when it has come to the head, or is somebody else's. (One that is still ours is not
    leased anew: a quiet ledger costs one write for each look.)"""
    cursors, now = deps.derived.cursors, deps.clock()
    known = next(iter(cursors.cursors(ledger_id, CURSOR.kind, CURSOR.name)), None)
    if head <= (known.position if known is not None else -1):
        return None
    if known is None:
        cursors.add_cursor(ledger_id, CURSOR, MERGE_PATCH.version, "running", -1)
    elif known.holder == holder and known.lease_until > now:
        return known
    taken = cursors.take_cursor(ledger_id, CURSOR, holder, now, now + LEASE)
    return taken if taken is not None and taken.position < head else None


def _write_due(deps: Dependencies, ledger_id: UUID, first: int, last: int, renew: Callable[[], None]) -> None:
    """Every snapshot that a stream is due by now, of the streams that have come to one."""
    due = {place.stream_ref for place in deps.store.due_for_snapshot(ledger_id, first, last, EVERY)}
    if not due:
        return
    passed: list[tuple[bytes, Folded]] = []

    def flush() -> None:
        snapshots.keep(deps, ledger_id, MERGE_PATCH, passed)
        passed.clear()
        renew()

    fold_onward(deps, ledger_id, due, last, MERGE_PATCH, lambda ref, folded: passed.append((ref, folded)), flush)


def _drop_dead(deps: Dependencies, ledger_id: UUID, first: int, last: int, renew: Callable[[], None]) -> None:
    """Drop the snapshots, of any fold, that one of the keys went into which died here. They are of no use to anybody
    since then; what is left is to clear them away."""
    erasures = EventFilter(first, last, category=LEDGER_CATEGORY, types=(SUBJECT_ERASED,))
    for event in deps.store.select_events(ledger_id, erasures, None, WINDOW):
        dead = {part.key_id for part in event.parts if part.role is Role.SHREDDED}
        if dead:
            _drop_with(deps, ledger_id, dead, renew)


def _drop_with(deps: Dependencies, ledger_id: UUID, dead: Collection[bytes], renew: Callable[[], None]) -> None:
    after = -1
    while places := deps.store.streams_under_keys(ledger_id, dead, after, _EVENTS_AT_ONCE):
        deps.derived.snapshots.drop_snapshots(ledger_id, {place.stream_ref for place in places}, dead)
        after = places[-1].position
        renew()
