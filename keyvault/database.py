"""Engines, transactions and whatever else differs between SQLite and PostgreSQL.

Foreign exceptions become the vault's own here, and lose their text on the way: it can hold values of the statement
(I5).
"""

from __future__ import annotations

import fcntl
import os
import select
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final, Literal, TypeVar
from weakref import WeakKeyDictionary

import psycopg
import sqlalchemy as sa
from sqlalchemy import (
    BindParameter,
    Column,
    CompoundSelect,
    Connection,
    Engine,
    Integer,
    Select,
    Table,
    create_engine,
    event,
    exc,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import ConnectionPoolEntry

from keyvault.errors import BusyError, ConnectionLostError, KeyVaultError, VaultUnavailableError

T = TypeVar("T")

Work = Literal["rotation", "reconciling"]

BUSY_TIMEOUT_SECONDS: Final = 30.0
POSTGRESQL_SETTINGS: Final = (
    "SET statement_timeout = '30s'",
    "SET lock_timeout = '10s'",
    "SET idle_in_transaction_session_timeout = '60s'",
    # I11: whatever the server's default is, a key is on disk before the events that need it, and a fence before the
    # erasure is acknowledged.
    "SET synchronous_commit = on",
)
_BUSY_MILLISECONDS: Final = int(BUSY_TIMEOUT_SECONDS * 1000)
_WRITE: Final = "keyvault_write"
_USED_AT: Final = "keyvault_used_at"
_PING_AFTER_SECONDS: Final = 1.0
_MIGRATION_LOCK: Final = 0x6B657976_61756C74
_EPOCH_LOCK: Final = 0x6B657976_65706F63
_MINT_LOCK: Final = 0x6B657976_6D696E74
_WORK_LOCKS: Final[Mapping[Work, int]] = {"rotation": 0x6B657976_726F7461, "reconciling": 0x6B657976_7265636F}
_BUSY: Final[Mapping[Work, str]] = {
    "rotation": "another process is rotating or destroying epochs; wait until it is done, and ask again",
    "reconciling": "another process is reconciling vault, ledgers and journal; wait until it is done, and ask again",
}


def make_engine(url: str) -> Engine:
    """The engine for ``sqlite:///PATH`` or ``postgresql+psycopg://…``. Connects to nothing yet."""
    parsed = make_url(url)
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return _sqlite_engine(parsed)
    if parsed.drivername == "postgresql+psycopg":
        return _postgresql_engine(parsed)
    raise KeyVaultError(
        f"the vault's database cannot be {parsed.drivername}; supported are sqlite:///PATH and postgresql+psycopg://…"
    )


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One read-only transaction. In SQLite a snapshot, in PostgreSQL READ COMMITTED: each statement sees what was
    committed before it, so the order of statements matters."""
    with _translated(), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One write transaction, committed when the block ends and rolled back when it raises.

    In SQLite there is one writer at a time: threads queue here in order of arrival, processes at ``BEGIN IMMEDIATE``.
    """
    with _translated():
        lock = _write_locks.get(engine)
        if lock is None:
            with engine.begin() as connection:
                yield connection
            return
        # Before the connection is taken: writers that wait must not drain the pool of the readers.
        with lock.held(BUSY_TIMEOUT_SECONDS), engine.connect() as unmarked:
            connection = unmarked.execution_options(**{_WRITE: True})
            with connection.begin():
                yield connection


def read(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run ``work`` in one read-only transaction; once more if the connection was lost under it."""
    try:
        with reading(engine) as connection:
            return work(connection)
    except ConnectionLostError:
        with reading(engine) as connection:
            return work(connection)


def look(engine: Engine, work: Callable[[Connection], T]) -> T:
    """The same for statements that each stand alone: PostgreSQL takes them outside of a transaction, which would have
    given each a snapshot of its own too. That spares two ways to the server."""
    if engine.dialect.name != "postgresql":
        return read(engine, work)
    try:
        with _translated(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return work(connection)
    except ConnectionLostError:
        with _translated(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return work(connection)


class Question:
    """A statement that is asked so often that SQLAlchemy's part in it would cost more than the database's: on
    PostgreSQL it is put into words once, and goes to the driver as it is. ``make`` gives it for a dialect. Its values
    are what the driver takes: UUIDs, bytes, numbers, text."""

    def __init__(self, make: Callable[[str], Select[Any] | CompoundSelect[Any]]) -> None:
        self._make = cache(make)
        self._words: str | None = None

    def ask(self, connection: Connection, values: Mapping[str, Any]) -> Sequence[Any]:
        """All rows, as tuples."""
        dialect = connection.dialect
        if dialect.name != "postgresql":
            return connection.execute(self._make(dialect.name), values).all()
        if self._words is None:
            self._words = str(self._make(dialect.name).compile(dialect=dialect))
        driver: Any = connection.connection.driver_connection
        try:
            return list(driver.execute(self._words, values))
        except psycopg.Error as error:
            if driver.closed:
                connection.invalidate(error)
                raise ConnectionLostError(
                    f"the connection to the vault's database was lost ({_name_of(error)})"
                ) from None
            raise


def among(
    dialect: str, statement: Select[Any], column: Column[bytes], values: BindParameter[bytes], size: int
) -> Select[Any]:
    """The rows of a statement whose column has one of many values of ``size`` bytes each, handed over as :func:`joined`
    makes them one: so the statement is the same for any number of them, and made once.

    The column leads to few rows each. PostgreSQL looks for every value by itself (``OFFSET 0`` keeps it to that), by
    the index: for a list of unknown length it would expect so many rows that it reads the whole table. Its planner does
    not get to see the values, which stand in a SELECT of their own: else it would find a plan for just these values
    cheaper than the one it has, and make one each time, which takes longer than to run it.
    """
    zero, one, width = (literal_column(str(number), Integer) for number in (0, 1, size))
    if dialect == "postgresql":
        unseen = sa.select(values).scalar_subquery()
        count = func.length(unseen, type_=Integer).op("/", return_type=Integer())(width)
        places = func.generate_series(one, count).table_valued(sa.column("n", Integer)).render_derived()
        value = func.substr(unseen, (places.c.n - one) * width + one, width)
        found = statement.where(column == value).offset(zero).lateral()
        return sa.select(found).select_from(places.join(found, sa.true()))
    count = func.length(values, type_=Integer).op("/", return_type=Integer())(width)
    last = sa.select(count.label("n")).cte(f"places_of_{values.key}", recursive=True, nesting=True)
    numbers = last.union_all(sa.select(last.c.n - one).where(last.c.n > one))
    return statement.where(column.in_(sa.select(func.substr(values, (numbers.c.n - one) * width + one, width))))


def joined(values: Iterable[bytes], size: int) -> bytes:
    """Values of ``size`` bytes each, one after another, for :func:`among`. Raises :class:`ValueError` for another size:
    it would move all that follow."""
    listed = list(values)
    if any(len(value) != size for value in listed):
        raise ValueError(f"each value has {size} bytes")
    return b"".join(listed)


def insert_missing(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert the rows in their order, leaving alone what is there already. Whoever loses a race sees the winner's row
    in its next statement."""
    if not rows:
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(insert(table).on_conflict_do_nothing(), rows)


def lock_epochs(connection: Connection) -> None:
    """Let one process at a time change epochs, until this transaction ends. SQLite has one writer anyway."""
    _advisory_lock(connection, _EPOCH_LOCK)


def share_minting(connection: Connection) -> None:
    """Let many mint at once, until this transaction ends, and none while somebody waits for :func:`stop_minting`.

    Row locks are not enough in PostgreSQL: whoever wants a row FOR SHARE overtakes those who wait to change it, and
    writers that mint all the time would keep a rotation waiting for ever. Advisory locks are given in order of arrival
    (docs/adr/0008).
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock_shared(:number)"), {"number": _MINT_LOCK})


def stop_minting(connection: Connection) -> None:
    """Wait for those who mint, and keep the others waiting until this transaction ends."""
    _advisory_lock(connection, _MINT_LOCK)


@contextmanager
def only_one(engine: Engine, work: Work = "rotation") -> Iterator[None]:
    """Let one process or thread at a time rotate or destroy (or mend what a restored backup has brought back). Raises
    :class:`BusyError` at once when another does.

    It saves work and no more: each transaction of theirs holds by itself, should this lock be lost. It ends with the
    process. SQLite: a lock on a file beside the database (never on the database's own file: closing that would drop
    SQLite's locks).
    """
    with _translated():
        if engine.dialect.name == "postgresql":
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                number = {"n": _WORK_LOCKS[work]}
                if not connection.execute(text("SELECT pg_try_advisory_lock(:n)"), number).scalar_one():
                    raise BusyError(_BUSY[work])
                try:
                    yield
                finally:
                    with suppress(exc.SQLAlchemyError):  # a lost connection has lost the lock as well
                        connection.execute(text("SELECT pg_advisory_unlock(:n)"), number)
            return
    with _lock_file(f"{engine.url.database}.{work}", _BUSY[work]):
        yield


@contextmanager
def _lock_file(path: str, busy: str) -> Iterator[None]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise VaultUnavailableError(f"cannot open {path} ({error.strerror})") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BusyError(busy) from None
    finally:
        os.close(fd)


def take_long(connection: Connection) -> None:
    """Let statements of this transaction go through a whole table, however large it is."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))


def put_in_random_order(engine: Engine, tables: Sequence[Table]) -> None:
    """Write the rows of these tables anew in the order of their primary keys, which lead with random values: so that
    the order of rows, which a dump has too, does not tell which of them came together.

    SQLite keeps such tables in that order by itself. PostgreSQL holds each table for the time that it takes, so nobody
    mints meanwhile. Raises :class:`KeyVaultError` for a role that does not own them.
    """
    if engine.dialect.name != "postgresql":
        return
    for table in tables:
        with writing(engine) as connection:
            take_long(connection)
            quote = connection.dialect.identifier_preparer.quote
            connection.exec_driver_sql(f"CLUSTER {quote(table.name)} USING {quote(str(table.primary_key.name))}")


def prepare_migration(connection: Connection) -> None:
    """Let one process at a time migrate, and as long as it takes."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
    _advisory_lock(connection, _MIGRATION_LOCK)


def scrub(engine: Engine) -> None:
    """Get deleted rows out of SQLite's write-ahead log, as far as readers leave it free now.

    Tidiness, not a promise: older copies of wrapped keys die with the KEK of their epoch.
    """
    if engine.dialect.name == "sqlite":
        with _translated(), engine.connect() as connection:
            # The pool's BEGIN would stand in the way: a checkpoint runs outside of transactions.
            cursor = connection.connection.cursor()
            cursor.execute("PRAGMA busy_timeout = 100")
            try:
                with suppress(sqlite3.OperationalError):  # others are using the log: the next checkpoint will do it
                    cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")


class FairLock:
    """A lock that threads get in order of arrival, so that none starves under load."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def held(self, timeout: float) -> Iterator[None]:
        """Hold the lock for the block. Raises :class:`VaultUnavailableError` after ``timeout`` seconds of waiting."""
        self._acquire(timeout)
        try:
            yield
        finally:
            self._release()

    def _acquire(self, timeout: float) -> None:
        with self._mutex:
            if not self._held:
                self._held = True
                return
            turn = threading.Event()
            self._waiting.append(turn)
        if turn.wait(timeout):
            return
        with self._mutex:
            if turn.is_set():  # handed over in the very moment of giving up: it is ours after all
                return
            self._waiting.remove(turn)
        raise VaultUnavailableError("the vault's database is busy")

    def _release(self) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().set()  # handed over without ever being free: nobody can barge in
            else:
                self._held = False


_write_locks: WeakKeyDictionary[Engine, FairLock] = WeakKeyDictionary()
# So that nobody uses a new file while its maker has yet to close it.
_creating = threading.Lock()


def _sqlite_engine(url: URL) -> Engine:
    if not url.database or url.database == ":memory:" or url.query:
        raise KeyVaultError("the vault's SQLite database is a file: sqlite:///PATH")
    path = url.database
    engine = create_engine(
        url,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        pool_size=20,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_SECONDS,
    )

    @event.listens_for(engine, "do_connect")
    def create_private(*_: object) -> None:
        # SQLite gives its -wal and -shm files the mode of the database file.
        try:
            _create_unless_there(path)
            os.chmod(path, 0o600)
        except OSError as error:
            raise VaultUnavailableError(f"cannot open {path} ({error.strerror})") from None

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own; ``begin`` below does
        # A hand can put text that is not UTF-8 into any column; that row is damaged, and the others must stay readable.
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        # Switching to WAL does not wait for other processes by itself.
        _while_busy(lambda: connection.execute("PRAGMA journal_mode = WAL"))
        # Without recursive triggers, INSERT OR REPLACE would get past the trigger that keeps fences.
        for pragma in ("synchronous = FULL", "foreign_keys = ON", "secure_delete = ON", "recursive_triggers = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        how = "IMMEDIATE" if connection.get_execution_options().get(_WRITE) else "DEFERRED"
        _while_busy(lambda: connection.connection.cursor().execute(f"BEGIN {how}"))

    _write_locks[engine] = FairLock()
    return engine


def _create_unless_there(path: str) -> None:
    """A file that is there is not opened: closing it would drop every lock that SQLite holds on it in this process
    (POSIX locks belong to the process). Another process that closes the database would then take itself for the last,
    and delete the log into which this one goes on writing what it acknowledges (I11)."""
    with _creating, suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _while_busy(work: Callable[[], object]) -> None:
    """Try again while another process holds the file, where SQLite's own busy timeout does not apply."""
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    pause = 0.001
    while True:
        try:
            work()
            return
        except sqlite3.OperationalError as error:
            busy = (error.sqlite_errorcode & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def _postgresql_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        pool_size=20,
        max_overflow=0,
        pool_use_lifo=True,
        pool_timeout=10.0,
        connect_args={"connect_timeout": 5},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        autocommit = connection.autocommit
        connection.autocommit = True  # as statements and not as options of the start packet, which poolers refuse
        for setting in POSTGRESQL_SETTINGS:
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


def _advisory_lock(connection: Connection, number: int) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


_OPERATIONAL: Final = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except exc.SQLAlchemyError as error:
        # ``from None``: the original text can hold values of the statement.
        raise _translation(error) from None
    except psycopg.Error as error:  # from questions, of which SQLAlchemy does not know
        raise _meaning_of(error, operational=isinstance(error, psycopg.OperationalError)) from None
    except sqlite3.Error as error:  # from the listeners below, which SQLAlchemy does not wrap
        raise VaultUnavailableError(f"the vault's database cannot be used ({type(error).__name__})") from None


def _translation(error: exc.SQLAlchemyError) -> KeyVaultError:
    original = getattr(error, "orig", None) or error
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return ConnectionLostError(f"the connection to the vault's database was lost ({_name_of(original)})")
    return _meaning_of(original, operational=isinstance(error, _OPERATIONAL))


def _meaning_of(error: BaseException, *, operational: bool) -> KeyVaultError:
    what = _name_of(error)
    if operational:
        return VaultUnavailableError(f"the vault's database cannot be used ({what})")
    return KeyVaultError(f"the vault's database refused a statement ({what}); are its migrations and grants in place?")


def _name_of(error: BaseException) -> str:
    """What an operator can look up: the kind of the error and its code, nothing that was said about values."""
    code = getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None)
    name = type(error).__name__
    return f"{name} {code}" if code else name
