"""The timers of process managers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Engine

from ledger.ports import Timer
from ledger.storage.database import insert_missing, read, writing
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
            "timer_id": timer.timer_id,
            "due_at": timer.due_at,
            "set_by": timer.set_by,
            "number": timer.number,
        }
        with writing(self._engine) as connection:
            insert_missing(connection, timers, row)

    def due_timers(self, ledger_id: UUID, process: str, now: int, limit: int) -> Sequence[Timer]:
        """Those that are due, earliest first."""
        columns = timers.c
        statement = (
            sa.select(timers)
            .where(columns.ledger_id == ledger_id, columns.process == process, columns.due_at <= now)
            .order_by(columns.due_at, columns.timer_id)
            .limit(limit)
        )
        found = read(self._engine, lambda connection: connection.execute(statement).all())
        return [Timer(row.timer_id, row.process, row.due_at, row.set_by, row.number) for row in found]

    def put_off_timer(self, ledger_id: UUID, process: str, timer_id: UUID, due_at: int) -> None:
        """Wake the process later."""
        with writing(self._engine) as connection:
            connection.execute(sa.update(timers).where(*_this(ledger_id, process, timer_id)).values(due_at=due_at))

    def clear_timer(self, ledger_id: UUID, process: str, timer_id: UUID) -> None:
        """Remove a timer."""
        with writing(self._engine) as connection:
            connection.execute(sa.delete(timers).where(*_this(ledger_id, process, timer_id)))


def _this(ledger_id: UUID, process: str, timer_id: UUID) -> Sequence[Any]:
    columns = timers.c
    return (columns.ledger_id == ledger_id, columns.process == process, columns.timer_id == timer_id)
