"""A service whose databases and journal can be put back old under its feet."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from api.config import Settings
from api.guard import Guard
from api.wiring import Service, migrate_databases, open_service, pin_journal_key, prepare_home
from ledger.domain.marks import Trouble
from tests.support.ledgers import Backend, Ledger, TestClock
from tests.support.restoring import Database, Databases

Part = Literal["vault", "ledger", "journal"]


@dataclass
class OldCopies:
    """One ledger in a service of its own."""

    service: Service
    ledger: Ledger
    databases: Databases
    folder: Path

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.service.settings.home / "erasures.journal"

    def keep(self, *parts: Part) -> None:
        """Copy these. What was seen is noted before, as a running service does every second."""
        self.note()
        for part in parts:
            if part == "journal":
                shutil.copy2(self.journal, self.folder / part)
            else:
                self._close()
                self.databases.copy(part, self.folder / part)

    def put_back(self, *parts: Part) -> None:
        """Have these be again what they were."""
        for part in parts:
            if part == "journal":
                shutil.copy2(self.folder / part, self.journal)
            else:
                self._put_back(part)

    def _put_back(self, part: Database) -> None:
        self._close()
        self.databases.put_back(part, self.folder / part, running=True)

    def note(self) -> None:
        """What a service does all the time, and when it stops."""
        guard = self.guard()
        assert guard.start() == ()
        guard.finish()

    def guard(self) -> Guard:
        """That of another process."""
        return Guard(self.service)

    def found(self) -> set[Trouble]:
        """What another process finds at its start that it cannot mend."""
        return {finding.trouble for finding in self.guard().start()}

    def said(self) -> list[dict[str, object]]:
        """What the ledger says of each reconciliation."""
        events = self.ledger.query(types=("VaultReconciled",))
        return [event.nonpersonal or {} for event in events]

    def _close(self) -> None:
        self.service.engine.dispose()
        self.service.vault.engine.dispose()


@contextmanager
def service_with_old_copies(databases: Databases, home: Path, folder: Path) -> Iterator[OldCopies]:
    """A service over these databases, with an empty ledger."""
    settings = Settings.from_environment({"AUDIT_LEDGER_HOME": str(home), **databases.settings})
    prepare_home(settings)
    migrate_databases(settings)
    service = open_service(settings)
    service.vault.initialise()
    pin_journal_key(service)
    urls = (settings.database_url, settings.keyvault_url)
    backend = Backend(service.engine.dialect.name, service.engine, service.vault, TestClock(), home, urls)
    try:
        yield OldCopies(service, backend.new_ledger(), databases, folder)
    finally:
        service.close()
