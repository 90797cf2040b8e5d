"""Insert many rows at once, past what makes statements comfortable: that costs more than the databases themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from ledger.domain.events import RecordedEvent
from ledger.storage import rows
from ledger.storage.tables import Id, event_keys, events

_POSTGRESQL_TYPES: Final = {
    Id: "uuid",
    sa.BigInteger: "int8",
    sa.Integer: "int4",
    sa.SmallInteger: "int2",
    sa.Text: "text",
    sa.LargeBinary: "bytea",
}


def insert_events(connection: Connection, recorded: Sequence[RecordedEvent]) -> None:
    """Add the rows of these events and of their keys."""
    _insert(connection, events, (rows.event_values(event) for event in recorded))
    _insert(connection, event_keys, [row for event in recorded for row in rows.key_values(event)])


def _insert(connection: Connection, table: sa.Table, values: Iterable[Sequence[Any]]) -> None:
    """``values``: one for each column, in the order of the table's."""
    if connection.dialect.name == "postgresql":
        statement, types = _copy_of(table)
        cursor = connection.connection.cursor()
        with cursor.copy(statement) as copy:
            copy.set_types(types)
            for row in values:
                copy.write_row(row)
        return
    ids = [number for number, column in enumerate(table.c) if isinstance(column.type, Id)]
    found = [[*row] for row in values]
    for row in found:
        for number in ids:
            row[number] = None if row[number] is None else row[number].bytes
    if found:
        connection.exec_driver_sql(_insert_of(table), [tuple(row) for row in found])


@cache
def _copy_of(table: sa.Table) -> tuple[str, Sequence[str]]:
    types = [_POSTGRESQL_TYPES[type(column.type)] for column in table.c]
    return f"COPY {table.name} ({', '.join(table.c.keys())}) FROM STDIN (FORMAT BINARY)", types


@cache
def _insert_of(table: sa.Table) -> str:
    places = ", ".join("?" for _ in table.c)
    return f"INSERT INTO {table.name} ({', '.join(table.c.keys())}) VALUES ({places})"  # noqa: S608 - names of our own
