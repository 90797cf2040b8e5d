"""The leaves of the published log, in bundles of 256 (https://c2sp.org/tlog-tiles)."""

from __future__ import annotations

import struct
from typing import Final
from uuid import UUID

from ledger.domain.encoding import leaf_of
from ledger.domain.merkle import hash_leaf
from ledger.domain.query import EventFilter
from ledger.domain.tiles import Tile
from ledger.errors import IntegrityError
from ledger.services.dependencies import Dependencies
from ledger.services.proving.proofs import require_published

EVENTS_AT_ONCE: Final = 32
"""A leaf is small, but it is made from the sealed event, of up to a megabyte."""

_LENGTH: Final = struct.Struct(">H")


def entry_bundle(deps: Dependencies, ledger_id: UUID, tile: Tile) -> bytes:
    """The leaves that a tile of level 0 has the hashes of, each behind its length as u16. Raises ``NotFoundError`` for
    what is not published, and ``IntegrityError`` rather than to give a leaf that is not in the tree."""
    require_published(deps, ledger_id, tile)
    bundle = []
    first, beyond = tile.first, tile.first + tile.width
    while first < beyond:
        last = min(first + EVENTS_AT_ONCE, beyond) - 1
        events = deps.store.select_events(ledger_id, EventFilter(first, last), None, EVENTS_AT_ONCE)
        if [event.position for event in events] != list(range(first, last + 1)):
            raise IntegrityError(f"an event from position {first} to {last} is missing; run `audit-ledger verify`")
        for event in events:
            leaf = leaf_of(event)
            if hash_leaf(leaf) != event.leaf_hash:
                raise IntegrityError(f"the event at position {event.position} is not what its leaf says")
            bundle.append(_LENGTH.pack(len(leaf)) + leaf)
        first = last + 1
    return b"".join(bundle)
