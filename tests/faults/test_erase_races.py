"""Writers race an eraser: nobody writes under a dead key, nobody reads what was erased (I7, I8).

``AUDIT_LEDGER_TEST_ROUNDS`` sets the number of rounds; ``scripts/torture`` runs the full number.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from keyvault.errors import VaultUnavailableError
from ledger.domain.events import OPERATOR, Appended, OpenedEvent
from ledger.domain.query import EventQuery, NameOrRef
from ledger.errors import SubjectErasedError
from ledger.ports import HeadLock, Store
from ledger.services.appending.append import append_events
from ledger.services.dependencies import Dependencies
from ledger.services.erase import ErasureOrder, ErasureOutcome, erase_subject
from ledger.services.read import export_events
from tests.support.postgres import PostgresCluster
from tests.support.service import (
    Place,
    Service,
    event,
    new_ledger,
    open_service,
    postgres_place,
    set_up,
    sqlite_place,
    verified,
)

ROUNDS = int(os.environ.get("AUDIT_LEDGER_TEST_ROUNDS", "10"))
WRITERS = 3


@dataclass(slots=True)
class Told:
    """What one writer was told, and when (monotonic seconds at the start and at the end of the call)."""

    recorded: list[tuple[float, float, Appended]] = field(default_factory=list)
    refused: list[tuple[float, float]] = field(default_factory=list)
    surprises: list[BaseException] = field(default_factory=list)

    def refused_after(self, moment: float) -> bool:
        """Whether an append that began after this moment was refused."""
        return any(start > moment for start, _ in self.refused)


class KilledVault:
    """A store in front of which the writer's vault connections die: after the sealing, before the head is locked."""

    def __init__(self, store: Store, kill: Any) -> None:
        self._store = store
        self._kill = kill

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def locked_head(self, ledger_id: UUID) -> Iterator[HeadLock]:
        """Kill, then lock."""
        self._kill()
        with self._store.locked_head(ledger_id) as lock:
            yield lock


@pytest.mark.parametrize("purposes", [None, [""]], ids=["everything", "by purpose"])
def test_racing_writers_and_an_eraser_on_sqlite(tmp_path: Path, purposes: list[str] | None) -> None:
    """Acknowledged before the erasure: redacted after it. After it: refused. No key comes back."""
    race(sqlite_place(tmp_path / "home"), max(ROUNDS // 5, 3), purposes)


@pytest.mark.parametrize("purposes", [None, [""]], ids=["everything", "by purpose"])
def test_racing_writers_and_an_eraser_on_postgresql(
    postgres: PostgresCluster, tmp_path: Path, purposes: list[str] | None
) -> None:
    """The same with writers and eraser on connections of their own."""
    race(postgres_place(postgres, tmp_path / "home"), ROUNDS, purposes)


def test_racing_writers_whose_vault_connections_are_killed_after_sealing(
    postgres: PostgresCluster, tmp_path: Path
) -> None:
    """An append that has its keys needs the vault no more; one that has not gets an error, never a wrong answer."""
    race(postgres_place(postgres, tmp_path / "home"), ROUNDS, None, cluster=postgres)


def race(place: Place, rounds: int, purposes: list[str] | None, cluster: PostgresCluster | None = None) -> None:
    """Run the rounds on one ledger and check everything after each."""
    service = set_up(place)
    ledger_id = new_ledger(service).ledger_id
    peers = [open_service(place) for _ in range(WRITERS)]
    for number in range(rounds):
        chance = random.Random(number)
        subject = f"person:{number}"
        told = [Told() for _ in peers]
        stop = threading.Event()
        threads = [
            threading.Thread(
                target=write, args=(writer(peer, place, cluster), ledger_id, subject, index, told[index], stop)
            )
            for index, peer in enumerate(peers)
        ]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda told=told: any(one.recorded or one.surprises for one in told))
            time.sleep(chance.random() * 0.03)
            order = ErasureOrder(
                NameOrRef(subject, None), purposes, None, None, block_unknown=False, requested_by=OPERATOR
            )
            outcome = erase_with_patience(service.deps, ledger_id, order)
            erased = time.monotonic()
            wait_until(lambda told=told, erased=erased: all(one.surprises or one.refused_after(erased) for one in told))
        finally:
            # Also when something above failed: writers that go on for ever would keep the test from ending.
            stop.set()
            for thread in threads:
                thread.join(60)
        check_round(service, ledger_id, subject, told, erased)
        assert outcome.erasure.entry.done
        assert dead_keys_in_vault(service, ledger_id) == 0
    report = verified(service, ledger_id)
    assert report.size > rounds
    for open_one in (*peers, service):
        open_one.close()


def erase_with_patience(deps: Dependencies, ledger_id: UUID, order: ErasureOrder) -> ErasureOutcome:
    """Order the erasure again for as long as connections die under it, as a client would."""
    while True:
        try:
            return erase_subject(deps, ledger_id, order)
        except VaultUnavailableError:
            continue


def check_round(service: Service, ledger_id: UUID, subject: str, told: list[Told], erased: float) -> None:
    """What was promised to the writers, the readers and the person."""
    assert [surprise for one in told for surprise in one.surprises] == []
    # Every one after it is refused.
    assert [start for one in told for start, _, _ in one.recorded if start > erased] == []
    found = list(events_of(service, ledger_id, subject))
    acknowledged = {place.event_id for one in told for _, _, place in one.recorded}
    # Nothing acknowledged is lost, and all of it is redacted.
    assert acknowledged <= {opened.recorded.envelope.event_id for opened in found}
    for opened in found:
        assert opened.subject is not None
        assert (opened.subject.subject, opened.subject.data, opened.stream) == (None, None, None)
        assert {redaction.reason for redaction in opened.redactions} == {"erased"}


def write(deps: Dependencies, ledger_id: UUID, subject: str, index: int, told: Told, stop: threading.Event) -> None:
    """Append for the subject until told to stop, on a shared stream and on one of this writer's own."""
    turn = 0
    while not stop.is_set():
        turn += 1
        stream = f"shared-{subject}" if turn % 2 else f"own-{subject}-{index}"
        start = time.monotonic()
        try:
            result = append_events(
                deps, ledger_id, [event(stream, subject=subject, data={"secret": f"{index}/{turn}"})], OPERATOR
            )
        except SubjectErasedError:
            told.refused.append((start, time.monotonic()))
            time.sleep(0.002)
        except VaultUnavailableError:
            # Its connection was killed while it was asking for keys: an honest error, and nothing is recorded.
            continue
        except Exception as error:  # noqa: BLE001 - whatever else happens is for the test to report
            told.surprises.append(error)
            return
        else:
            told.recorded.append((start, time.monotonic(), result.events[0]))


def writer(peer: Service, place: Place, cluster: PostgresCluster | None) -> Dependencies:
    """A writer's dependencies; with a cluster, its vault connections are killed before every lock of the head."""
    if cluster is None:
        return peer.deps
    database = sa.make_url(place.vault_url).database
    engine = sa.create_engine(place.ledger_url, poolclass=sa.NullPool)

    def kill() -> None:
        with engine.connect() as connection:
            connection.execute(
                sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                {"name": database},
            )

    return peer.wrapped(store=lambda store: _as_store(KilledVault(store, kill)))


def _as_store(store: Any) -> Store:
    wrapped: Store = store
    return wrapped


def events_of(service: Service, ledger_id: UUID, subject: str) -> Iterator[OpenedEvent]:
    """All events of a subject, as a reader of another page gets them."""
    for page in export_events(service.deps, ledger_id, EventQuery(subject=NameOrRef(subject, None))):
        yield from page


def dead_keys_in_vault(service: Service, ledger_id: UUID) -> int:
    """How many keys that the ledger says are dead still have a row in the vault."""
    dead = service.store.shredded_keys(ledger_id)
    views = service.vault.look_up_keys(ledger_id, dead.keys())
    return sum(view.status != "fenced" for view in views.values())


def wait_until(condition: Any) -> None:
    """Wait for something that other threads bring about."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        time.sleep(0.001)
