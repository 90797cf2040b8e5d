"""Alembic's way in. Run through ``keyvault.migrate.migrate``, which brings the connection and its transaction."""

from __future__ import annotations

from alembic import context

from keyvault.migrate import VERSION_TABLE
from keyvault.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("run the vault's migrations with `audit-ledger migrate`")

context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite can roll back DDL as well: a migration that fails or is killed leaves nothing half done.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
