"""What the paged answers of time travel share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

from ledger.domain.cursors import invalid_cursor
from ledger.domain.query import Moment
from ledger.services.dependencies import Dependencies
from ledger.services.moments import BEFORE_ALL

T = TypeVar("T")

PAGE_BYTES: Final = 8 * 2**20
"""JSON of the states or values of a page: one that would have more ends before, with fewer items than its limit. Only a
page of a single item can be larger."""

STREAMS_AT_FIRST: Final = 8
"""Streams that are worked out at once while nobody knows how large they are; then as many as are expected to fit."""

_GROWTH: Final = 32
"""So many times as many streams at once as before, at most: those that come can be larger."""


def pinned_moment(deps: Dependencies, ledger_id: UUID, position: int) -> Moment:
    """The moment that a cursor pins. Raises ``InvalidError`` when this ledger has no such position."""
    if position == BEFORE_ALL:
        return Moment(position, None)
    if not 0 <= position < deps.store.head(ledger_id).size:
        raise invalid_cursor()
    return Moment(position, deps.store.recorded_at(ledger_id, position))


def json_size(value: Any) -> int:
    """Bytes of a value as escaped JSON: never fewer than an answer has of it. Raises ``TypeError`` for what is none."""
    return len(json.dumps(value, separators=(",", ":")))


def fill_page(
    refs: Sequence[bytes], make: Callable[[Sequence[bytes]], Mapping[bytes, T]], size_of: Callable[[T], int]
) -> dict[bytes, T]:
    """What ``make`` makes of the first of these streams, in their order: of as many as fit into ``PAGE_BYTES``, and of
    one at least. No more than about a page of them is made, so that it is in memory only."""
    page: dict[bytes, T] = {}
    used, at_once = 0, STREAMS_AT_FIRST
    while len(page) < len(refs) and used < PAGE_BYTES:
        group = refs[len(page) : len(page) + at_once]
        made = make(group)
        for ref in group:
            size = size_of(made[ref])
            if page and used + size > PAGE_BYTES:
                return page
            page[ref] = made[ref]
            used += size
        expected = (PAGE_BYTES - used) * len(page) // max(used, 1)
        at_once = max(1, min(_GROWTH * len(group), expected))
    return page
