"""Write events, their keys and the head, past what makes statements comfortable: that costs more than the databases
themselves.

PostgreSQL gets few events in one statement, with everything else, so that others wait for the head as short as can be;
many by COPY, which is quickest by the row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection

from ledger.domain.events import Head, RecordedEvent
from ledger.domain.merkle import encode_frontier
from ledger.storage import rows
from ledger.storage.copy_rows import copied_events, copied_keys
from ledger.storage.database import driver_of
from ledger.storage.tables import Id, event_keys, events, heads

FEW: Final = 64
"""Events that take longer to COPY than to put into a statement, with its two ways to the server for each table."""

_POSTGRESQL_TYPES: Final = {
    Id: "uuid",
    sa.BigInteger: "int8",
    sa.Integer: "int4",
    sa.SmallInteger: "int2",
    sa.Text: "text",
    sa.LargeBinary: "bytea",
}
_HEAD: Final = ("size", "frontier", "last_recorded_at", "vault_mints", "journal_line")
_native: Final = attrgetter("bytes")
"""How SQLite has a UUID."""


def write_events(connection: Connection, ledger_id: UUID, recorded: Sequence[RecordedEvent], head: Head) -> None:
    """Add the rows of these events and of their keys, and move the head."""
    moved = (
        head.size,
        encode_frontier(head.frontier),
        head.last_recorded_at,
        head.vault.mints,
        head.vault.journal,
    )
    if connection.dialect.name != "postgresql":
        _insert(connection, events, [rows.event_values(event, _native) for event in recorded])
        _insert(connection, event_keys, [row for event in recorded for row in rows.key_values(event, _native)])
    elif len(recorded) <= FEW:
        event_rows = [rows.event_values(event) for event in recorded]
        key_rows = [row for event in recorded for row in rows.key_values(event)]
        values = [*_columns(event_rows, events), *_columns(key_rows, event_keys), *moved, ledger_id]
        driver_of(connection).execute(_all_at_once(), values)
        return
    else:
        _copy(connection, events, copied_events(recorded))
        _copy(connection, event_keys, copied_keys(recorded))
    update = sa.update(heads).where(heads.c.ledger_id == ledger_id)
    connection.execute(update.values(dict(zip(_HEAD, moved, strict=True))))


def _columns(values: Sequence[Sequence[Any]], table: sa.Table) -> list[list[Any]]:
    return [list(column) for column in zip(*values, strict=True)] or [[] for _ in table.c]


def _copy(connection: Connection, table: sa.Table, pieces: Iterable[bytes]) -> None:
    with connection.connection.cursor().copy(_copy_into(table)) as copy:
        for piece in pieces:
            copy.write(piece)


def _insert(connection: Connection, table: sa.Table, values: Sequence[Sequence[Any]]) -> None:
    """``values``: of SQLite's own types, one for each column, in the order of the table's."""
    if values:
        connection.exec_driver_sql(_insert_into(table), values)


@cache
def _copy_into(table: sa.Table) -> str:
    return f"COPY {table.name} ({', '.join(table.c.keys())}) FROM STDIN (FORMAT BINARY)"


@cache
def _insert_into(table: sa.Table) -> str:
    places = ", ".join("?" for _ in table.c)
    return f"INSERT INTO {table.name} ({', '.join(table.c.keys())}) VALUES ({places})"  # noqa: S608 - names of our own


@cache
def _all_at_once() -> str:
    moved = ", ".join(f"{name} = %s" for name in _HEAD)
    return (
        f"WITH added_events AS ({_from_arrays(events)}), added_keys AS ({_from_arrays(event_keys)}) "  # noqa: S608
        f"UPDATE heads SET {moved} WHERE ledger_id = %s"
    )


def _from_arrays(table: sa.Table) -> str:
    arrays = ", ".join(f"%s::{kind}[]" for kind in _types(table))
    return f"INSERT INTO {table.name} ({', '.join(table.c.keys())}) SELECT * FROM unnest({arrays})"  # noqa: S608


def _types(table: sa.Table) -> list[str]:
    return [_POSTGRESQL_TYPES[type(column.type)] for column in table.c]
