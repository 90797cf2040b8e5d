"""Wake those who wait for a ledger to grow.

PostgreSQL tells: a thread of each process that appends notifies a channel of what is committed, and one of each process
that waits listens to it. Not in the transactions that append: PostgreSQL lets only one transaction of the whole server
commit at a time that notifies, until it is on the disk. SQLite cannot tell, so whoever appends wakes its own process,
and for other processes the head is looked at often. A wake-up is a hint and never the truth: it can be lost with a
connection or a process. So nobody waits for longer than ``PATIENCE_SECONDS`` without a look at the head.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary

import psycopg
import sqlalchemy as sa
from sqlalchemy import Engine, exc

CHANNEL: Final = "audit_ledger_events"
PATIENCE_SECONDS: Final = 1.0
"""What a lost notification costs, at most."""

SQLITE_PATIENCE_SECONDS: Final = 0.05
RECONNECT_SECONDS: Final = 0.5
BETWEEN_SECONDS: Final = 0.02
"""What lies between two notifications of a process, at least: what grows meanwhile is told together."""


_NOTIFY: Final = "SELECT pg_notify(%s, id) FROM unnest(%s::text[]) AS grown (id)"


class Wakeups:
    """Who waits in this process on one database, and what wakes them. Shared by threads; takes up nothing until
    somebody waits."""

    def __init__(self, engine: Engine) -> None:
        self._lock = threading.Lock()
        self._bells: dict[UUID, _Bell] = {}
        self._listener: _Listener | None = None
        self._crier: _Crier | None = None
        self._listens = engine.dialect.name == "postgresql"
        self._patience = PATIENCE_SECONDS if self._listens else SQLITE_PATIENCE_SECONDS

    def wait(self, engine: Engine, ledger_id: UUID, size: int, seconds: float, look: Callable[[], int]) -> int:
        """Wait until ``look``, which tells the ledger's size, gives more than ``size``, or the time is up."""
        deadline = time.monotonic() + seconds
        with self._bell(ledger_id) as bell:
            while True:
                heard = bell.rings
                found = look()
                left = deadline - time.monotonic()
                if found > size or left <= 0:
                    return found
                if self._listens:
                    self._listen(engine)
                bell.wait(heard, min(left, self._patience))

    def announce(self, engine: Engine, ledger_id: UUID) -> None:
        """Wake who waits for this ledger, in other processes too. It has grown, and that is committed."""
        self.ring(ledger_id)
        if self._listens:
            with self._lock:
                if self._crier is None:
                    self._crier = _Crier(engine)
                crier = self._crier
            crier.tell(ledger_id)

    def ring(self, ledger_id: UUID) -> None:
        """Wake who waits for this ledger in this process."""
        with self._lock:
            bell = self._bells.get(ledger_id)
            if bell is not None:
                bell.ring()

    def ring_all(self) -> None:
        """Wake everybody: something may have been missed."""
        with self._lock:
            for bell in self._bells.values():
                bell.ring()

    def close(self) -> None:
        """Tell what is left to tell, and stop listening. Who waits goes on; somebody who waits later listens again."""
        with self._lock:
            listener, self._listener = self._listener, None
            crier, self._crier = self._crier, None
        if crier is not None:
            crier.stop()
        if listener is not None:
            listener.stop()

    @contextmanager
    def _bell(self, ledger_id: UUID) -> Iterator[_Bell]:
        with self._lock:
            bell = self._bells.setdefault(ledger_id, _Bell(self._lock))
            bell.waiting += 1
        try:
            yield bell
        finally:
            with self._lock:
                bell.waiting -= 1
                if not bell.waiting:
                    del self._bells[ledger_id]

    def _listen(self, engine: Engine) -> None:
        with self._lock:
            if self._listener is None:
                self._listener = _Listener(engine, self)


class _Bell:
    """What those who wait for one ledger listen for. ``rings`` and ``waiting`` are guarded by the lock."""

    def __init__(self, lock: threading.Lock) -> None:
        self._rung = threading.Condition(lock)
        self.rings = 0
        self.waiting = 0

    def wait(self, heard: int, seconds: float) -> None:
        """Until it has rung again since it had rung ``heard`` times, or the time is up."""
        with self._rung:
            self._rung.wait_for(lambda: self.rings != heard, seconds)

    def ring(self) -> None:
        """Wake all who wait. The caller holds the lock."""
        self.rings += 1
        self._rung.notify_all()


class _Listener:
    """One thread with one connection of its own, which takes up what PostgreSQL notifies."""

    def __init__(self, engine: Engine, wakeups: Wakeups) -> None:
        self._engine = engine
        self._wakeups = wakeups
        self._stopped = threading.Event()
        # A byte that gets the thread out of its select at once when it shall stop.
        self._inside, self._outside = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="audit-ledger-wakeups", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and its connection."""
        self._stopped.set()
        with suppress(OSError):
            self._outside.send(b"x")
        self._thread.join(PATIENCE_SECONDS)
        self._outside.close()

    def _run(self) -> None:
        with self._inside:
            while not self._stopped.is_set():
                # Whatever went wrong, the followers look for themselves meanwhile.
                with suppress(exc.SQLAlchemyError, psycopg.Error, OSError):
                    self._listen()
                self._stopped.wait(RECONNECT_SECONDS)

    def _listen(self) -> None:
        with closing(_connect(self._engine)) as connection, selectors.DefaultSelector() as selector:
            connection.execute(f"LISTEN {CHANNEL}")
            self._wakeups.ring_all()
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._inside, selectors.EVENT_READ)
            while not self._stopped.is_set():
                for notification in connection.notifies(timeout=0):
                    with suppress(ValueError):
                        self._wakeups.ring(UUID(notification.payload))
                selector.select(PATIENCE_SECONDS)


class _Crier:
    """One thread with one connection of its own, which tells PostgreSQL of the ledgers that have grown."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._grown: set[UUID] = set()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="audit-ledger-crier", daemon=True)
        self._thread.start()

    def tell(self, ledger_id: UUID) -> None:
        """Have it told soon."""
        with self._changed:
            if not self._grown:
                self._changed.notify()
            self._grown.add(ledger_id)

    def stop(self) -> None:
        """End the thread and its connection, when everything is told."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(PATIENCE_SECONDS)

    def _run(self) -> None:
        while not self._is_done():
            # What cannot be told is seen by those who wait when their patience ends.
            with suppress(exc.SQLAlchemyError, psycopg.Error, OSError), closing(_connect(self._engine)) as connection:
                while grown := self._next():
                    connection.execute(
                        "SELECT pg_notify(%s, id) FROM unnest(%s::text[]) AS grown (id)", (CHANNEL, grown)
                    )
                    time.sleep(BETWEEN_SECONDS)
                return
            time.sleep(RECONNECT_SECONDS)

    def _is_done(self) -> bool:
        with self._changed:
            return self._stopped

    def _next(self) -> list[str]:
        """What has grown meanwhile, or else next; nothing when the end has come."""
        with self._changed:
            self._changed.wait_for(lambda: self._grown or self._stopped)
            grown = [str(ledger_id) for ledger_id in self._grown]
            self._grown.clear()
        return grown


def _connect(engine: Engine) -> psycopg.Connection[Any]:
    """A connection as the engine makes them, that is not one of its pool: those are for who reads and writes."""
    pooled = engine.raw_connection()
    connection = pooled.driver_connection
    if not isinstance(connection, psycopg.Connection):
        raise TypeError("only psycopg listens and tells")
    pooled.detach()
    connection.autocommit = True
    return connection


def wakeups_of(engine: Engine) -> Wakeups:
    """The wake-ups of an engine, the same for all who use it. They end when it is disposed of."""
    with _making:
        wakeups = _wakeups.get(engine)
        if wakeups is not None:
            return wakeups
        wakeups = _wakeups[engine] = Wakeups(engine)
        sa.event.listen(engine, "engine_disposed", lambda _: wakeups.close())
        return wakeups


_making = threading.Lock()
_wakeups: WeakKeyDictionary[Engine, Wakeups] = WeakKeyDictionary()
