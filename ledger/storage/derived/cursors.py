"""The cursors of everything that follows a log, and their leases.

Leases are times of the clients' clocks, which can differ. That costs double work and never harm: every change names
its holder and the position that it moves from, and one statement both checks and changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from ledger.errors import LeaseLostError
from ledger.ports import Cursor, CursorKey, CursorKind, CursorState
from ledger.storage.database import insert_missing, read, writing
from ledger.storage.tables import cursors

_MOVING: Final = ("building", "running")
"""The states in which a cursor moves."""

_NOBODY: Final[dict[str, Any]] = {"holder": None, "lease_until": 0, "leased_to": -1, "replay_to": -1}
_NO_FAILURE: Final[dict[str, Any]] = {"tries": 0, "retry_at": 0, "error": None}


class SqlCursors:
    """Satisfies ``ledger.ports.Cursors``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def cursors(self, ledger_id: UUID, kind: CursorKind, name: str | None = None) -> Sequence[Cursor]:
        """The cursors of a kind, in order of name and number."""
        columns = cursors.c
        statement = sa.select(cursors).where(columns.ledger_id == ledger_id, columns.kind == kind)
        if name is not None:
            statement = statement.where(columns.name == name)
        statement = statement.order_by(columns.name, columns.number)
        found = read(self._engine, lambda connection: connection.execute(statement).all())
        return [cursor_from(row) for row in found]

    def add_cursor(self, ledger_id: UUID, key: CursorKey, version: int, state: CursorState, position: int) -> Cursor:
        """The cursor of this key, made if it is not there yet; or the newest, if that has a higher number."""
        columns = cursors.c
        newest = (
            sa.select(cursors)
            .where(columns.ledger_id == ledger_id, columns.kind == key.kind, columns.name == key.name)
            .order_by(columns.number.desc())
            .limit(1)
        )
        with writing(self._engine) as connection:
            found = connection.execute(newest).one_or_none()
            if found is not None and found.number > key.number:
                # The newest stays for as long as there are any, so this one is gone, and whoever asks was away.
                return cursor_from(found)
            insert_cursor(connection, ledger_id, key, version, state, position)
            return cursor_from(connection.execute(sa.select(cursors).where(*_is(ledger_id, key))).one())

    def take_cursor(
        self,
        ledger_id: UUID,
        key: CursorKey,
        holder: UUID,
        now: int,
        lease_until: int,
        *,
        leased_to: int = -1,
        replay_to: int = -1,
    ) -> Cursor | None:
        """Lease a cursor that nobody else holds."""
        columns = cursors.c
        free = sa.or_(columns.holder.is_(None), columns.lease_until <= now, columns.holder == holder)
        statement = (
            sa.update(cursors)
            .where(*_is(ledger_id, key), columns.state.in_(_MOVING), columns.retry_at <= now, free)
            .values(holder=holder, lease_until=lease_until, leased_to=leased_to, replay_to=replay_to)
            .returning(cursors)
        )
        with writing(self._engine) as connection:
            # Whoever waits in PostgreSQL for the row of this statement looks at the condition again when it gets it.
            row = connection.execute(statement).one_or_none()
        return cursor_from(row) if row is not None else None

    def move_cursor(
        self, ledger_id: UUID, key: CursorKey, holder: UUID, old: int, new: int, now: int, lease_until: int
    ) -> None:
        """From ``old`` to ``new``, and the lease prolonged."""
        with writing(self._engine) as connection:
            advance_cursor(connection, ledger_id, key, holder, old, new, now, lease_until)

    def release_cursor(self, ledger_id: UUID, key: CursorKey, holder: UUID) -> None:
        """Give a lease back, if it is still ours."""
        statement = sa.update(cursors).where(*_is(ledger_id, key), cursors.c.holder == holder).values(**_NOBODY)
        with writing(self._engine) as connection:
            connection.execute(statement)

    def note_failure(
        self, ledger_id: UUID, key: CursorKey, holder: UUID, position: int, error: str, *, retry_at: int, stop: bool
    ) -> Cursor:
        """Count a failure behind ``position`` and release the lease."""
        columns = cursors.c
        statement = (
            sa.update(cursors)
            .where(*_is_ours(ledger_id, key, holder, position))
            .values(
                tries=columns.tries + 1,
                retry_at=retry_at,
                error=error,
                state="stopped" if stop else columns.state,
                **_NOBODY,
            )
            .returning(cursors)
        )
        with writing(self._engine) as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise lease_lost()
        return cursor_from(row)

    def restart_cursor(self, ledger_id: UUID, key: CursorKey) -> bool:
        """Stopped → running or building."""
        earlier = cursors.alias()
        # A generation that has taken over has retired all before it. So while one of them is not, it has not.
        has_yet_to_take_over = (
            sa.select(earlier.c.number)
            .where(
                earlier.c.ledger_id == ledger_id,
                earlier.c.kind == key.kind,
                earlier.c.name == key.name,
                earlier.c.number < key.number,
                earlier.c.state != "retired",
            )
            .exists()
        )
        state = sa.case((has_yet_to_take_over, "building"), else_="running") if key.kind == "projection" else "running"
        statement = (
            sa.update(cursors)
            .where(*_is(ledger_id, key), cursors.c.state == "stopped")
            .values(state=state, **_NO_FAILURE)
        )
        with writing(self._engine) as connection:
            return connection.execute(statement).rowcount == 1


def insert_cursor(
    connection: Connection, ledger_id: UUID, key: CursorKey, version: int, state: CursorState, position: int
) -> None:
    """Add a cursor, unless it is there."""
    row = {
        "ledger_id": ledger_id,
        "kind": key.kind,
        "name": key.name,
        "number": key.number,
        "version": version,
        "state": state,
        "position": position,
        "moved_at": 0,
        **_NOBODY,
        **_NO_FAILURE,
    }
    insert_missing(connection, cursors, row)


def advance_cursor(
    connection: Connection,
    ledger_id: UUID,
    key: CursorKey,
    holder: UUID,
    old: int,
    new: int,
    now: int,
    lease_until: int,
) -> None:
    """Move a cursor and prolong its lease, in a transaction that can do more. Its first statement, best: who has lost
    the lease is told here, and has changed nothing. Raises ``LeaseLostError``."""
    moved = {"position": new, "moved_at": now, **_NO_FAILURE} if new != old else {}
    statement = (
        sa.update(cursors).where(*_is_ours(ledger_id, key, holder, old)).values(lease_until=lease_until, **moved)
    )
    if connection.execute(statement).rowcount != 1:
        raise lease_lost()


def lease_lost() -> LeaseLostError:
    """Somebody else has the lease, or the cursor has moved, stopped or been retired."""
    return LeaseLostError("the lease is over and somebody else has it; nothing was changed")


def cursor_from(row: sa.Row[Any]) -> Cursor:
    """A cursor of a row of ``cursors``."""
    return Cursor(
        key=CursorKey(row.kind, row.name, row.number),
        version=row.version,
        state=row.state,
        position=row.position,
        holder=row.holder,
        lease_until=row.lease_until,
        tries=row.tries,
        retry_at=row.retry_at,
        error=row.error,
        moved_at=row.moved_at,
        leased_to=row.leased_to,
        replay_to=row.replay_to,
    )


def _is(ledger_id: UUID, key: CursorKey) -> tuple[sa.ColumnElement[bool], ...]:
    columns = cursors.c
    return (
        columns.ledger_id == ledger_id,
        columns.kind == key.kind,
        columns.name == key.name,
        columns.number == key.number,
    )


def _is_ours(ledger_id: UUID, key: CursorKey, holder: UUID, position: int) -> tuple[sa.ColumnElement[bool], ...]:
    """Compare-and-set: the holder that we are, and the position that we know."""
    columns = cursors.c
    return (
        *_is(ledger_id, key),
        columns.holder == holder,
        columns.position == position,
        columns.state.in_(_MOVING),
    )
