"""Who watches what is asked of a database, by whatever way it gets there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import psycopg
from sqlalchemy import Engine, event

Watcher = Callable[[str, Any], None]
"""Gets a statement and its values."""


def _silent(_statement: str, _values: Any) -> None:
    pass


@contextmanager
def watching(engine: Engine, before: Watcher = _silent, after: Watcher = _silent) -> Iterator[None]:
    """Call ``before`` and ``after`` around each statement on the database of this engine (PostgreSQL: of any engine, in
    this thread). What they ask themselves they do not hear of."""
    if engine.dialect.name != "postgresql":
        with _listening(engine, "before_cursor_execute", before), _listening(engine, "after_cursor_execute", after):
            yield
        return
    original, busy, here = psycopg.Cursor.execute, [False], threading.get_ident()

    def execute(cursor: psycopg.Cursor[Any], query: Any, params: Any = None, **options: Any) -> psycopg.Cursor[Any]:
        elsewhere = threading.get_ident() != here or cursor.connection.info.dbname != engine.url.database
        if busy[0] or elsewhere:
            return original(cursor, query, params, **options)

        def tell(watcher: Watcher) -> None:
            busy[0] = True
            try:
                watcher(str(query), params)
            finally:
                busy[0] = False

        tell(before)
        done = original(cursor, query, params, **options)
        tell(after)
        return done

    # Below SQLAlchemy, since not every statement goes through it.
    with mock.patch.object(psycopg.Cursor, "execute", execute):
        yield


@contextmanager
def _listening(engine: Engine, moment: str, watcher: Watcher) -> Iterator[None]:
    def note(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, _many: bool) -> None:
        watcher(statement, values)

    event.listen(engine, moment, note)
    try:
        yield
    finally:
        event.remove(engine, moment, note)


@contextmanager
def noted_statements(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are asked meanwhile, with their values; not those by which a connection is made ready."""
    noted: list[tuple[str, Any]] = []

    def note(statement: str, values: Any) -> None:
        if not statement.startswith("SET "):
            noted.append((statement, values))

    with watching(engine, note):
        yield noted
