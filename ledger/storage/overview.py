"""Reads over all ledgers at once, for the worker and the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Engine

from ledger.domain.marks import LedgerState
from ledger.ports import Follower
from ledger.storage.database import read
from ledger.storage.derived.cursors import cursor_from
from ledger.storage.rows import vault_mark_from
from ledger.storage.tables import cursors, events, heads, parked_events


class SqlOverview:
    """Satisfies ``ledger.ports.Overview``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def sizes(self) -> Mapping[UUID, int]:
        """How many events each ledger has."""
        statement = sa.select(heads.c.ledger_id, heads.c.size)
        found = read(self._engine, lambda connection: connection.execute(statement).all())
        return {row.ledger_id: row.size for row in found}

    def states(self) -> Mapping[UUID, LedgerState]:
        """How far each ledger is, and what it remembers of the key vault."""
        statement = sa.select(heads.c.ledger_id, heads.c.size, heads.c.vault_mints, heads.c.journal_line)
        found = read(self._engine, lambda connection: connection.execute(statement).all())
        return {row.ledger_id: LedgerState(row.size, vault_mark_from(row)) for row in found}

    def followers(self) -> Sequence[Follower]:
        """All cursors that are not retired."""
        columns = cursors.c
        next_event = sa.and_(events.c.ledger_id == columns.ledger_id, events.c.position == columns.position + 1)
        statement = (
            sa.select(cursors, heads.c.size, events.c.recorded_at)
            .select_from(cursors.join(heads, heads.c.ledger_id == columns.ledger_id).outerjoin(events, next_event))
            .where(columns.state != "retired")
            .order_by(columns.ledger_id, columns.kind, columns.name, columns.number)
        )
        found = read(self._engine, lambda connection: connection.execute(statement).all())
        return [
            Follower(row.ledger_id, cursor_from(row), max(0, row.size - 1 - row.position), row.recorded_at)
            for row in found
        ]

    def parked(self) -> Mapping[tuple[UUID, str], int]:
        """How many messages are parked."""
        columns = parked_events.c
        group = (columns.ledger_id, columns.subscription)
        statement = sa.select(*group, sa.func.count().label("parked")).group_by(*group)
        found = read(self._engine, lambda connection: connection.execute(statement).all())
        return {(row.ledger_id, row.subscription): row.parked for row in found}
