"""A whole ledger in this process, on databases that other processes of the test share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

from keyvault import database as vault_database
from keyvault import migrate as vault_migrate
from keyvault.opening import open_vault
from keyvault.vault import Vault
from ledger.domain.access import LedgerInfo
from ledger.domain.events import NewEvent
from ledger.domain.intake import parse_event
from ledger.domain.verdicts import VerifyReport
from ledger.ports import KeyVault, Store
from ledger.services.dependencies import Dependencies
from ledger.services.ledgers import create_ledger
from ledger.services.verifying.running import verify_ledger
from ledger.storage.catalogue import SqlCatalogues
from ledger.storage.database import open_engine
from ledger.storage.derived import open_derived
from ledger.storage.migrate import migrate
from ledger.storage.store import SqlStore
from ledger.storage.transparency import SqlTransparency
from tests.support.postgres import PostgresCluster


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service keeps its things. Can be handed to another process."""

    home: Path
    ledger_url: str
    vault_url: str

    @property
    def kek_url(self) -> str:
        """The folder of KEKs."""
        return f"file:{self.home}/kek"

    @property
    def journal_url(self) -> str:
        """The journal's file."""
        return f"file:{self.home}/erasures.journal"


@dataclass(frozen=True, slots=True)
class Service:
    """An open service. ``alarms`` collects what was reported, as (position, part, what)."""

    place: Place
    deps: Dependencies
    vault: Vault
    store: SqlStore
    alarms: list[tuple[int, int | None, str]] = field(default_factory=list)

    def close(self) -> None:
        """Give the connections back."""
        self.store.close()
        self.vault.close()

    def wrapped(
        self, *, store: Callable[[Store], Store] | None = None, vault: Callable[[KeyVault], KeyVault] | None = None
    ) -> Dependencies:
        """The same dependencies with something in front of store or vault."""
        return replace(
            self.deps,
            store=store(self.deps.store) if store is not None else self.deps.store,
            vault=vault(self.deps.vault) if vault is not None else self.deps.vault,
        )


def sqlite_place(folder: Path) -> Place:
    """Two SQLite files in a folder of their own."""
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    return Place(folder, f"sqlite:///{folder}/ledger.db", f"sqlite:///{folder}/keyvault.db")


def postgres_place(cluster: PostgresCluster, folder: Path) -> Place:
    """Two fresh databases on a test server."""
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    return Place(folder, cluster.create_database(), cluster.create_database())


def set_up(place: Place) -> Service:
    """Make the tables, epoch 1 and the journal, and open the service."""
    engine = open_engine(place.ledger_url)
    migrate(engine)
    engine.dispose()
    vault_engine = vault_database.make_engine(place.vault_url)
    vault_migrate.migrate(vault_engine)
    vault_engine.dispose()
    service = open_service(place)
    service.vault.initialise()
    return service


def open_service(place: Place) -> Service:
    """Open a service whose tables are there."""
    alarms: list[tuple[int, int | None, str]] = []
    engine = open_engine(place.ledger_url)
    store = SqlStore(engine)
    vault = open_vault(place.vault_url, place.kek_url, place.journal_url, now)

    def alarm(_: UUID, position: int, part: int | None, what: str) -> None:
        alarms.append((position, part, what))

    deps = Dependencies(
        store,
        vault,
        SqlCatalogues(engine),
        open_derived(engine),
        now,
        os.urandom,
        alarm,
        vault.guard,
        SqlTransparency(engine),
        vault.signed_checkpoints,
        "localhost",
    )
    return Service(place, deps, vault, store, alarms)


def now() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def new_ledger(service: Service, name: str = "test") -> LedgerInfo:
    """A ledger to write to."""
    return create_ledger(service.deps, name)


def event(stream: str, event_type: str = "Noted", **fields: object) -> NewEvent:
    """A new event; without data or nonpersonal it says nothing of anybody."""
    if "data" not in fields and "nonpersonal" not in fields:
        fields["nonpersonal"] = {}
    return parse_event({"stream": stream, "type": event_type, **fields})


def verified(service: Service, ledger_id: UUID) -> VerifyReport:
    """The report of a check that must find nothing."""
    report = verify_ledger(service.deps, ledger_id, lambda *_: None)
    assert report.findings == ()
    assert report.intact
    return report
