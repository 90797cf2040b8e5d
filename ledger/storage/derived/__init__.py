"""Derived data: everything here can be dropped and computed again from the log."""

from __future__ import annotations

from sqlalchemy import Engine

from ledger.ports import Derived
from ledger.storage.derived.cursors import SqlCursors
from ledger.storage.derived.held_events import SqlHeldEvents
from ledger.storage.derived.key_windows import SqlKeyWindows
from ledger.storage.derived.read_models import SqlReadModels
from ledger.storage.derived.snapshots import SqlSnapshots
from ledger.storage.derived.subscriptions import SqlSubscriptions
from ledger.storage.derived.timers import SqlTimers


def open_derived(engine: Engine) -> Derived:
    """The stores of derived data in the ledger database."""
    return Derived(
        cursors=SqlCursors(engine),
        snapshots=SqlSnapshots(engine),
        read_models=SqlReadModels(engine),
        subscriptions=SqlSubscriptions(engine),
        timers=SqlTimers(engine),
        held_events=SqlHeldEvents(engine),
        key_windows=SqlKeyWindows(engine),
    )
