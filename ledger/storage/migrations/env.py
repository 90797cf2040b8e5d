"""Alembic's way in; ``ledger.storage.migrate`` brings the connection and its transaction."""

from __future__ import annotations

from alembic import context

from ledger.storage.migrate import VERSION_TABLE
from ledger.storage.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("run the migrations of the ledger database with `audit-ledger migrate`")

# transactional_ddl: in SQLite too a migration that is killed leaves nothing half done.
context.configure(connection=connection, target_metadata=metadata, version_table=VERSION_TABLE, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
