"""The worker has what is published cosigned: once, again where it must, and of one ledger whatever the others do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from api.config import Settings
from api.guard import Guard
from api.logs import LOGGER
from api.wiring import Service, migrate_databases, open_service, prepare_home
from api.witness_duty import WitnessDuty
from ledger.domain.events import OPERATOR
from ledger.errors import StoreUnavailableError
from ledger.ports import PublishedCheckpoint, Transparency
from ledger.services.appending.append import append_events
from ledger.services.ledgers import create_ledger
from ledger.services.proving.publishing import log_key, publish
from tests.support.cosigning import MemoryWitness, MemoryWitnesses
from tests.support.service import event


class World:
    """Two ledgers that are published, and two witnesses."""

    def __init__(self, service: Service) -> None:
        self.ledgers = [create_ledger(service.deps, name).ledger_id for name in ("first", "second")]
        keys = [log_key(service.deps, ledger_id) for ledger_id in self.ledgers]
        self.witness, self.other = MemoryWitness("w1", keys[:1]), MemoryWitness("w2", keys[1:])
        self.all = MemoryWitnesses([self.witness, self.other], 1)
        self.service = replace(service, deps=replace(service.deps, witnesses=self.all))
        self.duty = WitnessDuty(self.service, threading.Event(), Guard(service))
        for ledger_id in self.ledgers:
            self.grow(ledger_id)

    def grow(self, ledger_id: UUID) -> None:
        """One event more, which is published."""
        append_events(self.service.deps, ledger_id, [event("ward-1")], OPERATOR)
        publish(self.service.deps, ledger_id, at_least=self.service.store.head(ledger_id).size)

    def cosigned(self, ledger_id: UUID) -> list[int]:
        """The sizes that each witness has cosigned last."""
        origin = log_key(self.service.deps, ledger_id).name
        transparency = self.service.deps.transparency
        return [transparency.last_cosigned(ledger_id, origin, one.key.name) for one in (self.witness, self.other)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An initialised service of its own."""
    settings = Settings.from_environment({"AUDIT_LEDGER_HOME": str(tmp_path / "home")})
    prepare_home(settings)
    migrate_databases(settings)
    opened = open_service(settings)
    opened.vault.initialise()
    yield World(opened)
    opened.close()


def test_all_ledgers_are_cosigned_by_those_who_do(world: World) -> None:
    """Each witness knows one of them only."""
    world.duty.do_all()
    assert [world.cosigned(ledger_id) for ledger_id in world.ledgers] == [[1, 0], [0, 1]]


def test_who_refuses_is_asked_less_and_less_often(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """About one checkpoint; about a newer one at once."""
    now = [1000.0]
    monkeypatch.setattr("api.witness_duty.time.monotonic", lambda: now[0])
    asked = []
    for _ in range(80):
        before = world.other.asked
        world.duty.do_all()
        asked.append(world.other.asked - before)
        now[0] += 1.0
    refused = [second for second, count in enumerate(asked) if count]
    assert refused == [0, 1, 3, 7, 15, 31, 61]
    world.grow(world.ledgers[0])
    world.duty.do_all()
    assert world.cosigned(world.ledgers[0]) == [2, 0]


class Failing:
    """A transparency that does not answer for one ledger, as long as ``for_`` names it."""

    def __init__(self, whole: Transparency, for_: UUID) -> None:
        self._whole = whole
        self.for_: UUID | None = for_

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def latest_published(self, ledger_id: UUID, origin: str) -> PublishedCheckpoint | None:
        """Or not."""
        if ledger_id == self.for_:
            raise StoreUnavailableError("down")
        return self._whole.latest_published(ledger_id, origin)


def test_a_ledger_that_fails_keeps_no_other_from_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, and again when it works."""
    caplog.set_level("INFO", LOGGER)
    failing: Any = Failing(world.service.deps.transparency, world.ledgers[0])
    deps = replace(world.service.deps, transparency=failing)
    duty = WitnessDuty(replace(world.service, deps=deps), threading.Event(), Guard(world.service))
    for _ in range(3):
        duty.do_all()
    assert [world.cosigned(ledger_id) for ledger_id in world.ledgers] == [[0, 0], [0, 1]]
    failing.for_ = None
    duty.do_all()
    assert world.cosigned(world.ledgers[0]) == [1, 0]
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("worker-duty")]
    assert told == ["worker-duty-failed", "worker-duty-recovered"]


def test_told_to_stop_it_stops(world: World) -> None:
    """With the block that it runs in."""
    with world.duty.running():
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "audit-ledger-witnesses"]
