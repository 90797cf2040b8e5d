"""Drills in this process, on an installation of their own, into which leaks can be put between two steps."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from api.config import Settings
from api.drill.checks import Check
from api.drill.notes import Notes, Plan
from api.drill.running import run_drill
from api.wiring import Service, migrate_databases, open_service, prepare_home
from keyvault.inspection import Exhibit
from ledger.domain.query import EventQuery
from ledger.services.ledgers import find_ledger
from ledger.services.read import query_events


@dataclass
class DrilledPlace:
    """An installation, and what is put into it when a step has ended. ``plants``: step → what is done then."""

    environment: Mapping[str, str]
    out: Path
    plants: dict[str, Callable[[DrilledPlace], None]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    secret: str = ""
    exhibit: Exhibit | None = None

    @classmethod
    def made(cls, folder: Path, settings: Mapping[str, str] | None = None) -> DrilledPlace:
        """With KEKs, databases and drills in folders of their own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_LEDGER_")}
        own = {"AUDIT_LEDGER_HOME": f"{folder}/home", "AUDIT_LEDGER_KEK": f"file:{folder}/kek"}
        place = cls({**inherited, **own, **(settings or {})}, folder / "drills")
        place.out.mkdir(mode=0o700)
        prepare_home(place.settings)
        migrate_databases(place.settings)
        with place.service() as service:
            service.vault.initialise()
        return place

    @property
    def settings(self) -> Settings:
        """Of the installation."""
        return Settings.from_environment(self.environment)

    @contextlib.contextmanager
    def service(self) -> Iterator[Service]:
        """The service, open."""
        service = open_service(self.settings)
        try:
            yield service
        finally:
            service.close()

    def begins(self, step: str) -> None:
        """Satisfies ``Follower``."""

    def ends(self, step: str) -> None:
        """Learn the canary's secrets as soon as there are any, and plant what was to be planted."""
        self.seen.append(step)
        if step == "record":
            self._learn()
        if step in self.plants:
            self.plants.pop(step)(self)

    def _learn(self) -> None:
        with self.service() as service:
            ledger_id = find_ledger(service.deps, "drill").ledger_id
            event = query_events(service.deps, ledger_id, EventQuery(), cursor=None, limit=1).events[0]
            assert event.subject is not None
            assert event.subject.data is not None
            assert event.subject.subject_ref is not None
            self.secret = event.subject.data["note"]
            self.exhibit = service.vault.inspection.exhibit(ledger_id, event.subject.subject_ref)

    def drill(self, **options: Any) -> Notes:
        """Carry a drill out."""
        with self.service() as service:
            notes = run_drill(Plan(self.environment, self.settings, self.out, **options), service, self)
        assert self.plants == {}, f"these steps never came: {self.plants}"
        return notes

    def write(self, database: str, *statements: str, values: tuple[Any, ...] = ()) -> None:
        """What a hand does in a database, each statement on its own; ``values`` are those of the last."""
        url = self.settings.database_url if database == "ledger" else self.settings.keyvault_url
        if url.startswith("sqlite"):
            connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30, isolation_level=None)
        else:
            connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
        with contextlib.closing(connection):
            for number, statement in enumerate(statements, start=1):
                connection.execute(statement, values if number == len(statements) else ())


def found_by(notes: Notes, verdict: str) -> dict[tuple[str, str], str]:
    """(name, where) of the checks with this verdict → what they say."""
    return {(check.name, check.where): check.found for check in notes.checks if check.verdict == verdict}


def the_check(notes: Notes, name: str, where: str) -> Check:
    """The one check of this name whose place has these words."""
    (found,) = (check for check in notes.checks if check.name == name and where in check.where)
    return found
