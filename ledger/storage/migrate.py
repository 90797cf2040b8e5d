"""Bring the ledger database to the newest schema, and grant the service's role what it needs and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from ledger.storage.database import for_migration, read, writing
from ledger.storage.tables import APPEND_ONLY, DERIVED

VERSION_TABLE: Final = "ledger_version"

GRANTS: Final = {
    **dict.fromkeys(APPEND_ONLY, "SELECT, INSERT"),
    **dict.fromkeys(DERIVED, "SELECT, INSERT, UPDATE, DELETE"),
    VERSION_TABLE: "SELECT",
    "ledgers": "SELECT, INSERT, UPDATE (policy)",
    "heads": "SELECT, INSERT, UPDATE (size, frontier, last_recorded_at, vault_mints, journal_line)",
    "api_keys": "SELECT, INSERT, UPDATE (revoked_at, last_used_at)",
}
"""The rights of the service's role. No row of the log may be updated or deleted (I1)."""


def migrate(engine: Engine, service_role: str | None = None, *, revision: str = "head") -> None:
    """Run the migrations that are missing, in one transaction; doing it again changes nothing.

    On PostgreSQL ``service_role``, an existing role, gets its rights, unless it is the one that migrates.
    """
    with writing(engine) as connection:
        for_migration(connection)
        command.upgrade(_config(connection), revision)
        if service_role is not None and connection.dialect.name == "postgresql":
            _grant(connection, service_role)


def pending_migrations(engine: Engine) -> bool:
    """Whether ``migrate`` would change the schema."""
    newest = ScriptDirectory.from_config(_config(None)).get_current_head()
    return read(engine, _revision) != newest


def _revision(connection: Connection) -> str | None:
    options = {"version_table": VERSION_TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _config(connection: Connection | None) -> Config:
    config = Config()
    # Alembic takes % for an interpolation, and a path may hold one.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _grant(connection: Connection, service_role: str) -> None:
    if connection.execute(sa.text("SELECT current_user")).scalar_one() == service_role:
        return
    quote = connection.dialect.identifier_preparer.quote
    role = quote(service_role)
    schema = quote(connection.execute(sa.text("SELECT current_schema()")).scalar_one())
    connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    for table, rights in GRANTS.items():
        # What an older version granted must not linger.
        connection.exec_driver_sql(f"REVOKE ALL ON {schema}.{table} FROM {role}")
        connection.exec_driver_sql(f"GRANT {rights} ON {schema}.{table} TO {role}")
