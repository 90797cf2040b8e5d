"""Keep the windows of keys up to date, behind the log: what the worker does.

A window grows by whole steps of the log, and only behind the head, so what it covers does not change any more. Which
keys are worth one is guessed from some of the events: a wrong guess costs time and nothing else. At which positions
they are used is read in ``event_keys``, which is what counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from ledger.domain.events import RecordedEvent, Role
from ledger.domain.key_windows import SHAPE, Shape, Window, bits_of
from ledger.errors import IntegrityError, LeaseLostError
from ledger.ports import Cursor, CursorKey, KeyWindow
from ledger.services.counting.windows import open_windows, seal_windows
from ledger.services.dependencies import Dependencies

CURSOR: Final = CursorKey("key-windows", "log")
"""How far the log is looked through for keys that are used often."""

LEASE: Final = 5_000_000
"""Microseconds."""


def step(deps: Dependencies, ledger_id: UUID, holder: UUID, shape: Shape = SHAPE) -> bool:
    """Look at the next step of the log. False when it is not whole yet, or somebody else does it.

    Can be killed at any point: the windows and the cursor move in one transaction (I12).
    """
    taken = _take(deps, ledger_id, holder, shape)
    if taken is None:
        return False
    first = taken.position + 1
    beyond = (first // shape.step + 1) * shape.step
    often, leaf_hash = _used_often(deps, ledger_id, first, beyond, shape)
    windows = _grown(deps, ledger_id, often, beyond, leaf_hash, shape)
    now = deps.clock()
    try:
        deps.derived.key_windows.put_key_windows(
            ledger_id, CURSOR, holder, taken.position, beyond - 1, windows, now, now + LEASE
        )
    except LeaseLostError:
        # Who has it now does the same work again, to the same end.
        return False
    return True


def _take(deps: Dependencies, ledger_id: UUID, holder: UUID, shape: Shape) -> Cursor | None:
    """The cursor, leased; None when no step is whole behind it, or it is somebody else's."""
    cursors, now, size = deps.derived.cursors, deps.clock(), deps.store.head(ledger_id).size
    known = next(iter(cursors.cursors(ledger_id, CURSOR.kind, CURSOR.name)), None)
    if size < ((known.position + 1 if known is not None else 0) // shape.step + 1) * shape.step:
        return None
    if known is None:
        cursors.add_cursor(ledger_id, CURSOR, 1, "running", -1)
    taken = cursors.take_cursor(ledger_id, CURSOR, holder, now, now + LEASE)
    # Another may have moved it in between.
    return taken if taken is not None and size >= ((taken.position + 1) // shape.step + 1) * shape.step else None


def _used_often(
    deps: Dependencies, ledger_id: UUID, first: int, beyond: int, shape: Shape
) -> tuple[Sequence[bytes], bytes]:
    """The keys that many events here seem to have parts under, and the leaf hash of the last event."""
    starts = range(first, beyond, shape.stretch)
    # Which one of each stretch is left to chance, so that whoever writes at a steady beat is not overlooked for good.
    chances = deps.entropy(len(starts))
    sample = {start + chance % shape.stretch for start, chance in zip(starts, chances, strict=True)}
    found = {event.position: event for event in deps.store.events_at(ledger_id, {*sample, beyond - 1})}
    if beyond - 1 not in found:
        raise IntegrityError(f"the event at position {beyond - 1} is missing; run `audit-ledger verify`")
    events = Counter(key_id for position in sample & found.keys() for key_id in _keys_of(found[position]))
    often = [key_id for key_id, count in events.items() if count >= shape.fewest]
    return often, found[beyond - 1].leaf_hash


def _keys_of(event: RecordedEvent) -> Collection[bytes]:
    return {part.key_id for part in event.parts if part.role not in (Role.NONPERSONAL, Role.SHREDDED)}


def _grown(
    deps: Dependencies, ledger_id: UUID, key_ids: Sequence[bytes], beyond: int, leaf_hash: bytes, shape: Shape
) -> Sequence[KeyWindow]:
    """The windows of these keys, from where they begin up to ``beyond``."""
    first = (beyond - 1) // shape.window * shape.window
    stored = list(deps.derived.key_windows.key_windows_at(ledger_id, key_ids, first).values()) if key_ids else []
    known = {one.key_id: one for one in open_windows(deps, ledger_id, stored) if one is not None}
    windows = []
    for key_id in key_ids:
        window = known.get(key_id, Window(key_id, first, first, 0))
        if window.beyond < beyond:
            positions = deps.store.key_positions(ledger_id, key_id, window.beyond, beyond)
            bits = window.bits | bits_of(positions, first, beyond)
            windows.append(Window(key_id, first, beyond, bits))
    return seal_windows(deps, ledger_id, windows, leaf_hash)
