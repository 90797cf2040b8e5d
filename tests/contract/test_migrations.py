"""The schema: the models are what the migrations make, and an old database comes to the newest without a loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from ledger.storage import tables
from ledger.storage.database import open_engine
from ledger.storage.migrate import VERSION_TABLE, migrate, pending_migrations
from tests.support.ledgers import Backend, a_fact, a_visit

FIRST_SCHEMA = (
    "ledgers",
    "heads",
    "events",
    "event_keys",
    "shredded_keys",
    "erasure_roots",
    "abandoned_streams",
    "api_keys",
)
"""The tables of the first schema, each before those that refer to it."""


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection")  # of the one index on an expression, in SQLite
def test_the_models_are_what_the_migrations_made(backend: Backend) -> None:
    """Every table and column of ``tables.py``, and no other, is in the migrated database, with the same nullability."""
    with backend.engine.connect() as connection:
        inspector = sa.inspect(connection)
        assert set(inspector.get_table_names()) == {*tables.metadata.tables, VERSION_TABLE}
        for name, table in tables.metadata.tables.items():
            columns = {column["name"]: column for column in inspector.get_columns(name)}
            assert columns.keys() == set(table.columns.keys())
            for column in table.columns:
                assert columns[column.name]["nullable"] is column.nullable, (name, column.name)
            key = [column.name for column in table.primary_key]
            assert sorted(inspector.get_pk_constraint(name)["constrained_columns"]) == sorted(key)
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": VERSION_TABLE})
        # The models leave out what only the database has to know: indexes, foreign keys and unique constraints.
        left_out = {"remove_index", "remove_fk", "remove_constraint"}
        differences = compare_metadata(context, tables.metadata)
        assert [one for one in differences if not isinstance(one, tuple) or one[0] not in left_out] == []


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection")  # likewise
def test_the_ledger_leads_every_index(backend: Backend) -> None:
    """So that the schema can be distributed by ledger: ``ledger_id`` stands first in every key and index of the log."""
    with backend.engine.connect() as connection:
        inspector = sa.inspect(connection)
        for name in (*tables.APPEND_ONLY, "heads"):
            assert inspector.get_pk_constraint(name)["constrained_columns"][0] == "ledger_id"
            for unique in inspector.get_unique_constraints(name):
                assert unique["column_names"][0] == "ledger_id"
            for index in inspector.get_indexes(name):
                assert index["column_names"][0] == "ledger_id"


def test_postgresql_looks_after_what_only_grows(backend: Backend) -> None:
    """Its statistics are not left to age until a fifth of the events are new, and a head has room for its versions."""
    if backend.engine.dialect.name != "postgresql":
        return
    with backend.engine.connect() as connection:
        query = "SELECT relname, reloptions FROM pg_class WHERE relname IN ('events', 'event_keys', 'heads')"
        options = {name: set(given or ()) for name, given in connection.execute(sa.text(query))}

    growing = {"autovacuum_vacuum_insert_scale_factor=0.02", "autovacuum_analyze_scale_factor=0.02"}
    assert growing <= options["events"] & options["event_keys"]
    assert options["heads"] == {"fillfactor=50"}


def test_a_populated_ledger_migrates_forward(request: pytest.FixtureRequest, backend: Backend, tmp_path: Path) -> None:
    """From the first schema, with the rows of a ledger in it, to the newest: nothing is lost, all proofs still hold."""
    if backend.name == "sqlite":
        url = f"sqlite:///{tmp_path}/old.db"
    else:
        url = request.getfixturevalue("postgres").create_database()
    ledger = backend.new_ledger()
    ledger.append(a_visit("A"), a_fact())
    ledger.erase("patient:A")
    with ledger.deps.store.locked_head(ledger.ledger_id) as lock:
        lock.abandon(b"s" * 16)
    ledger.append(a_visit("B", actor="group:L"))
    before, report = ledger.recorded(), ledger.verify()
    assert report.intact
    engine = open_engine(url)
    migrate(engine, revision="0001")
    assert pending_migrations(engine)
    with backend.engine.connect() as source, engine.begin() as target:
        for name in FIRST_SCHEMA:
            table = tables.metadata.tables[name]
            columns = [table.c[column["name"]] for column in sa.inspect(target).get_columns(name)]
            rows = source.execute(sa.select(*columns).where(table.c.ledger_id == ledger.ledger_id)).mappings().all()
            if rows:
                target.execute(sa.insert(table), [dict(row) for row in rows])

    migrate(engine)
    migrate(engine)

    assert not pending_migrations(engine)
    old = replace(backend, engine=engine).ledger(ledger.ledger_id)
    assert old.recorded() == before
    # The first schema had no checkpoints.
    assert old.verify() == replace(report, checkpoints=0)
    old.append(a_visit("B"))
    assert old.positions(category="patient") == [0, 3, 4]
    engine.dispose()
