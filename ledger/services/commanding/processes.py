"""Run process managers: one bounded batch at a time, for as many workers as there are.

A lease gives each process to one worker at a time. What keeps a crash, or a worker that wakes up too late, from losing
or doubling anything is not the lease: it is the ids (``reacting``), and that the cursor moves only behind what is done.

Timers are rows that wake the process; what they mean stands in the log. The events of somebody who is restricted are
held, in order within their stream, so that everybody else's go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from ledger.domain.events import OpenedEvent
from ledger.domain.process import ProcessManager
from ledger.domain.query import EventFilter
from ledger.errors import BusyError, CallerError, IntegrityError, LeaseLostError, StateError
from ledger.ports import Cursor, CursorKey, HeldEvents, Timer
from ledger.services.commanding.reacting import Reactor, RestrictedError, StopError
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.current import open_current
from ledger.services.moments import settled_position_at

LEASE: Final = 5_000_000
"""Microseconds for which a worker has a process to itself, from its last move on."""

BATCH: Final = 20
"""Events of one step, at most."""

WINDOW: Final = 5_000
"""Positions that one step looks through, at most."""

TIMERS: Final = 1_000
"""Timers that one step looks at, at most."""

HELD_STREAMS: Final = 100
"""Streams with held events that one step looks at, at most."""

TIMER_WAIT: Final = 60_000_000
"""Microseconds for which a timer of somebody who is restricted is put off, so that it does not stand before others."""

FIRST_DELAY: Final = 1_000_000
LONGEST_DELAY: Final = 60_000_000
"""Microseconds before a process that has to wait tries again; doubled each time."""

_REF_BYTES: Final = 16


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
        if cursor.position + 1 >= self._deps.store.head(self._ledger_id).size and not self._waits():
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

    def _waits(self) -> bool:
        """Whether there is something to do but what is new."""
        return bool(self._due(1) or self._held.held_streams(self._ledger_id, self._manager.name, b"", 1))

    def _advance(self) -> bool:
        # What has waited comes before what is new: it was recorded before it.
        did = self._take_in_held()
        head = self._deps.store.head(self._ledger_id).size
        if self._position + 1 < head:
            self._read(self._position + 1, min(head - 1, self._position + WINDOW))
            did = True
        if self._position + 1 >= head:
            did = self._fire(self._due(TIMERS)) or did
        return did

    def _read(self, first: int, last: int) -> None:
        manager = self._manager
        which = EventFilter(first, last, category=manager.input_category, types=manager.input_types)
        rows = self._deps.store.select_events(self._ledger_id, which, None, BATCH)
        streams = {row.envelope.stream_ref for row in rows}
        holding = set(self._held.holding(self._ledger_id, manager.name, streams)) if streams else set()
        for event in open_current(self._deps, self._ledger_id, rows):
            stream_ref = event.recorded.envelope.stream_ref
            # Behind an event that is held, all of its stream are: they stay in order.
            if stream_ref in holding or not self._is_free(event):
                self._held.hold_event(self._ledger_id, manager.name, stream_ref, event.recorded.position)
                holding.add(stream_ref)
                self._move(event.recorded.position)
        end = rows[-1].position if len(rows) == BATCH else last
        if end > self._position:
            self._move(end)

    def _is_free(self, event: OpenedEvent) -> bool:
        """React to an event; False when its subject is restricted."""
        try:
            taken_in = self._reactor.take_in(event, held=False)
        except RestrictedError:
            return False
        if taken_in:
            self._move(event.recorded.position)
        return True

    def _take_in_held(self) -> bool:
        """Try held events again, from a stream on that nobody has chosen: with many, each gets its turn."""
        start, process = self._deps.entropy(_REF_BYTES), self._manager.name
        streams = list(self._held.held_streams(self._ledger_id, process, start, HELD_STREAMS))
        if len(streams) < HELD_STREAMS:
            first = self._held.held_streams(self._ledger_id, process, b"", HELD_STREAMS - len(streams))
            streams += [ref for ref in first if ref <= start]
        did = [self._take_in_stream(ref) for ref in streams]
        return any(did)

    def _take_in_stream(self, stream_ref: bytes) -> bool:
        """Held events of one stream, in order, up to the first that has to wait on."""
        did = False
        for position in self._held.held_events(self._ledger_id, self._manager.name, stream_ref, BATCH):
            rows = self._deps.store.select_events(self._ledger_id, EventFilter(position, position), None, 1)
            (event,) = open_current(self._deps, self._ledger_id, rows)
            try:
                self._reactor.take_in(event, held=True)
            except RestrictedError:
                return did
            self._held.release_event(self._ledger_id, self._manager.name, stream_ref, position)
            self._move(self._position)
            did = True
        return did

    def _fire(self, due: Sequence[Timer]) -> bool:
        """Fire timers that are due; True when there was something to do."""
        timers, did = self._deps.derived.timers, False
        for timer in due:
            # "If nothing happened by T": what was recorded by then goes first, however late this worker is.
            if settled_position_at(self._deps, self._ledger_id, timer.due_at) > self._position:
                return True
            try:
                self._reactor.fire(timer)
            except RestrictedError:
                later = self._deps.clock() + TIMER_WAIT
                timers.put_off_timer(self._ledger_id, timer.process, timer.timer_id, later)
            else:
                timers.clear_timer(self._ledger_id, timer.process, timer.timer_id)
            self._move(self._position)
            did = True
        return did

    def _due(self, limit: int) -> Sequence[Timer]:
        return self._deps.derived.timers.due_timers(self._ledger_id, self._manager.name, self._deps.clock(), limit)

    @property
    def _held(self) -> HeldEvents:
        return self._deps.derived.held_events
