"""Bring the vault's database to the newest schema, and give the service's role what it needs and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from keyvault import clear_names, database

VERSION_TABLE: Final = "keyvault_version"

# Locking a row FOR SHARE or FOR UPDATE needs the right to update some column of it.
GRANTS: Final = {
    VERSION_TABLE: "SELECT",
    "epochs": "SELECT, INSERT, UPDATE (state, current_at, rewrapped_at, damaged, retired_at, destroyed_at, gone_at)",
    "ledger_secrets": "SELECT, INSERT, UPDATE (wrapped, epoch)",
    "subjects": "SELECT, INSERT, UPDATE (state, changed_at, unlinked_at)",
    "subject_names": "SELECT, INSERT, UPDATE (link_id, sealed_ref)",
    "streams": "SELECT, INSERT, DELETE, UPDATE (sealed_refs)",
    "link_keys": "SELECT, INSERT, DELETE, UPDATE (wrapped, epoch)",
    "subject_links": "SELECT, INSERT, DELETE, UPDATE (wrapped, epoch)",
    "subject_keys": "SELECT, INSERT, DELETE, UPDATE (wrapped_dek, epoch)",
    "fences": "SELECT, INSERT",
    "erasures": "SELECT, INSERT, UPDATE (state, next_state, erased_at, epoch, unlinked_at)",
    "reinstatements": "SELECT, INSERT, DELETE",
    "ledger_marks": "SELECT, INSERT, UPDATE (mints, size, leaf_hash)",
    "journal_marks": "SELECT, INSERT, UPDATE (n, digest)",
    "backups": "SELECT, INSERT",
    "statements": "SELECT, INSERT",
}


def migrate(engine: Engine, service_role: str | None = None, *, revision: str = "head") -> None:
    """Run every migration that is missing, in one transaction; doing it again changes nothing. What needs the KEKs
    besides is left to :mod:`keyvault.clear_names`.

    On PostgreSQL ``service_role`` (an existing role) is granted what the service needs, unless it is the
    migrating user.
    """
    with database.writing(engine) as connection:
        database.prepare_migration(connection)
        command.upgrade(_config(connection), revision)
        if service_role is not None and connection.dialect.name == "postgresql":
            _grant(connection, service_role)


def pending_migrations(engine: Engine) -> bool:
    """Whether :func:`migrate` would change anything, or left names to be sealed."""
    newest = ScriptDirectory.from_config(_config(None)).get_current_head()
    return database.read(engine, _revision) != newest or clear_names.are_left(engine)


def _revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def _config(connection: Connection | None) -> Config:
    config = Config()
    # Alembic interpolates %, which a path may hold.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _grant(connection: Connection, service_role: str) -> None:
    if connection.execute(text("SELECT current_user")).scalar_one() == service_role:
        return
    quote = connection.dialect.identifier_preparer.quote
    role = quote(service_role)
    schema = quote(connection.execute(text("SELECT current_schema()")).scalar_one())
    connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    for table, rights in GRANTS.items():
        # Revoked first: what an older version granted must not linger.
        connection.exec_driver_sql(f"REVOKE ALL ON {schema}.{table} FROM {role}")
        connection.exec_driver_sql(f"GRANT {rights} ON {schema}.{table} TO {role}")
