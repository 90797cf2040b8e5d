"""The timers of process managers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
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
        """Set a timer, in place of the one of the same process, stream and name."""
        values = {"timer_id": timer.timer_id, "due_at": timer.due_at, "set_by": timer.set_by}
        place = {
            "ledger_id": ledger_id,
            "process": timer.process,
            "stream_ref": timer.stream_ref,
            "name": timer.name,
        }
        replace = sa.update(timers).where(*_is(ledger_id, timer.process, timer.stream_ref, timer.name)).values(values)
        with writing(self._engine) as connection:
            if connection.execute(replace).rowcount:
                return
            try:
                with connection.begin_nested():
                    connection.execute(sa.insert(timers), {**place, **values})
            except exc.IntegrityError:
                # Another has set it between the two statements; the later one counts.
                connection.execute(replace)

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

    def clear_timer(
        self, ledger_id: UUID, process: str, stream_ref: bytes, name: str, timer_id: UUID | None = None
    ) -> None:
        """Remove a timer."""
        statement = sa.delete(timers).where(*_is(ledger_id, process, stream_ref, name))
        if timer_id is not None:
            statement = statement.where(timers.c.timer_id == timer_id)
        with writing(self._engine) as connection:
            connection.execute(statement)


def _is(ledger_id: UUID, process: str, stream_ref: bytes, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    columns: Any = timers.c
    return (
        columns.ledger_id == ledger_id,
        columns.process == process,
        columns.stream_ref == stream_ref,
        columns.name == name,
    )
