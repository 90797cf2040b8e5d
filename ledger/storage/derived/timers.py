"""The timers of process managers."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Engine, exc

from ledger.ports import Timer
from ledger.storage.database import read, writing
from ledger.storage.tables import timers


class SqlTimers:
    """Satisfies ``ledger.ports.Timers``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def set_timer(self, ledger_id: UUID, timer: Timer) -> None:
        """Set a timer, unless it is set."""
        row = {
            "ledger_id": ledger_id,
            "process": timer.process,
            "stream_ref": timer.stream_ref,
            "name": timer.name,
            "timer_id": timer.timer_id,
            "due_at": timer.due_at,
            "set_by": timer.set_by,
        }
        with writing(self._engine) as connection:
            try:
                with connection.begin_nested():
                    connection.execute(sa.insert(timers), row)
            except exc.IntegrityError:
                return

    def due_timers(self, ledger_id: UUID, process: str, now: int, limit: int) -> Sequence[Timer]:
        """Those that are due, earliest first."""
        columns = timers.c
        statement = (
            sa.select(timers)
            .where(columns.ledger_id == ledger_id, columns.process == process, columns.due_at <= now)
            .order_by(columns.due_at, columns.stream_ref, columns.name)
            .limit(limit)
        )
        found = read(self._engine, lambda connection: connection.execute(statement).all())
        return [
            Timer(
                timer_id=row.timer_id,
                process=row.process,
                stream_ref=row.stream_ref,
                name=row.name,
                due_at=row.due_at,
                set_by=row.set_by,
            )
            for row in found
        ]

    def clear_timer(self, ledger_id: UUID, process: str, stream_ref: bytes, name: str) -> None:
        """Remove a timer."""
        columns = timers.c
        statement = sa.delete(timers).where(
            columns.ledger_id == ledger_id,
            columns.process == process,
            columns.stream_ref == stream_ref,
            columns.name == name,
        )
        with writing(self._engine) as connection:
            connection.execute(statement)
