"""Run process managers: one bounded batch at a time, for as many workers as there are.

A lease gives each process to one worker at a time. What keeps a crash, or a worker that wakes up too late, from losing
or doubling anything is not the lease: it is the ids (``reacting``), and that the cursor moves only behind what is done.

Timers are rows that wake the process; what they mean stands in the log. The events of somebody who is restricted wait
as such rows, too, so that everybody else's go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from ledger.domain.events import OpenedEvent
from ledger.domain.process import ProcessManager
from ledger.domain.query import AsOf, EventFilter
from ledger.errors import BusyError, CallerError, IntegrityError, LeaseLostError, StateError
from ledger.ports import Cursor, CursorKey, Timer
from ledger.services.commanding.reacting import Reactor, RestrictedError, StopError
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.current import open_current
from ledger.services.moments import resolve_as_of

LEASE: Final = 5_000_000
"""Microseconds for which a worker has a process to itself, from its last move on."""

BATCH: Final = 20
"""Events of one step, at most."""

WINDOW: Final = 5_000
"""Positions that one step looks through, at most."""

TIMERS: Final = 1_000
"""Timers and waiting events that one step looks at, at most."""

FIRST_DELAY: Final = 1_000_000
LONGEST_DELAY: Final = 60_000_000
"""Microseconds before a process that has to wait tries again; doubled each time."""

_HELD: Final = "held:"
"""Stands before an event's id in the name of the row of one that waits; no timer's name has a colon in front of it."""


def step(deps: Dependencies, ledger_id: UUID, managers: Sequence[ProcessManager], holder: UUID) -> bool:
    """Take each process one batch further; True when there was something to do.

    Raises only errors of dependencies; then the same step can be tried again. A process that fails on its own account
    is stopped, visibly, at the event that it failed on, until ``restart``; one that has to wait tries again later.
    """
    did = False
    for manager in managers:
        did = _Runner(deps, ledger_id, manager, holder).step() or did
    return did


def standing(deps: Dependencies, ledger_id: UUID) -> Sequence[Cursor]:
    """How far the processes of a ledger have come, and what stopped those that are stopped."""
    return deps.derived.cursors.cursors(ledger_id, "process")


def restart(deps: Dependencies, ledger_id: UUID, name: str) -> bool:
    """Let a stopped process go on; False when none of this name is stopped."""
    return deps.derived.cursors.restart_cursor(ledger_id, CursorKey("process", name))


class _Runner:
    """One step of one process."""

    def __init__(self, deps: Dependencies, ledger_id: UUID, manager: ProcessManager, holder: UUID) -> None:
        self._deps = deps
        self._ledger_id = ledger_id
        self._manager = manager
        self._holder = holder
        self._key = CursorKey("process", manager.name)
        self._position = -1
        self._reactor = Reactor(deps, ledger_id, manager)

    def step(self) -> bool:
        """One batch."""
        cursor = self._take()
        if cursor is None:
            return False
        self._position = cursor.position
        try:
            did = self._advance()
        except LeaseLostError:
            return True
        except BusyError as waiting:
            return self._note(type(waiting).__name__, cursor.tries, stop=False)
        except StopError as failure:
            return self._note(failure.error, cursor.tries, stop=True)
        except (CallerError, StateError, IntegrityError) as error:
            return self._note(type(error).__name__, cursor.tries, stop=True)
        self._deps.derived.cursors.release_cursor(self._ledger_id, self._key, self._holder)
        return did

    def _take(self) -> Cursor | None:
        """The lease, if there is something to do. Only looking whether there is costs no write."""
        cursors, now = self._deps.derived.cursors, self._deps.clock()
        cursor = next(iter(cursors.cursors(self._ledger_id, "process", self._manager.name)), None)
        if cursor is None:
            begin = self._manager.begin_after
            cursor = cursors.add_cursor(self._ledger_id, self._key, self._manager.version, "running", begin)
        if cursor.position + 1 >= self._deps.store.head(self._ledger_id).size and not self._due(1):
            return None
        return cursors.take_cursor(self._ledger_id, self._key, self._holder, now, now + LEASE)

    def _note(self, error: str, tries: int, *, stop: bool) -> bool:
        delay = min(FIRST_DELAY << min(tries, 10), LONGEST_DELAY)
        try:
            self._deps.derived.cursors.note_failure(
                self._ledger_id,
                self._key,
                self._holder,
                self._position,
                error,
                retry_at=self._deps.clock() + delay,
                stop=stop,
            )
        except LeaseLostError:
            return True
        return False

    def _move(self, position: int) -> None:
        """Move the cursor, or (to where it stands) prolong the lease."""
        now = self._deps.clock()
        self._deps.derived.cursors.move_cursor(
            self._ledger_id, self._key, self._holder, self._position, position, now, now + LEASE
        )
        self._position = position

    def _advance(self) -> bool:
        # What has waited comes before what is new: it was recorded before it.
        did = self._take_in_held([row for row in self._due(TIMERS) if row.name.startswith(_HELD)])
        head = self._deps.store.head(self._ledger_id).size
        if self._position + 1 < head:
            self._read(self._position + 1, min(head - 1, self._position + WINDOW))
            did = True
        if self._position + 1 >= head:
            did = self._fire([row for row in self._due(TIMERS) if not row.name.startswith(_HELD)]) or did
        return did

    def _read(self, first: int, last: int) -> None:
        manager = self._manager
        which = EventFilter(first, last, category=manager.input_category, types=manager.input_types)
        rows = self._deps.store.select_events(self._ledger_id, which, None, BATCH)
        for event in open_current(self._deps, self._ledger_id, rows):
            try:
                taken_in = self._reactor.take_in(event, held=False)
            except RestrictedError:
                self._hold(event)
                taken_in = True
            if taken_in:
                self._move(event.recorded.position)
        end = rows[-1].position if len(rows) == BATCH else last
        if end > self._position:
            self._move(end)

    def _hold(self, event: OpenedEvent) -> None:
        """Have an event wait until its subject is restricted no more; due at once, and as old as it is."""
        envelope = event.recorded.envelope
        held = Timer(
            timer_id=envelope.event_id,
            process=self._manager.name,
            stream_ref=envelope.stream_ref,
            name=f"{_HELD}{envelope.event_id}",
            due_at=event.recorded.recorded_at,
            set_by=envelope.event_id,
        )
        self._deps.derived.timers.set_timer(self._ledger_id, held)

    def _take_in_held(self, rows: Sequence[Timer]) -> bool:
        if not rows:
            return False
        found = self._deps.store.find_events(self._ledger_id, [row.set_by for row in rows])
        events = open_current(self._deps, self._ledger_id, [found[row.set_by] for row in rows])
        did = False
        for row, event in zip(rows, events, strict=True):
            try:
                self._reactor.take_in(event, held=True)
            except RestrictedError:
                continue
            self._clear(row)
            did = True
        return did

    def _fire(self, timers: Sequence[Timer]) -> bool:
        """Fire timers that are due; True when there was something to do."""
        did = False
        for timer in timers:
            # "If nothing happened by T": what was recorded by then goes first, however late this worker is.
            if resolve_as_of(self._deps, self._ledger_id, AsOf(time=timer.due_at)).position > self._position:
                return True
            try:
                self._reactor.fire(timer)
            except RestrictedError:
                continue
            self._clear(timer)
            did = True
        return did

    def _clear(self, row: Timer) -> None:
        self._deps.derived.timers.clear_timer(self._ledger_id, row.process, row.stream_ref, row.name)
        self._move(self._position)

    def _due(self, limit: int) -> Sequence[Timer]:
        return self._deps.derived.timers.due_timers(self._ledger_id, self._manager.name, self._deps.clock(), limit)
