"""Resolve moments of the past: a time or position becomes the last position that it includes."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from ledger.domain.query import AsOf, Moment
from ledger.errors import Fault, InvalidError
from ledger.services.dependencies import Dependencies

BEFORE_ALL: Final = -1
"""The position before the first event."""


def resolve_as_of(deps: Dependencies, ledger_id: UUID, as_of: AsOf | None, pointer: str = "/as_of") -> Moment:
    """The last event that a moment includes (None: now). Raises ``InvalidError`` for the future.

    The answer for one moment never changes: before a time is resolved that is not clearly past, those who hold the head
    lock are waited for, since they may already have taken an earlier recorded-at.
    """
    if as_of is None:
        head = deps.store.head(ledger_id)
        return Moment(head.size - 1, head.last_recorded_at if head.size else None)
    if as_of.position is not None:
        return _at_position(deps, ledger_id, as_of.position, pointer)
    time = as_of.time or 0
    if time > deps.clock():
        raise InvalidError("as_of lies in the future", [Fault(pointer, "must not be in the future")])
    position = settled_position_at(deps, ledger_id, time)
    return Moment(position, deps.store.recorded_at(ledger_id, position) if position >= 0 else None)


def settled_position_at(deps: Dependencies, ledger_id: UUID, time: int) -> int:
    """The last position that was recorded at or before a time that has come; -1: none."""
    head = deps.store.head(ledger_id)
    if time >= head.last_recorded_at:
        head = deps.store.head(ledger_id, settled=True)
    return last_position_at(deps, ledger_id, time, head.size, head.last_recorded_at)


def _at_position(deps: Dependencies, ledger_id: UUID, position: int, pointer: str) -> Moment:
    if position < BEFORE_ALL:
        raise InvalidError("as_of is no position", [Fault(pointer, f"must be at least {BEFORE_ALL}")])
    if position == BEFORE_ALL:
        # What a time before the first event resolves to; an answer can be asked for again.
        return Moment(position, None)
    size = deps.store.head(ledger_id).size
    if position >= size:
        message = f"must be below the size of the ledger, {size}"
        raise InvalidError("as_of lies in the future", [Fault(pointer, message)])
    return Moment(position, deps.store.recorded_at(ledger_id, position))


def last_position_at(deps: Dependencies, ledger_id: UUID, time: int, size: int, last_recorded_at: int) -> int:
    """The last position below ``size`` that was recorded at or before ``time``; -1: none."""
    return size - 1 if time >= last_recorded_at else deps.store.position_at(ledger_id, time, size)
