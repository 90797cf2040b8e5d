"""Engines, transactions and whatever else differs between SQLite and PostgreSQL.

Foreign exceptions become the ledger's own here, and lose their text on the way: it can hold values of the statement
(I5). ``keyvault`` has a module of the same kind: the two packages share nothing, so that each can be read alone.
"""

from __future__ import annotations

import os
import select
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import psycopg
import sqlalchemy as sa
from psycopg.rows import namedtuple_row
from sqlalchemy import Column, ColumnElement, Connection, Engine, event, exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from ledger.errors import IntegrityError, StoreUnavailableError

T = TypeVar("T")

PATIENCE_SECONDS: Final = 30
"""How long a SQLite writer waits for its turn before the client is told to come back."""

_SESSION_SETTINGS: Final = (
    "SET statement_timeout = '30s'",
    "SET lock_timeout = '10s'",
    # A process that hangs in a transaction must not keep the head from everybody else.
    "SET idle_in_transaction_session_timeout = '60s'",
    # I11: what is acknowledged is on disk, whatever the server's default is.
    "SET synchronous_commit = on",
)
_WRITES: Final = "ledger_writes"
_USED_AT: Final = "ledger_used_at"
_PING_AFTER_SECONDS: Final = 1.0
_REFUSALS: Final = (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError)
_MIGRATION_LOCK: Final = 0x6C656467_65723031


class _ConnectionLostError(StoreUnavailableError):
    """The connection went away under a statement."""


def open_engine(url: str) -> Engine:
    """The engine for ``sqlite:///PATH`` or ``postgresql+psycopg://…``. Connects to nothing yet."""
    parsed = make_url(url)
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return _sqlite(parsed)
    if parsed.drivername == "postgresql+psycopg":
        return _postgresql(parsed)
    raise ValueError("the ledger database must be sqlite:///PATH or postgresql+psycopg://…")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A read transaction: in SQLite one snapshot, in PostgreSQL (READ COMMITTED) one for each statement."""
    with _own_errors(), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A write transaction: committed when the block ends, rolled back when it raises.

    SQLite has one writer at a time. Threads queue here, before they take a connection from the readers' pool; processes
    queue at ``BEGIN IMMEDIATE``.
    """
    with _own_errors():
        turn = _turns.get(engine)
        if turn is None:
            with engine.begin() as connection:
                yield connection
            return
        if not turn.acquire(timeout=PATIENCE_SECONDS):
            raise StoreUnavailableError("the ledger database is busy")
        try:
            with engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
                yield connection
        finally:
            turn.release()


def read(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run ``work`` in a read transaction; once more, on a fresh connection, if the first one went away under it."""
    try:
        with reading(engine) as connection:
            return work(connection)
    except _ConnectionLostError:
        with reading(engine) as connection:
            return work(connection)


def look(engine: Engine, work: Callable[[Connection], T]) -> T:
    """The same for statements that each stand alone: PostgreSQL takes them outside of a transaction, which would have
    given each a snapshot of its own too. That spares two ways to the server."""
    if engine.dialect.name != "postgresql":
        return read(engine, work)
    try:
        with _own_errors(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return work(connection)
    except _ConnectionLostError:
        with _own_errors(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return work(connection)


class Question:
    """A statement that is asked so often that SQLAlchemy's part in it would cost more than the database's: on
    PostgreSQL it is put into words once, and goes to the driver as it is. Its values are what the driver takes: UUIDs,
    bytes, numbers, text. Rows have the names of the columns."""

    def __init__(self, statement: sa.Select[Any]) -> None:
        self._statement = statement
        self._words: str | None = None

    def look(self, engine: Engine, **values: Any) -> Sequence[Any]:
        """Ask it by itself, as :func:`look` does."""
        if engine.dialect.name != "postgresql":
            return read(engine, lambda connection: connection.execute(self._statement, values).all())
        try:
            return self._alone(engine, values)
        except _ConnectionLostError:
            return self._alone(engine, values)

    def within(self, connection: Connection, **values: Any) -> Sequence[Any]:
        """Ask it in a transaction that is under way."""
        if connection.dialect.name != "postgresql":
            return connection.execute(self._statement, values).all()
        return self._ask(driver_of(connection), connection.dialect, values)

    def _alone(self, engine: Engine, values: Mapping[str, Any]) -> Sequence[Any]:
        with _own_errors(), closing(engine.raw_connection()) as pooled:
            driver: Any = pooled.driver_connection
            try:
                driver.autocommit = True
                rows = self._ask(driver, engine.dialect, values)
                driver.autocommit = False
            except BaseException as error:
                # Whatever it was: a connection that went back like this would give the next writer no transaction (I1).
                pooled.invalidate(error)
                if isinstance(error, psycopg.Error) and driver.closed:
                    raise _lost_connection(error) from None
                raise
            return rows

    def _ask(self, driver: Any, dialect: sa.Dialect, values: Mapping[str, Any]) -> Sequence[Any]:
        if self._words is None:
            self._words = str(self._statement.compile(dialect=dialect))
        with driver.cursor(row_factory=namedtuple_row) as cursor:
            return list(cursor.execute(self._words, values))


def driver_of(connection: Connection) -> psycopg.Connection[tuple[Any, ...]]:
    """PostgreSQL's driver under a connection, for what SQLAlchemy would make dear. Its errors become the ledger's own
    around the transaction."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError("only psycopg is spoken to directly")
    return driver


class unindexed(FunctionElement[Any]):  # noqa: N801 - reads as a function of SQL
    """A column or expression that SQLite is not to take an index for: it has no statistics, and takes any range of
    positions or times for a small one. PostgreSQL knows better, and gets it as it is."""

    inherit_cache = True
    name = "unindexed"


@compiles(unindexed)
def _as_it_is(element: unindexed, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(unindexed, "sqlite")
def _with_a_plus(element: unindexed, compiler: SQLCompiler, **options: Any) -> str:
    # https://www.sqlite.org/optoverview.html#disqualifying_where_clause_terms_using_unary_
    return f"+({compiler.process(element.clauses, **options)})"


def one_of(connection: Connection, column: Column[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """Whether a column has one of many values.

    PostgreSQL gets them as one array: for an ``IN`` of hundreds of parameters its planner expects so many rows in a
    table without statistics that it reads the whole table instead of the index.
    """
    if connection.dialect.name == "postgresql":
        return column == sa.any_(sa.literal(list(values), postgresql.ARRAY(column.type)))
    return column.in_(values)


def one_of_hashes(connection: Connection, column: Column[bytes], hashes: Sequence[bytes]) -> ColumnElement[bool]:
    """The same for columns of 32 bytes each, of which there can be thousands: to PostgreSQL they go as one value, since
    its driver takes longer over each element of an array than ``verify`` has for an event."""
    if connection.dialect.name != "postgresql":
        return column.in_(hashes)
    number = sa.func.generate_series(0, len(hashes) - 1).column_valued("number")
    return column.in_(sa.select(sa.func.substr(sa.literal(b"".join(hashes), sa.LargeBinary), number * 32 + 1, 32)))


def insert_missing(connection: Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    """Insert a row, unless one with its key is there. Whoever loses a race sees the winner's row in the next
    statement."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(insert(table).on_conflict_do_nothing(), dict(row))


def put(connection: Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    """Insert a row, in the place of the one with its key if there is one."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    keys = [column.name for column in table.primary_key]
    values = {name: value for name, value in row.items() if name not in keys}
    connection.execute(insert(table).on_conflict_do_update(index_elements=keys, set_=values), dict(row))


def contains(connection: Connection, column: Column[bytes], piece: bytes) -> ColumnElement[bool]:
    """Whether these bytes stand somewhere in a column of bytes."""
    if connection.dialect.name == "postgresql":
        return sa.func.pg_catalog.position(column, sa.literal(piece, sa.LargeBinary)) > 0
    return sa.func.instr(column, sa.literal(piece, sa.LargeBinary)) > 0


def joined_bytes(
    connection: Connection, column: Column[bytes], order: Column[int], place: ColumnElement[bool]
) -> bytes:
    """The values of a column of bytes one after another, of the rows of a place in this order.

    PostgreSQL joins them itself: so many small values would cost more on the way than they are worth.
    """
    if connection.dialect.name == "postgresql":
        joined = sa.func.string_agg(column, postgresql.aggregate_order_by(sa.literal(b"", sa.LargeBinary), order))
        return bytes(connection.execute(sa.select(joined).where(place)).scalar_one() or b"")
    found: Sequence[Any] = connection.execute(sa.select(column).where(place).order_by(order)).scalars().all()
    # SQLite lets a hand put anything there; what is no bytes is missing.
    return b"".join(value for value in found if isinstance(value, bytes))


def joined_text(dialect: str, column: Column[str]) -> ColumnElement[str | None]:
    """The texts of a group one after another, in any order."""
    joined = sa.func.string_agg if dialect == "postgresql" else sa.func.group_concat
    return joined(column, sa.literal("", sa.Text))


def see_one_moment(connection: Connection) -> None:
    """Let all statements of a read transaction see the same moment. Its first statement; in SQLite they do anyway."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def take_long(connection: Connection) -> None:
    """Let statements of this transaction go through a whole table, however large it is."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        # Between two of its batches ``verify`` does its own work, which can wait for a slow key provider.
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")


def leave_unflushed(connection: Connection) -> None:
    """Let the commit of this transaction not wait for the disk. For what is derived, and what a later commit that does
    wait takes to the disk with it."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")


def for_migration(connection: Connection) -> None:
    """Let one process at a time migrate, for as long as it takes."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        connection.execute(sa.text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})


def refuse_changes(table: str, dialect: str) -> list[str]:
    """The DDL that makes a table append-only (I1)."""
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            for action in ("UPDATE", "DELETE")
        ]
    return [
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()",
        f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    ]


REFUSE_CHANGE: Final = (
    "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
)

_turns: WeakKeyDictionary[Engine, threading.Lock] = WeakKeyDictionary()
# So that nobody uses a new file while its maker has yet to close it.
_creating = threading.Lock()


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:" or url.query:
        raise ValueError("the ledger's SQLite database must be a file: sqlite:///PATH")
    path = url.database
    engine = sa.create_engine(
        url,
        hide_parameters=True,
        pool_size=20,
        max_overflow=0,
        pool_timeout=PATIENCE_SECONDS,
        connect_args={"timeout": PATIENCE_SECONDS, "check_same_thread": False},
    )
    _turns[engine] = threading.Lock()

    @event.listens_for(engine, "do_connect")
    def private(*_: object) -> None:
        # Created before SQLite does it, so that nobody else can read it; -wal and -shm take over its mode.
        try:
            _create_unless_there(path)
        except OSError as error:
            raise StoreUnavailableError(f"cannot open the ledger database ({error.strerror})") from None

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        # The driver must not begin transactions of its own accord; ``begin`` below does it.
        connection.isolation_level = None
        # Bytes that are not UTF-8, in a column that somebody has edited, must not keep the other rows from being read.
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"))
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        # I1: without it INSERT OR REPLACE deletes a row behind the back of the triggers that forbid it.
        connection.execute("PRAGMA recursive_triggers = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        kind = "IMMEDIATE" if connection.get_execution_options().get(_WRITES) else "DEFERRED"
        _patiently(lambda: connection.connection.cursor().execute(f"BEGIN {kind}"))

    return engine


def _create_unless_there(path: str) -> None:
    """A file that is there is not opened: closing it would drop every lock that SQLite holds on it in this process
    (POSIX locks belong to the process). Another process that closes the database would then take itself for the last,
    and delete the log into which this one goes on writing what it acknowledges (I11)."""
    with _creating, suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _patiently(work: Callable[[], object]) -> None:
    """Try again while another process holds the file: SQLite's own busy timeout does not cover every case."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            work()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            if time.monotonic() > deadline:
                raise StoreUnavailableError("the ledger database is busy") from None
            time.sleep(0.002)
        else:
            return


def _postgresql(url: URL) -> Engine:
    engine = sa.create_engine(
        url,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        pool_size=20,
        max_overflow=0,
        pool_use_lifo=True,
        pool_timeout=10,
        connect_args={"connect_timeout": 5},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        autocommit, connection.autocommit = connection.autocommit, True
        for setting in _SESSION_SETTINGS:
            connection.execute(setting)
        connection.autocommit = autocommit

    @event.listens_for(engine, "checkin")
    def note_use(_: Any, record: ConnectionPoolEntry) -> None:
        record.info[_USED_AT] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def test(connection: Any, record: ConnectionPoolEntry, _: object) -> None:
        # Like ``pool_pre_ping``, without a way to the server for a connection that was in use a moment ago. A server
        # that went away has said so: then there is something to read.
        used_at = record.info.get(_USED_AT)
        if used_at is None:
            return
        try:
            if time.monotonic() - used_at > _PING_AFTER_SECONDS or _has_input(connection):
                engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error:
            raise exc.DisconnectionError from None

    return engine


def _has_input(connection: Any) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except exc.SQLAlchemyError as error:
        # ``from None``: the original text can hold values of the statement.
        raise _translated(error) from None
    except psycopg.Error as error:
        # From COPY and from questions, which SQLAlchemy does not know of.
        raise _refused(error) if isinstance(error, _REFUSALS) else _lost(error) from None
    except sqlite3.Error as error:
        # From the listeners above, where SQLAlchemy does not wrap.
        raise StoreUnavailableError(f"the ledger database cannot be used ({_code(error)})") from None


def _translated(error: exc.SQLAlchemyError) -> Exception:
    original = getattr(error, "orig", None) or error
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return _lost_connection(original)
    if isinstance(error, exc.IntegrityError | exc.DataError | exc.ProgrammingError):
        return _refused(original)
    return _lost(original)


def _lost_connection(error: BaseException) -> StoreUnavailableError:
    return _ConnectionLostError(f"the connection to the ledger database was lost ({_code(error)})")


def _refused(error: BaseException) -> IntegrityError:
    return IntegrityError(
        f"the ledger database refused a statement ({_code(error)}); run `audit-ledger migrate`, then `audit-ledger "
        "verify`"
    )


def _lost(error: BaseException) -> StoreUnavailableError:
    return StoreUnavailableError(f"the ledger database cannot be used ({_code(error)})")


def _code(error: BaseException) -> str:
    code = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
    return f"{type(error).__name__} {code}" if code else type(error).__name__
