"""Ledgers to test with: the real store and the real vault on either database, a clock that obeys, alarms that are kept.

One :class:`Backend` (two databases) serves many tests; each test takes a ledger of its own in it.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Engine

from keyvault import database as vault_database
from keyvault.migrate import migrate as migrate_vault
from keyvault.opening import open_vault
from keyvault.vault import Vault
from ledger.domain.encoding import leaf_of
from ledger.domain.events import Appended, JsonObject, OpenedEvent, RecordedEvent
from ledger.domain.ids import uuid7
from ledger.domain.intake import parse_batch
from ledger.domain.merkle import hash_leaf
from ledger.domain.query import EventFilter, EventQuery, NameOrRef
from ledger.domain.verdicts import VerifyReport
from ledger.ports import KeyVault, Store
from ledger.services.appending.append import AppendResult, append_events
from ledger.services.dependencies import Dependencies
from ledger.services.erase import ErasureOrder, ErasureOutcome, erase_subject
from ledger.services.ledgers import create_ledger
from ledger.services.read import query_events
from ledger.services.verifying.running import verify_ledger
from ledger.storage import tables
from ledger.storage.catalogue import SqlCatalogues
from ledger.storage.database import open_engine, refuse_changes
from ledger.storage.derived import open_derived
from ledger.storage.migrate import migrate
from ledger.storage.store import SqlStore
from ledger.storage.transparency import SqlTransparency
from tests.support import rows
from tests.support.postgres import PostgresCluster

NOW = 1_700_000_000_000_000
"""When the tests' clock starts: 2023-11-14T22:13:20Z."""

ORIGIN = "log.example"
"""The host name in the names of the ledgers' logs."""

WRITER = UUID("0193a5e0-7c00-7000-8000-0000000000aa")
"""The API key that the tests record with."""

PRIVACY_OFFICER = UUID("0193a5e0-7c00-7000-8000-0000000000bb")

_numbers = itertools.count(1)


class TestClock:
    """Microseconds since 1970 UTC; every reading is one later than the one before. Set ``now`` as you like."""

    __test__ = False

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        self.now += 1
        return self.now


@dataclass
class Backend:
    """A migrated ledger database and a vault with an epoch, for any number of ledgers."""

    name: str
    engine: Engine
    vault: Vault
    clock: TestClock
    home: Path
    urls: tuple[str, str]

    @property
    def store(self) -> SqlStore:
        """The store."""
        return SqlStore(self.engine)

    def new_ledger(self) -> Ledger:
        """An empty ledger of its own."""
        ledger = self.ledger(UUID(int=0))
        return replace(ledger, ledger_id=create_ledger(ledger.deps, f"test-{secrets.token_hex(6)}").ledger_id)

    def ledger(self, ledger_id: UUID) -> Ledger:
        """A ledger that there is."""
        alarms: list[Alarm] = []
        engine = self.engine
        deps = Dependencies(
            self.store,
            self.vault,
            SqlCatalogues(engine),
            open_derived(engine),
            self.clock,
            os.urandom,
            _collect(alarms),
            self.vault.guard,
            SqlTransparency(engine),
            self.vault.signed_checkpoints,
            ORIGIN,
        )
        return Ledger(self, deps, ledger_id, alarms)

    def execute(self, statement: sa.Executable) -> None:
        """Run a statement as the service could: the database's own rules hold."""
        with self.engine.begin() as connection:
            connection.execute(statement)

    def tamper(self, *statements: Any) -> None:
        """See :func:`tamper`."""
        tamper(self.engine, *statements)

    def vault_execute(self, statement: sa.Executable) -> None:
        """Run a statement in the vault's database."""
        with vault_database.writing(self.vault.engine) as connection:
            connection.execute(statement)

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()
        self.vault.close()


Alarm = tuple[int, int | None, str]
"""Position, part, what."""


@dataclass
class Ledger:
    """One ledger, with short ways to do to it what a test does."""

    backend: Backend
    deps: Dependencies
    ledger_id: UUID
    alarms: list[Alarm] = field(default_factory=list)

    def with_parts(self, *, vault: Any = None, store: Any = None) -> Ledger:
        """The same ledger seen through another vault or store."""
        chosen_vault: KeyVault = vault if vault is not None else self.deps.vault
        chosen_store: Store = store if store is not None else self.deps.store
        return replace(self, deps=replace(self.deps, vault=chosen_vault, store=chosen_store))

    def append(self, *events: JsonObject, by: UUID = WRITER) -> AppendResult:
        """Append events as they would stand in a request, in one batch."""
        parsed = parse_batch(json.loads(json.dumps({"events": list(events)})))
        return append_events(self.deps, self.ledger_id, parsed, by)

    def append_one(self, raw: JsonObject, by: UUID = WRITER) -> Appended:
        """Append one event; gives its place."""
        return self.append(raw, by=by).events[0]

    def query(self, *, limit: int = 1000, **fields: Any) -> Sequence[OpenedEvent]:
        """The events of one page."""
        return query_events(self.deps, self.ledger_id, EventQuery(**fields), cursor=None, limit=limit).events

    def positions(self, **fields: Any) -> list[int]:
        """The positions of the events that match."""
        return [event.recorded.position for event in self.query(**fields)]

    def event_at(self, position: int) -> OpenedEvent:
        """One event, opened."""
        return self.query(after_position=position - 1, limit=1)[0]

    def erase(
        self,
        subject: str | bytes,
        purposes: Sequence[str] | None = None,
        *,
        reference: str | None = "case 1",
        block_unknown: bool = False,
    ) -> ErasureOutcome:
        """Erase a subject, by name or ref."""
        return erase_subject(self.deps, self.ledger_id, order_of(subject, purposes, reference, block_unknown))

    def verify(self) -> VerifyReport:
        """Check the whole ledger."""
        return verify_ledger(self.deps, self.ledger_id, lambda done, total: None)

    def assert_intact(self) -> None:
        """Nothing is wrong, and nobody was alarmed."""
        report = self.verify()
        assert report.findings == (), report.findings
        assert report.intact
        assert self.alarms == []

    def subject_ref(self, name: str) -> bytes:
        """The ref behind a subject's name."""
        return self.deps.vault.find_subjects(self.ledger_id, [name])[name].ref

    def key_of(self, name: str, purpose: str = "") -> bytes:
        """The key id of a subject and purpose, living or fenced."""
        entry = self.deps.vault.find_subjects(self.ledger_id, [name])[name]
        return next(key_id for key_id, of in entry.key_ids if of == purpose)

    def recorded(self) -> list[RecordedEvent]:
        """All rows, in order."""
        return list(self.deps.store.select_events(self.ledger_id, EventFilter(0, 2**62), None, 100_000))

    def size(self) -> int:
        """How many events the head counts."""
        return self.deps.store.head(self.ledger_id).size

    def edit(self, position: int, **columns: Any) -> None:
        """Change columns of one row by hand."""
        self.backend.tamper(self.row(sa.update(tables.events), position).values(**columns))

    def put(self, position: int, event: RecordedEvent, *, new_leaf: bool) -> None:
        """Put another event into a row by hand; ``new_leaf``: with a leaf hash that fits it."""
        if new_leaf:
            event = replace(event, leaf_hash=hash_leaf(leaf_of(event)))
        values = {name: value for name, value in rows.event_row(event).items() if name not in ("ledger_id", "position")}
        self.edit(position, **values)

    def row(self, statement: Any, position: int) -> Any:
        """An update or delete of ``events``, for one row of this ledger."""
        columns = tables.events.c
        return statement.where(columns.ledger_id == self.ledger_id, columns.position == position)


def tamper(engine: Engine, *statements: Any) -> None:
    """Run inserts, updates and deletes as somebody with all rights would: the triggers are dropped meanwhile."""
    dialect = engine.dialect.name
    touched = {statement.table.name for statement in statements}.intersection(tables.APPEND_ONLY)
    with engine.begin() as connection:
        for table in touched:
            for statement in refuse_changes(table, dialect):
                name = statement.split()[2]
                on = f" ON {table}" if dialect == "postgresql" else ""
                connection.exec_driver_sql(f"DROP TRIGGER {name}{on}")
        for change in statements:
            connection.execute(change)
        for table in touched:
            for statement in refuse_changes(table, dialect):
                connection.exec_driver_sql(statement)


def order_of(
    subject: str | bytes, purposes: Sequence[str] | None, reference: str | None = "case 1", block_unknown: bool = False
) -> ErasureOrder:
    """An order to erase."""
    return ErasureOrder(who(subject), purposes, "17(1)(b)", reference, block_unknown, PRIVACY_OFFICER)


def who(subject: str | bytes) -> NameOrRef:
    """Somebody by name or by ref."""
    return NameOrRef(subject, None) if isinstance(subject, str) else NameOrRef(None, subject)


def new_event_id() -> str:
    """An id that no test has used."""
    return str(uuid7(NOW, next(_numbers).to_bytes(10, "big")))


def a_visit(patient: str = "A", **fields: Any) -> JsonObject:
    """An event about a patient, as it stands in a request."""
    return {
        "stream": f"patient-{patient}",
        "type": "Visit",
        "subject": f"patient:{patient}",
        "data": {"crp": 12},
        **fields,
    }


def a_fact(stream: str = "ward-ER", **fields: Any) -> JsonObject:
    """An event that concerns no person."""
    return {"stream": stream, "type": "Opened", "nonpersonal": {"beds": 4}, **fields}


def reasons(event: OpenedEvent) -> dict[str, str]:
    """Pointer → reason of what is hidden in an event."""
    return {redaction.pointer: redaction.reason for redaction in event.redactions}


def open_sqlite(home: Path) -> Backend:
    """Two SQLite files in a folder."""
    return _open("sqlite", f"sqlite:///{home}/ledger.db", f"sqlite:///{home}/keyvault.db", home)


def open_postgresql(cluster: PostgresCluster, home: Path) -> Backend:
    """Two databases of one test server."""
    return _open("postgresql", cluster.create_database(), cluster.create_database(), home)


def all_positions(events: Iterable[OpenedEvent]) -> list[int]:
    """The positions of events."""
    return [event.recorded.position for event in events]


def _open(name: str, ledger_url: str, vault_url: str, home: Path) -> Backend:
    home.chmod(0o700)
    engine = open_engine(ledger_url)
    migrate(engine)
    clock = TestClock()
    vault = open_vault(vault_url, f"file:{home}/kek", f"file:{home}/erasures.journal", clock)
    migrate_vault(vault.engine)
    vault.initialise()
    return Backend(name, engine, vault, clock, home, (ledger_url, vault_url))


def _collect(alarms: list[Alarm]) -> Callable[[UUID, int, int | None, str], None]:
    def alarm(_ledger_id: UUID, position: int, part: int | None, what: str, /) -> None:
        alarms.append((position, part, what))

    return alarm
