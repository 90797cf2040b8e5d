"""The ceiling of bulk appends: PostgreSQL's binary COPY of the very same rows into the very same tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, LiteralString
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from ledger.storage.database import open_engine
from ledger.storage.migrate import migrate
from scripts.benchmarks.support.load import Loaded
from tests.support.postgres import PostgresCluster

_TABLES: Final[tuple[LiteralString, ...]] = ("events", "event_keys")

Rows = dict[str, bytes]
"""By table, as COPY gives and takes them."""


class CopyCeiling:
    """A second ledger database, made by the migrations as the first one was: with its indexes, keys and triggers."""

    def __init__(self, cluster: PostgresCluster, ledger_url: str) -> None:
        self._cluster = cluster
        self._source = _database(ledger_url)
        url = cluster.create_database()
        self.database = _database(url)
        """Where the copies are."""
        engine = open_engine(url)
        migrate(engine)
        engine.dispose()
        with cluster.connect(self._source) as source, cluster.connect(self.database) as target:
            self._write(target, {"ledgers": self._read(source, "SELECT * FROM ledgers")})

    def size(self) -> int:
        """How many events the ledger's database has: of the only ledger that is written to."""
        with self._cluster.connect(self._source) as connection:
            row = connection.execute("SELECT max(size) FROM heads").fetchone()
        return 0 if row is None else int(row[0])

    def rows(self, first: int, end: int) -> Rows:
        """The rows of the events from one position until before another."""
        with self._cluster.connect(self._source) as connection:
            return {
                table: self._read(
                    connection, "SELECT * FROM {} WHERE position >= {} AND position < {} ORDER BY position", table,
                    first, end,
                )
                for table in _TABLES
            }  # fmt: skip

    def load(self, parts: Sequence[Rows], events: int) -> Loaded:
        """Each part on a connection of its own, in one transaction."""
        connections = [self._cluster.connect(self.database) for _ in parts]
        cpu, began = time.thread_time(), time.perf_counter()
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(self._write, connections, parts))
        loaded = Loaded(events, time.perf_counter() - began, time.thread_time() - cpu)
        for connection in connections:
            connection.close()
        return loaded

    @staticmethod
    def _read(connection: psycopg.Connection, query: LiteralString, table: str = "", *numbers: int) -> bytes:
        places = [sql.Identifier(table), *map(sql.Literal, numbers)] if table else []
        statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(sql.SQL(query).format(*places))
        with connection.cursor().copy(statement) as copy:
            return b"".join(map(bytes, copy))

    @staticmethod
    def _write(connection: psycopg.Connection, rows: Rows) -> None:
        with connection.transaction():
            for table, data in rows.items():
                statement = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(sql.Identifier(table))
                with connection.cursor().copy(statement) as copy:
                    copy.write(data)


def _database(url: str) -> str:
    return urlsplit(url).path.strip("/")
