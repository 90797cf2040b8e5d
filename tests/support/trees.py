"""Ledgers that are large in no time: rows and leaves that fit them, put there by hand, for who looks at the tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Engine

from ledger.domain.encoding import leaf_of
from ledger.domain.events import RecordedEvent
from ledger.domain.merkle import encode_frontier, extend_frontier, hash_leaf
from ledger.storage import tables
from tests.support import rows

BATCH: Final = 5000


def plant_events(engine: Engine, first: RecordedEvent, size: int) -> Iterator[RecordedEvent]:
    """Put copies of a ledger's only event behind it, at the next positions and versions, and set the head. Gives them
    as they are recorded. What is sealed in them opens at the first one alone."""
    ledger_id = first.envelope.ledger_id
    reached, frontier = extend_frontier(0, (), [first.leaf_hash])
    copies = islice((_copy(first, at) for at in count(1)), size - 1)
    while batch := list(islice(copies, BATCH)):
        with engine.begin() as connection:
            connection.execute(sa.insert(tables.events), [rows.event_row(event) for event in batch])
            reached, frontier = extend_frontier(reached, frontier, [event.leaf_hash for event in batch])
            head = {"size": reached, "frontier": encode_frontier(frontier)}
            connection.execute(sa.update(tables.heads).where(tables.heads.c.ledger_id == ledger_id).values(**head))
        yield from batch


def _copy(first: RecordedEvent, at: int) -> RecordedEvent:
    envelope = replace(first.envelope, event_id=UUID(int=at))
    event = replace(first, envelope=envelope, position=at, stream_version=1 + at)
    return replace(event, leaf_hash=hash_leaf(leaf_of(event)))
