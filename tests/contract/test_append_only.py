"""A log that is append-only (I1): triggers stop everybody, and grants stop the service before them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from ledger.domain.access import ApiKey
from ledger.storage import tables
from ledger.storage.catalogue import SqlCatalogues
from ledger.storage.derived import open_derived
from ledger.storage.migrate import VERSION_TABLE, migrate
from ledger.storage.store import SqlStore
from ledger.storage.transparency import SqlTransparency
from tests.support.ledgers import NOW, PRIVACY_OFFICER, Backend, Ledger
from tests.support.populated import populate_derived, populate_log


def forbidden(table: sa.Table, dialect: str) -> Iterator[Any]:
    """What nobody may do to the table."""
    column = next(column for column in table.columns if not column.primary_key or column.name == "stream_ref")
    yield sa.update(table).values({column.name: column})
    yield sa.delete(table)
    if dialect == "postgresql":
        yield sa.text(f"TRUNCATE {table.name}")
        yield sa.text(f"TRUNCATE {table.name} CASCADE")
    else:
        yield sa.text(f"INSERT OR REPLACE INTO {table.name} SELECT * FROM {table.name}")
        yield sa.text(f"REPLACE INTO {table.name} SELECT * FROM {table.name}")
        yield sa.text(f"UPDATE OR REPLACE {table.name} SET ledger_id = ledger_id")


@pytest.mark.parametrize("name", tables.APPEND_ONLY)
def test_the_database_refuses_to_change_the_log(ledger: Ledger, name: str) -> None:
    """I1: a trigger stands in the way of every change, even of the owner's."""
    populate_log(ledger)
    table = tables.metadata.tables[name]
    count = sa.select(sa.func.count()).select_from(table).where(table.c.ledger_id == ledger.ledger_id)
    engine = ledger.backend.engine
    with engine.connect() as connection:
        before = connection.execute(count).scalar_one()
    assert before
    for statement in forbidden(table, ledger.backend.name):
        with pytest.raises(exc.DBAPIError, match="append-only"):
            ledger.backend.execute(statement)
    with engine.connect() as connection:
        assert connection.execute(count).scalar_one() == before


def test_the_log_and_its_rules_are_in_the_list() -> None:
    """Every table of the log is append-only; the others are the few whose rows have a life."""
    assert set(tables.metadata.tables) - set(tables.APPEND_ONLY) == {
        "ledgers",
        "heads",
        "api_keys",
        *tables.DERIVED,
    }


def rows_of(ledger: Ledger, table: sa.Table) -> int:
    """How many rows of a table are of a ledger."""
    count = sa.select(sa.func.count()).select_from(table).where(table.c.ledger_id == ledger.ledger_id)
    with ledger.backend.engine.connect() as connection:
        found: int = connection.execute(count).scalar_one()
    return found


def test_the_service_s_role_can_do_its_work(service: tuple[Backend, sa.Engine]) -> None:
    """With the rights that ``migrate`` grants, everything that the service does goes through."""
    opened, engine = service
    made = opened.new_ledger()
    deps = replace(
        made.deps,
        store=SqlStore(engine),
        catalogues=SqlCatalogues(engine),
        derived=open_derived(engine),
        transparency=SqlTransparency(engine),
    )
    ledger = replace(made, deps=deps)
    populate_log(ledger)
    populate_derived(ledger)
    for name in (*tables.APPEND_ONLY, *tables.DERIVED):
        assert rows_of(ledger, tables.metadata.tables[name]), name
    key = ApiKey(PRIVACY_OFFICER, "n", "p", frozenset(), None, b"h", NOW, None, None, None)
    deps.store.add_api_key(key)
    deps.store.touch_api_key(key.key_id, NOW)
    assert deps.store.revoke_api_key(key.key_id, NOW)
    deps.store.check()
    ledger.assert_intact()


FIXED = {"ledgers": "name", "heads": "ledger_id", "api_keys": "name", VERSION_TABLE: "version_num"}
"""Of each table whose rows have a life, a column that the service has no business to change."""


@pytest.mark.parametrize("name", [*tables.metadata.tables, VERSION_TABLE])
def test_the_service_s_role_can_change_nothing_else(service: tuple[Backend, sa.Engine], name: str) -> None:
    """I1 by grants: of the log no row is updated or deleted; and no table at all is truncated, altered or dropped."""
    _, engine = service
    statements = [
        f"TRUNCATE {name}",
        f"DROP TABLE {name}",
        f"ALTER TABLE {name} ADD COLUMN extra integer",
        f"ALTER TABLE {name} DISABLE TRIGGER ALL",
        f"CREATE TABLE {name}_copy AS SELECT * FROM {name}",
        f"CREATE INDEX ON {name} ((1))",
        "SET session_replication_role = replica",
        "DROP FUNCTION refuse_change() CASCADE",
    ]
    if name not in tables.DERIVED:
        column = FIXED.get(name, "ledger_id")
        statements += [f"DELETE FROM {name}", f"UPDATE {name} SET {column} = {column}"]
    with engine.connect() as connection:
        for statement in statements:
            with pytest.raises(exc.ProgrammingError) as caught:
                connection.exec_driver_sql(statement)
            assert getattr(caught.value.orig, "sqlstate", None) == "42501"
            connection.rollback()


def test_migrating_twice_grants_no_more(service: tuple[Backend, sa.Engine]) -> None:
    """Rights that somebody added by hand are gone after the next migration."""
    opened, engine = service
    role = engine.url.username
    with opened.engine.begin() as connection:
        connection.exec_driver_sql(f'GRANT ALL ON events, heads TO "{role}"')
    migrate(opened.engine, role)
    with engine.connect() as connection:
        for table in ("events", "heads"):
            has = sa.text("SELECT has_table_privilege(:table, 'DELETE') OR has_table_privilege(:table, 'TRUNCATE')")
            assert connection.execute(has, {"table": table}).scalar_one() is False
