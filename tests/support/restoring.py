"""An installation whose four places (key vault, ledger, KEKs, journal) can each be copied, and be put back old.

The databases are copied as whole files, by ``pg_basebackup``, by ``pg_dump``, or (quickly) within one PostgreSQL
server.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, Self

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from api.backups import back_up
from api.config import Settings
from api.wiring import Service, open_service
from tests.e2e.conftest import postgres_settings
from tests.support.postgres import PostgresCluster, PostgresError
from tests.support.server import ServedLedger

Place = Literal["vault", "ledger", "keks", "journal"]
Database = Literal["vault", "ledger"]
PLACES: Final[tuple[Place, ...]] = ("vault", "ledger", "keks", "journal")
_URLS: Final[Mapping[Database, str]] = {
    "vault": "AUDIT_LEDGER_KEYVAULT_URL",
    "ledger": "AUDIT_LEDGER_DATABASE_URL",
}
_BUSY_SECONDS: Final = 30.0
# Two of them stand beside each other, every copy of one is read and written, and none is ever killed.
_SMALL: Final = {"shared_buffers": "16MB", "max_wal_size": "64MB", "min_wal_size": "32MB", "fsync": "off"}


class Databases(Protocol):
    """The two databases of an installation, and one way of copying them and of putting a copy back."""

    settings: Mapping[str, str]
    """What the service is told of them."""

    def copy(self, database: Database, copy: Path) -> None:
        """Copy one while it is used, to a path where nothing is yet."""

    def put_back(self, database: Database, copy: Path, *, running: bool) -> None:
        """Have it be again what it was. ``running``: somebody may be using it meanwhile."""


class SqliteFiles:
    """Two files. They are copied by SQLite's own online backup, as ``audit-ledger backup`` does."""

    def __init__(self, folder: Path) -> None:
        self._files: Mapping[Database, Path] = {"vault": folder / "keyvault.db", "ledger": folder / "ledger.db"}
        self.settings: Mapping[str, str] = {
            _URLS[database]: f"sqlite:///{file}" for database, file in self._files.items()
        }

    def copy(self, database: Database, copy: Path) -> None:
        """One file without a log beside it."""
        with _sqlite(self._files[database]) as live, _sqlite(copy) as new:
            live.backup(new)
            new.execute("PRAGMA journal_mode = DELETE")

    def put_back(self, database: Database, copy: Path, *, running: bool) -> None:
        """The file in the place of the other; of one that is used, its content."""
        file = self._files[database]
        if running:
            with _sqlite(copy) as old, _sqlite(file) as live:
                old.backup(live)
            return
        for suffix in ("-wal", "-shm"):
            Path(f"{file}{suffix}").unlink(missing_ok=True)
        shutil.copyfile(copy, file)


class Dumps:
    """Two databases of one server with the roles of the how-to page, copied by ``pg_dump`` and made anew by
    ``pg_restore``."""

    def __init__(self, cluster: PostgresCluster) -> None:
        self._cluster = cluster
        self.settings: Mapping[str, str] = postgres_settings(cluster) | _programs(cluster)
        _let_see_replicas(cluster, self.settings)

    def copy(self, database: Database, copy: Path) -> None:
        """As ``audit-ledger backup`` does, so that what that makes is what is put back here."""
        url = self.settings[_owned(_URLS[database])]
        made = back_up(url, copy.parent, database, time.time_ns() // 1000, self.settings["AUDIT_LEDGER_PG_DUMP"])
        made.rename(copy)

    def put_back(self, database: Database, copy: Path, *, running: bool) -> None:
        """Whoever is connected is thrown out."""
        self._cluster.drop_database(self._name(database))
        self._cluster.run("pg_restore", "--create", "--exit-on-error", "--dbname=postgres", str(copy))

    def _name(self, database: Database) -> str:
        return make_url(self.settings[_URLS[database]]).database or ""


class Templates:
    """Two databases of one server, copied within it: what a dump gives, in a tenth of the time."""

    def __init__(self, cluster: PostgresCluster) -> None:
        self._cluster = cluster
        self.settings: Mapping[str, str] = {url: cluster.create_database() for url in _URLS.values()}

    def copy(self, database: Database, copy: Path) -> None:
        """A database whose name is in the file. Nobody may be connected, as PostgreSQL has it."""
        name = f"copy_{secrets.token_hex(4)}"
        self._clone(make_url(self.settings[_URLS[database]]).database or "", name)
        copy.write_text(name)

    def put_back(self, database: Database, copy: Path, *, running: bool) -> None:
        """Whoever is connected is thrown out."""
        name = make_url(self.settings[_URLS[database]]).database or ""
        self._cluster.drop_database(name)
        self._clone(copy.read_text(), name)

    def _clone(self, template: str, name: str) -> None:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                with self._cluster.connect() as connection:
                    connection.execute(statement)
                return
            except psycopg.errors.ObjectInUse:  # a connection that was given back and is not closed yet
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)


class RestorableCluster(PostgresCluster):
    """A server of which physical copies are taken, and which is put back to them."""

    def __init__(self) -> None:
        super().__init__(_SMALL)

    def base_backup(self, folder: Path) -> None:
        """``pg_basebackup`` of the running server."""
        source = self.url("postgres").replace("postgresql+psycopg:", "postgresql:")
        command = [str(self.bin_directory / "pg_basebackup"), "--pgdata", str(folder), "--checkpoint=fast"]
        made = self._spawn(
            [*command, "--no-sync", "--dbname", source], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output, _ = made.communicate()
        if made.returncode != 0:
            raise PostgresError(f"pg_basebackup failed:\n{output.decode(errors='replace')}")

    def put_back(self, folder: Path) -> None:
        """Stop, replace the whole data directory with this copy, and start: the server recovers from it."""
        self.stop()
        shutil.rmtree(self.data_directory)
        copied = self._spawn(
            ["cp", "--archive", str(folder), str(self.data_directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = copied.communicate()
        if copied.returncode != 0:
            raise PostgresError(f"the copy was not put back:\n{output.decode(errors='replace')}")
        self.start()

    def place_for_backups(self) -> Path:
        """A fresh folder that the server's user may write to."""
        return self._home / f"copy-{secrets.token_hex(4)}"


class BaseBackups:
    """A server for each database, as the how-to page asks for, copied by ``pg_basebackup`` and put back as a whole."""

    def __init__(self, clusters: Mapping[Database, RestorableCluster]) -> None:
        self._clusters = clusters
        settings = _programs(clusters["vault"])
        for database, url in _URLS.items():
            owner, service = clusters[database].create_role(), clusters[database].create_role()
            name = make_url(clusters[database].create_database(owner=owner)).database or ""
            settings[url] = clusters[database].url(name, service)
            settings[_owned(url)] = clusters[database].url(name, owner)
        self.settings: Mapping[str, str] = settings
        _let_see_replicas(clusters["vault"], settings)

    def copy(self, database: Database, copy: Path) -> None:
        """A link to where the server's user may write."""
        folder = self._clusters[database].place_for_backups()
        self._clusters[database].base_backup(folder)
        copy.symlink_to(folder)

    def put_back(self, database: Database, copy: Path, *, running: bool) -> None:
        """Whoever is connected meets a server that restarts."""
        self._clusters[database].put_back(copy.readlink())


class Installation:
    """A served ledger whose places lie apart from each other. Use it as a context manager; ``init`` was run, and it is
    not started."""

    def __init__(self, folder: Path, databases: Databases) -> None:
        self._databases = databases
        self._copies = folder / "copies"
        self._copies.mkdir()
        self.keks = folder / "keks" / "kek"
        self.journal = folder / "journal" / "erasures.journal"
        self.journal.parent.mkdir(mode=0o700)
        self.backups = folder / "backups"
        self.backups.mkdir(mode=0o700)
        self.served = ServedLedger(
            {
                **databases.settings,
                "AUDIT_LEDGER_KEK": f"file:{self.keks}",
                "AUDIT_LEDGER_JOURNAL": f"file:{self.journal}",
            }
        )

    def __enter__(self) -> Self:
        try:
            self.served.run("init")
        except BaseException:
            self.served.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.served.remove()

    @property
    def settings(self) -> Settings:
        """Of the service."""
        return Settings.from_environment(self.served.environment)

    @contextlib.contextmanager
    def service(self) -> Iterator[Service]:
        """The same service in this process."""
        service = open_service(self.settings)
        try:
            yield service
        finally:
            service.close()

    def keep(self, name: str, *places: Place) -> None:
        """Copy these places (by default all) under a name, one behind the other as an operator would."""
        folder = self._copies / name
        folder.mkdir(exist_ok=True)
        for place in places or PLACES:
            if place == "keks":
                shutil.copytree(self.keks, folder / place)
            elif place == "journal":
                shutil.copy2(self.journal, folder / place)
            else:
                self._databases.copy(place, folder / place)

    def put_back(self, name: str, *places: Place, running: bool = False) -> None:
        """Have these places be again what they were when this copy was made."""
        for place in places:
            copy = self._copies / name / place
            if place == "keks":
                self._replace_keks(copy)
            elif place == "journal":
                self.replace_journal(copy.read_bytes())
            else:
                self._databases.put_back(place, copy, running=running)

    def replace_journal(self, content: bytes) -> None:
        """Another file in its place."""
        new = self.journal.with_suffix(".new")
        new.touch(0o600)
        new.write_bytes(content)
        new.replace(self.journal)

    def _replace_keks(self, copy: Path) -> None:
        for file in self.keks.iterdir():
            file.unlink()
        for file in copy.iterdir():
            shutil.copy2(file, self.keks / file.name)


def _owned(url: str) -> str:
    """The setting that names the owner of the same database."""
    return url.replace("LEDGER_", "LEDGER_MIGRATE_", 1)


def _programs(cluster: PostgresCluster) -> dict[str, str]:
    """What ``audit-ledger backup`` needs."""
    return {"AUDIT_LEDGER_PG_DUMP": str(cluster.bin_directory / "pg_dump")}


def _let_see_replicas(cluster: PostgresCluster, settings: Mapping[str, str]) -> None:
    """As the page on PostgreSQL says: else no epoch can be destroyed."""
    role = make_url(settings[_URLS["vault"]]).username or ""
    with cluster.connect() as connection:
        connection.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(sql.Identifier(role)))


@contextlib.contextmanager
def _sqlite(file: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
        yield connection
