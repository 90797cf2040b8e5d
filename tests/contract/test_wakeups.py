"""Whoever waits for a ledger to grow hears of it soon, whatever is lost on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from ledger.storage.wakeups import CHANNEL, PATIENCE_SECONDS, Wakeups
from tests.support.ledgers import Backend, Ledger, a_fact, a_visit

LONG = 30.0
SLACK = 3.0
"""Seconds that a busy machine may take on top."""


@contextmanager
def waiting(ledger: Ledger, size: int, seconds: float = LONG) -> Iterator[Future[int]]:
    """Somebody who waits in another thread until a ledger is larger."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(ledger.deps.store.wait_for_growth, ledger.ledger_id, size, seconds)


def until(holds: Callable[[], bool]) -> None:
    """Come back when something holds."""
    deadline = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def listeners(backend: Backend) -> list[int]:
    """The server processes of connections that listen."""
    query = sa.text(
        "SELECT pid FROM pg_stat_activity"
        " WHERE query LIKE :query AND pid <> pg_backend_pid() AND datname = current_database()"
    )
    with backend.engine.connect() as connection:
        return list(connection.execute(query, {"query": f"LISTEN {CHANNEL}%"}).scalars())


def test_what_is_there_is_not_waited_for(ledger: Ledger) -> None:
    """And when the time is up, the size is what it was."""
    ledger.append(a_fact())

    assert ledger.deps.store.wait_for_growth(ledger.ledger_id, 0, LONG) == 1
    assert ledger.deps.store.wait_for_growth(ledger.ledger_id, 1, 0.01) == 1


def test_an_append_wakes(ledger: Ledger) -> None:
    """Long before the time is up."""
    began = time.monotonic()
    with waiting(ledger, 0) as size:
        ledger.append(a_fact())

        assert size.result(LONG) == 1
    assert time.monotonic() - began < PATIENCE_SECONDS + SLACK


def test_who_only_looks_under_the_lock_wakes_nobody(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions about a moment take the head lock, too, and have nothing to tell of."""
    told: list[object] = []
    monkeypatch.setattr(Wakeups, "announce", lambda *arguments: told.append(arguments))

    assert ledger.deps.store.head(ledger.ledger_id, settled=True).size == 0
    assert told == []
    ledger.append(a_fact())
    assert len(told) == 1


def test_an_erasure_wakes(ledger: Ledger) -> None:
    """Its event goes the same way as any other."""
    ledger.append(a_visit())
    began = time.monotonic()
    with waiting(ledger, 1) as size:
        ledger.erase("patient:A")

        assert size.result(LONG) == 2
    assert time.monotonic() - began < PATIENCE_SECONDS + SLACK


def test_postgresql_tells_at_once(backend: Backend) -> None:
    """By notification: nobody looked at the head in between."""
    ledger = backend.new_ledger()
    if backend.engine.dialect.name == "sqlite":
        # It cannot tell, so nobody listens; the process that appends tells itself.
        ledger.deps.store.wait_for_growth(ledger.ledger_id, 0, 0.01)
        assert listening_threads() == []
        return
    with waiting(ledger, 0):
        until(lambda: len(listeners(backend)) == 1)
        ledger.append(a_fact())
    delays = []
    for size in range(1, 6):
        with waiting(ledger, size) as grown:
            # The last look was just now, the next is a second away.
            time.sleep(PATIENCE_SECONDS / 5)
            began = time.monotonic()
            ledger.append(a_fact())
            grown.result(LONG)
            delays.append(time.monotonic() - began)

    assert sorted(delays)[len(delays) // 2] < PATIENCE_SECONDS / 2


@pytest.mark.parametrize("times", [1, 3])
def test_a_lost_notification_costs_a_second_at_most(backend: Backend, times: int) -> None:
    """The connection that listens is cut while somebody waits; it comes back by itself."""
    ledger = backend.new_ledger()
    for number in range(times):
        with waiting(ledger, number) as size:
            if backend.engine.dialect.name == "postgresql":
                until(lambda: len(listeners(backend)) == 1)
                with backend.engine.begin() as connection:
                    for process in listeners(backend):
                        connection.execute(sa.select(sa.func.pg_terminate_backend(process)))
            began = time.monotonic()
            ledger.append(a_fact())

            assert size.result(LONG) == number + 1
            assert time.monotonic() - began < PATIENCE_SECONDS + SLACK


def test_waiting_takes_no_connection_of_the_pool(backend: Backend) -> None:
    """Many may wait, and the others work on."""
    ledger = backend.new_ledger()
    with ThreadPoolExecutor(40) as pool:
        futures = [pool.submit(backend.store.wait_for_growth, ledger.ledger_id, 0, LONG) for _ in range(40)]
        time.sleep(PATIENCE_SECONDS / 2)
        began = time.monotonic()
        ledger.append(a_fact())

        assert {future.result(LONG) for future in futures} == {1}
    assert time.monotonic() - began < PATIENCE_SECONDS + SLACK


def test_nobody_listens_when_the_engine_is_disposed_of(backend: Backend) -> None:
    """Thread and connection end with it; whoever waits afterwards begins anew."""
    ledger_id = backend.new_ledger().ledger_id
    expected = 1 if backend.engine.dialect.name == "postgresql" else 0
    for _ in range(2):
        backend.store.wait_for_growth(ledger_id, 0, 0.5)
        assert len(listening_threads()) == expected
        until(lambda: len(listeners(backend)) == expected if expected else True)
        backend.engine.dispose()
        until(lambda: listening_threads() == [])


def listening_threads() -> list[str]:
    """The threads of this process that listen to a database."""
    return [thread.name for thread in threading.enumerate() if thread.name == "audit-ledger-wakeups"]
