"""Events that process managers have gone by and are to come back to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Engine

from ledger.storage.database import insert_missing, read, writing
from ledger.storage.tables import held_events


class SqlHeldEvents:
    """Satisfies ``ledger.ports.HeldEvents``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def hold_event(self, ledger_id: UUID, process: str, stream_ref: bytes, position: int) -> None:
        """Have an event wait, unless it does."""
        row = {"ledger_id": ledger_id, "process": process, "stream_ref": stream_ref, "position": position}
        with writing(self._engine) as connection:
            insert_missing(connection, held_events, row)

    def held_streams(self, ledger_id: UUID, process: str, after: bytes, limit: int) -> Sequence[bytes]:
        """Refs of streams that have events waiting."""
        columns = held_events.c
        statement = (
            sa.select(columns.stream_ref)
            .distinct()
            .where(columns.ledger_id == ledger_id, columns.process == process, columns.stream_ref > after)
            .order_by(columns.stream_ref)
            .limit(limit)
        )
        return read(self._engine, lambda connection: connection.execute(statement).scalars().all())

    def holding(self, ledger_id: UUID, process: str, stream_refs: Collection[bytes]) -> frozenset[bytes]:
        """Those of these streams that have events waiting."""
        columns = held_events.c
        statement = (
            sa.select(columns.stream_ref)
            .distinct()
            .where(columns.ledger_id == ledger_id, columns.process == process, columns.stream_ref.in_(stream_refs))
        )
        return frozenset(read(self._engine, lambda connection: connection.execute(statement).scalars().all()))

    def held_events(self, ledger_id: UUID, process: str, stream_ref: bytes, limit: int) -> Sequence[int]:
        """Positions of the events of a stream that wait, in order."""
        position = held_events.c.position
        statement = sa.select(position).where(*_of(ledger_id, process, stream_ref)).order_by(position).limit(limit)
        return read(self._engine, lambda connection: connection.execute(statement).scalars().all())

    def release_event(self, ledger_id: UUID, process: str, stream_ref: bytes, position: int) -> None:
        """An event waits no more."""
        this = (*_of(ledger_id, process, stream_ref), held_events.c.position == position)
        with writing(self._engine) as connection:
            connection.execute(sa.delete(held_events).where(*this))


def _of(ledger_id: UUID, process: str, stream_ref: bytes) -> Sequence[Any]:
    columns = held_events.c
    return (columns.ledger_id == ledger_id, columns.process == process, columns.stream_ref == stream_ref)
