"""Which events of a stretch of the log have a part under a key."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from ledger.ports import CursorKey, KeyWindow
from ledger.storage.database import one_of, put, read, writing
from ledger.storage.derived.cursors import advance_cursor
from ledger.storage.statements import in_chunks
from ledger.storage.tables import events, key_windows

_NOWHERE: Final = -1


class SqlKeyWindows:
    """Satisfies ``ledger.ports.KeyWindows``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def key_windows(self, ledger_id: UUID, key_ids: Collection[bytes], first: int, limit: int) -> Sequence[KeyWindow]:
        """The next windows of these keys."""
        columns = key_windows.c
        statement = (
            _select_with_leaf()
            .where(columns.ledger_id == ledger_id, columns.key_id.in_(key_ids), columns.first >= first)
            .order_by(columns.first)
            .limit(limit)
        )
        return self._found(statement)

    def key_windows_at(self, ledger_id: UUID, key_ids: Collection[bytes], first: int) -> Mapping[bytes, KeyWindow]:
        """The windows of these keys that begin here."""
        columns = key_windows.c
        statement = _select_with_leaf().where(columns.ledger_id == ledger_id, columns.first == first)

        def look(connection: Connection) -> list[sa.Row[Any]]:
            return [
                row
                for chunk in in_chunks(key_ids)
                for row in connection.execute(statement.where(one_of(connection, columns.key_id, chunk)))
            ]

        return {row.key_id: _window_from(row) for row in read(self._engine, look)}

    def key_windows_in(
        self, ledger_id: UUID, bounds: tuple[bytes | None, bytes | None], after: tuple[bytes, int] | None, limit: int
    ) -> Sequence[KeyWindow]:
        """Windows in order of their keys."""
        columns = key_windows.c
        order = (columns.key_id, columns.first)
        statement = _select_with_leaf().where(columns.ledger_id == ledger_id).order_by(*order).limit(limit)
        first, beyond = bounds
        if first is not None:
            statement = statement.where(columns.key_id >= first)
        if beyond is not None:
            statement = statement.where(columns.key_id < beyond)
        if after is not None:
            statement = statement.where(sa.tuple_(*order) > sa.tuple_(*(sa.literal(value) for value in after)))
        return self._found(statement)

    def put_key_windows(
        self,
        ledger_id: UUID,
        key: CursorKey,
        holder: UUID,
        old: int,
        new: int,
        windows: Sequence[KeyWindow],
        now: int,
        lease_until: int,
    ) -> None:
        """Put windows, and move the cursor."""
        with writing(self._engine) as connection:
            advance_cursor(connection, ledger_id, key, holder, old, new, now, lease_until)
            for window in windows:
                row = {"key_id": window.key_id, "first": window.first, "beyond": window.beyond, "sealed": window.sealed}
                put(connection, key_windows, {"ledger_id": ledger_id, **row})

    def _found(self, statement: sa.Select[Any]) -> list[KeyWindow]:
        return [_window_from(row) for row in read(self._engine, lambda connection: connection.execute(statement).all())]


def _select_with_leaf() -> sa.Select[Any]:
    """Windows with the leaf hash that the log has at their ends."""
    columns = key_windows.c
    end = sa.and_(events.c.ledger_id == columns.ledger_id, events.c.position == columns.beyond - 1)
    fields = (columns.key_id, columns.first, columns.beyond, events.c.leaf_hash, columns.sealed)
    return sa.select(*fields).select_from(key_windows.outerjoin(events, end))


def _window_from(row: sa.Row[Any]) -> KeyWindow:
    # SQLite takes anything from a hand.
    leaf_hash = row.leaf_hash if isinstance(row.leaf_hash, bytes) else None
    first, beyond = (value if isinstance(value, int) else _NOWHERE for value in (row.first, row.beyond))
    key_id, sealed = (value if isinstance(value, bytes) else b"" for value in (row.key_id, row.sealed))
    return KeyWindow(key_id, first, beyond, leaf_hash, sealed)
