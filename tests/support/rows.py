"""Rows of events and of their keys by column, for tests that write them by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ledger.domain.events import RecordedEvent
from ledger.storage.rows import event_values, key_values
from ledger.storage.tables import event_keys, events


def event_row(event: RecordedEvent) -> Mapping[str, Any]:
    """The row of ``events`` of an event."""
    return dict(zip(events.c.keys(), event_values(event), strict=True))


def key_rows(event: RecordedEvent) -> list[Mapping[str, Any]]:
    """The rows of ``event_keys`` of an event."""
    return [dict(zip(event_keys.c.keys(), row, strict=True)) for row in key_values(event)]
