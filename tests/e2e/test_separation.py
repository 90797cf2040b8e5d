"""On PostgreSQL neither the ledger's roles nor the key vault's get at the other's database, set up as the how-to page
says; and these roles can do all the work."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from api.config import Settings
from api.wiring import migrate_databases, open_service, prepare_home
from keyvault import tables as vault_tables
from ledger.domain.events import OPERATOR
from ledger.open_ledger import OpenLedger
from ledger.services.ledgers import create_ledger
from ledger.storage import tables
from tests.support.postgres import PostgresCluster, Role

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "postgresql.md"
NAMES = re.compile(r"\b(?:ledger|keyvault)(?:_owner|_service)?\b")
SIDES = ("ledger", "keyvault")
BREAK_OUTS: tuple[LiteralString, ...] = (
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT pg_ls_dir('base')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "CREATE EXTENSION postgres_fdw",
)


@dataclass(frozen=True, slots=True)
class Site:
    """Both databases on one server, which is harder to keep apart than two servers, with the page's roles by their
    names on the page."""

    cluster: PostgresCluster
    suffix: str
    roles: dict[str, Role]

    def database(self, side: str) -> str:
        """The name of a side's database."""
        return f"{side}_{self.suffix}"

    def url(self, side: str, role: str) -> str:
        """A side's database for a role."""
        return self.cluster.url(self.database(side), self.roles[role])


@pytest.fixture(scope="module")
def site(postgres: PostgresCluster) -> Site:
    """What the page's SQL makes, under other names, since others use this server too."""
    suffix = secrets.token_hex(4)
    for block in re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL):
        first, _, rest = NAMES.sub(lambda name: f"{name[0]}_{suffix}", block).partition("\\connect ")
        database, _, second = rest.partition("\n")
        for where, statements in (("postgres", first), (database.strip(), second)):
            with postgres.connect(where) as connection:
                for statement in filter(str.strip, statements.split(";")):
                    connection.execute(statement.encode())
    passwords = dict(re.findall(r"CREATE ROLE (\w+) LOGIN PASSWORD '([^']+)'", PAGE.read_text()))
    roles = {name: Role(f"{name}_{suffix}", password) for name, password in passwords.items()}
    assert set(roles) == {"ledger_owner", "ledger_service", "keyvault_owner", "keyvault_service"}
    return Site(postgres, suffix, roles)


@pytest.fixture(scope="module")
def settings(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A service on them, in which somebody was recorded and somebody erased."""
    names = {"ledger": "DATABASE", "keyvault": "KEYVAULT"}
    urls = {f"AUDIT_LEDGER_{names[side]}_URL": site.url(side, f"{side}_service") for side in SIDES}
    urls |= {f"AUDIT_LEDGER_MIGRATE_{names[side]}_URL": site.url(side, f"{side}_owner") for side in SIDES}
    settings = Settings.from_environment({"AUDIT_LEDGER_HOME": str(tmp_path_factory.mktemp("site") / "home"), **urls})
    prepare_home(settings)
    migrate_databases(settings)
    service = open_service(settings)
    service.vault.initialise()
    ledger = OpenLedger(service.deps, create_ledger(service.deps, "ward").ledger_id, OPERATOR)
    for name in ("A", "B"):
        ledger.append({"stream": f"patient-{name}", "type": "Visit", "subject": f"patient:{name}", "data": {"n": 1}})
    ledger.erase("patient:A")
    data = [found.subject.data for found in ledger.query().events if found.subject is not None]
    assert data == [None, {"n": 1}]
    service.close()
    return settings


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("kind", ["owner", "service"])
@pytest.mark.parametrize(("mine", "theirs"), [SIDES, SIDES[::-1]])
def test_no_role_gets_into_the_other_database(site: Site, mine: str, theirs: str, kind: str) -> None:
    """With its own password it is turned away at the door, and it gets no further than its own database."""
    role = site.roles[f"{mine}_{kind}"]
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        site.cluster.connect(site.database(theirs), role)
    with site.cluster.connect(site.database(mine), role) as connection:
        for statement in BREAK_OUTS:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(site.roles[f"{theirs}_{kind}"].name)))


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("kind", ["owner", "service"])
@pytest.mark.parametrize(("mine", "theirs"), [SIDES, SIDES[::-1]])
def test_even_behind_the_door_it_reads_and_changes_nothing(site: Site, mine: str, theirs: str, kind: str) -> None:
    """Where the line of the page that shuts the door was forgotten, as PostgreSQL does by default."""
    role, database = site.roles[f"{mine}_{kind}"], site.database(theirs)
    metadata = tables.metadata if theirs == "ledger" else vault_tables.metadata
    name = sql.Identifier(role.name)
    with site.cluster.connect() as connection:
        connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(database), name))
    try:
        with site.cluster.connect(database, role) as connection:
            assert len(metadata.tables) > 8
            for table in map(sql.Identifier, metadata.tables):
                for statement in (
                    sql.SQL("SELECT 1 FROM {} LIMIT 1").format(table),
                    sql.SQL("DELETE FROM {}").format(table),
                    sql.SQL("TRUNCATE {}").format(table),
                    sql.SQL("INSERT INTO {} DEFAULT VALUES").format(table),
                ):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(statement)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("CREATE TABLE mine (n int)")
    finally:
        with site.cluster.connect() as connection:
            connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM {}").format(sql.Identifier(database), name))
