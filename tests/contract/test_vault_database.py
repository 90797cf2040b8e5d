"""The vault's migrations, grants and connections, on SQLite and on PostgreSQL."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, LargeBinary, bindparam, inspect, select, text

from keyvault import clear_names, database, tables
from keyvault.database import make_engine
from keyvault.errors import ConnectionLostError, KeyVaultError, VaultUnavailableError
from keyvault.migrate import GRANTS, VERSION_TABLE, migrate, pending_migrations
from keyvault.opening import open_vault
from keyvault.values import StreamEntry
from keyvault.vault import Vault
from tests.contract.vault_world import (
    LEDGER,
    World,
    at_once,
    begin,
    erase,
    key_of,
    postgresql_world,
    service_role,
    set_up,
    sqlite_world,
    status_of,
)
from tests.support.postgres import PostgresCluster
from tests.support.statements import noted_statements

HOLD_WRITE_LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(1.5)
connection.execute("COMMIT")
"""


READ_AND_CLOSE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM subjects").fetchone()[0])
connection.close()
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """An empty database."""
    with new_world(request, tmp_path) as world:
        yield world


def new_world(request: pytest.FixtureRequest, folder: Path) -> AbstractContextManager[World]:
    """An empty database on the engine of the test."""
    engine = next(name for name in ("sqlite", "postgresql") if name in request.node.name)
    if engine == "sqlite":
        return sqlite_world(folder)
    return postgresql_world(request.getfixturevalue("postgres"), folder)


# Migrations


def test_migrating_a_populated_vault_loses_nothing(
    empty_world: World, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward from the first schema with living keys, fences and an open erasure in it: all of it still works. What
    names lead to is sealed, batch by batch, and what was interrupted is finished."""
    (tmp_path / "source").mkdir(mode=0o700)
    with new_world(request, tmp_path / "source") as source:
        vault = set_up(source)
        living, gone = key_of(vault, "patient:A"), key_of(vault, "patient:B")
        erase(vault, "patient:B", 1)
        key_of(vault, "patient:C")
        begin(vault, "patient:C", 2)
        kept = vault.reserve(LEDGER, {"patient-A": "patient:A", "ward-1": None}, [], mint=True).streams
        subjects = {name: vault.find_subjects(LEDGER, [name])[name] for name in ("patient:A", "patient:B", "patient:C")}
        admin = empty_world.admin()
        migrate(admin, revision="0001")
        assert pending_migrations(admin)
        before = copy_rows(source, empty_world)
        clear = clear_index(vault, {name: entry.ref for name, entry in subjects.items()}, kept)
        for statement, values in clear:
            empty_world.execute(statement, **values)
        shutil.copytree(source.kek_folder, empty_world.kek_folder)
        shutil.copy(source.journal_path, empty_world.journal_path)
    migrate(admin, service_role(empty_world))
    owner = open_vault(empty_world.admin_url, f"file:{empty_world.kek_folder}", "file:/nowhere", empty_world.clock)
    monkeypatch.setattr(clear_names, "BATCH", 2)
    with pytest.raises(KeyboardInterrupt):
        owner.seal_clear_names(interrupt)
    assert pending_migrations(admin)
    assert owner.seal_clear_names() == len(clear) - 2
    assert not pending_migrations(admin)
    assert owner.seal_clear_names() == 0
    owner.close()
    for name, (columns, rows) in before.items():
        assert rows_of(empty_world, name, columns) == rows
    later = empty_world.open()
    assert not pending_migrations(later.engine)
    assert (status_of(later, living), status_of(later, gone)) == ("living", "fenced")
    assert later.find_subjects(LEDGER, list(subjects)) == subjects
    assert later.find_streams(LEDGER, list(kept)) == kept
    owned = {ref for entry in kept.values() if entry.owner_ref is not None for ref in (entry.ref, entry.owner_ref)}
    in_index = repr([empty_world.rows(name) for name in ("subject_names", "streams", "link_keys")])
    assert [ref for ref in owned | {entry.ref for entry in subjects.values()} if repr(ref) in in_index] == []
    assert repr(kept["ward-1"].ref) in in_index
    assert [entry.epoch for entry in later.erasures(LEDGER, reference=None, done=None, after=None, limit=9)] == [
        1,
        None,
    ]
    assert later.finish_erasure(LEDGER, later.open_erasures()[0].erasure_id, 5).done


def copy_rows(source: World, target: World) -> dict[str, tuple[list[str], list[tuple[object, ...]]]]:
    """Put into the tables of an older schema what stands in those of the newest, but for the name index; gives columns
    and rows of each."""
    found = {}
    with database.writing(target.admin()) as connection:
        for table in tables.metadata.sorted_tables:
            if table.name in ("subject_names", "streams") or not inspect(connection).has_table(table.name):
                continue
            columns = [column["name"] for column in inspect(connection).get_columns(table.name)]
            rows = rows_of(source, table.name, columns)
            found[table.name] = (columns, rows)
            marks = ", ".join(f":{column}" for column in columns)
            for row in rows:
                statement = text(f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks})")
                connection.execute(statement, dict(zip(columns, row, strict=True)))
    return found


def clear_index(
    vault: Vault, subjects: Mapping[str, bytes], streams: Mapping[str, StreamEntry]
) -> list[tuple[str, dict[str, object]]]:
    """What a version without link keys would have in its name index: statements that put it there."""
    ledger = vault._ledger_keys(LEDGER)
    ledger_id = LEDGER if vault.engine.dialect.name == "postgresql" else LEDGER.bytes
    names: list[dict[str, object]] = [
        {"l": ledger_id, "h": ledger.subject_hash(name), "r": ref} for name, ref in subjects.items()
    ]
    owned: list[dict[str, object]] = [
        {"l": ledger_id, "h": ledger.stream_hash(name), "r": entry.ref, "o": entry.owner_ref}
        for name, entry in streams.items()
    ]
    return [
        *(("INSERT INTO subject_names (ledger_id, name_hash, subject_ref) VALUES (:l, :h, :r)", row) for row in names),
        *(
            ("INSERT INTO streams (ledger_id, name_hash, stream_ref, owner_ref) VALUES (:l, :h, :r, :o)", row)
            for row in owned
        ),
    ]


def interrupt(_sealed: int) -> None:
    """What stops somebody in the middle."""
    raise KeyboardInterrupt


def rows_of(world: World, table: str, columns: list[str]) -> list[tuple[object, ...]]:
    """These columns of all rows, as the driver gives them, in a fixed order."""
    with database.reading(world.admin()) as connection:
        found = connection.execute(text(f"SELECT {', '.join(columns)} FROM {table}"))
        return sorted((tuple(row) for row in found), key=repr)


def test_migrations_make_the_tables_of_the_code(empty_world: World) -> None:
    """After the last migration the database is exactly what ``tables.py`` says."""
    migrate(empty_world.admin())

    def differences(connection: Connection) -> list[object]:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata))

    assert database.read(empty_world.admin(), differences) == []


def test_ledger_id_leads_every_key_and_index(empty_world: World) -> None:
    """The schema can be distributed by ledger; the exceptions are those of the design."""
    migrate(empty_world.admin())

    def leading(connection: Connection) -> set[tuple[str | None, str | None]]:
        inspector = inspect(connection)
        found: set[tuple[str | None, str | None]] = set()
        for name in tables.metadata.tables:
            primary = inspector.get_pk_constraint(name)
            found.add((primary["name"], primary["constrained_columns"][0]))
            for index in inspector.get_indexes(name):
                found.add((index["name"], index["column_names"][0]))
            for unique in inspector.get_unique_constraints(name):
                found.add((unique["name"], unique["column_names"][0]))
            for foreign in inspector.get_foreign_keys(name):
                found.add((foreign["name"], foreign["constrained_columns"][0]))
        return found

    others = {(name, column) for name, column in database.read(empty_world.admin(), leading) if column != "ledger_id"}
    assert {"epoch", "state", "key_id", "erasure_id", "taken_at", "one"} == {column for _, column in others}
    assert {
        "subject_keys_pkey",
        "fences_pkey",
        "erasures_pkey",
        "epochs_one_current",
        "backups_pkey",
        "statements_pkey",
    } == {name for name, column in others if column not in ("epoch", "one")}


def test_many_who_migrate_at_once_migrate_once(empty_world: World) -> None:
    """Processes that start together wait for each other."""
    engines = [make_engine(empty_world.admin_url) for _ in range(3)]
    at_once(*(partial(migrate, engine) for engine in engines))
    for engine in engines:
        engine.dispose()
    assert not pending_migrations(empty_world.admin())


def test_a_vault_that_was_not_migrated_says_so(empty_world: World) -> None:
    """Before the migrations every use is one of the vault's own errors."""
    assert pending_migrations(empty_world.admin())
    with pytest.raises(KeyVaultError):
        empty_world.open().check()


# Grants


def test_the_service_has_the_rights_it_needs_and_no_more(postgres: PostgresCluster, tmp_path: Path) -> None:
    """I1, I8: with the service's own login neither fences nor name hashes can be changed, nor rows deleted but those of
    keys and of the ways to them."""
    with postgresql_world(postgres, tmp_path) as world:
        vault = set_up(world)
        key_of(vault, "patient:A")
        erase(vault, "patient:A")
        key_of(vault, "patient:B")
        forbidden = [
            *(f"DELETE FROM {name}" for name in GRANTS if "DELETE" not in GRANTS[name]),
            "DELETE FROM subject_names",
            *(f"TRUNCATE {name} CASCADE" for name in GRANTS),
            "UPDATE fences SET purpose = 'x'",
            "UPDATE subject_keys SET subject_ref = ''",
            "UPDATE subject_names SET name_hash = ''",
            "UPDATE streams SET stream_ref = NULL",
            "UPDATE ledger_secrets SET key_id = ''",
            "UPDATE epochs SET provider = 'x'",
            "UPDATE statements SET payload = '{}'",
            "UPDATE backups SET taken_at = 0",
            "UPDATE erasures SET key_ids = '[]'",
            "UPDATE keyvault_version SET version_num = '0'",
            "ALTER TABLE fences DISABLE TRIGGER ALL",
            "CREATE TABLE mine (x int)",
        ]
        before = world.everything()
        for statement in forbidden:
            with pytest.raises(KeyVaultError, match="42501"), database.writing(vault.engine) as connection:
                connection.execute(text(statement))
        assert before == world.everything()


# Connections


def test_a_lost_connection_is_survived_by_reads(postgres: PostgresCluster, tmp_path: Path) -> None:
    """A read whose connection dies under it is done once more; a second loss is told as unavailable."""
    with postgresql_world(postgres, tmp_path) as world:
        vault = set_up(world)
        key_id = key_of(vault, "patient:A")
        with postgres.connect() as hand:
            hand.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", [service_role(world)]
            )
        assert status_of(vault, key_id) == "living"
        attempts: list[int] = []

        def die(times: int, connection: Connection) -> int:
            attempts.append(1)
            if len(attempts) <= times:
                connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            return connection.execute(text("SELECT 7")).scalar_one()  # type: ignore[no-any-return]  # a literal

        assert database.read(vault.engine, lambda connection: die(1, connection)) == 7
        attempts.clear()
        with pytest.raises(ConnectionLostError):
            database.read(vault.engine, lambda connection: die(9, connection))
        assert len(attempts) == 2
        attempts.clear()
        with pytest.raises(VaultUnavailableError), database.writing(vault.engine) as connection:
            die(9, connection)
        assert len(attempts) == 1


@pytest.mark.parametrize(("name", "instead"), [("_PING_AFTER_SECONDS", 60.0), ("_has_input", lambda _: False)])
def test_a_write_never_begins_on_a_connection_that_is_gone(
    postgres: PostgresCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, instead: object
) -> None:
    """A write is not done again, so its connection is looked at before: by what the server has said, and by asking it
    when the last use is long ago. Each of the two is enough."""
    with postgresql_world(postgres, tmp_path) as world:
        vault = set_up(world)
        monkeypatch.setattr(database, "_PING_AFTER_SECONDS", 0.0)
        monkeypatch.setattr(database, name, instead)
        assert key_of(vault, "patient:A")
        with postgres.connect() as hand:
            killed = hand.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", [service_role(world)]
            ).fetchall()
        assert killed
        with database.writing(vault.engine) as connection:
            assert connection.execute(text("SELECT count(*) FROM subject_keys")).scalar_one() == 1


def test_a_lost_connection_is_survived_by_looking(postgres: PostgresCluster, tmp_path: Path) -> None:
    """What is read outside of a transaction is read once more, too, and a second loss is told."""
    with postgresql_world(postgres, tmp_path) as world:
        vault = set_up(world)
        attempts: list[int] = []

        def die(times: int, connection: Connection) -> int:
            attempts.append(1)
            if len(attempts) <= times:
                connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            return connection.execute(text("SELECT 7")).scalar_one()  # type: ignore[no-any-return]  # a literal

        assert database.look(vault.engine, lambda connection: die(1, connection)) == 7
        attempts.clear()
        with pytest.raises(ConnectionLostError):
            database.look(vault.engine, lambda connection: die(9, connection))
        assert len(attempts) == 2


def test_looking_leaves_no_transaction_open_and_writers_have_theirs(postgres: PostgresCluster, tmp_path: Path) -> None:
    """The connection of a look goes back as it was: a write on it that fails afterwards leaves nothing."""
    with postgresql_world(postgres, tmp_path) as world:
        vault = set_up(world)
        state = text("SELECT xact_start = query_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")
        alone = [database.look(vault.engine, lambda connection: connection.execute(state).scalar_one()) for _ in "ab"]
        assert alone == [True, True]
        backup = tables.backups.insert().values(taken_at=1, kind="made", recorded_at=1)
        with pytest.raises(KeyVaultError), database.writing(vault.engine) as connection:
            [connection.execute(one) for one in (backup, backup)]
        assert world.rows("backups") == []


@pytest.mark.parametrize("size", [16, 32])
def test_many_values_go_as_one_and_all_are_found(empty_world: World, size: int) -> None:
    """None of them, one, and more than a list of parameters takes; of others' rows none."""
    migrate(empty_world.admin())
    refs = [hashlib.sha256(b"%d" % number).digest()[:size] for number in range(3000)]
    rows = [{"ledger_id": LEDGER, "subject_ref": ref, "state": "active", "changed_at": 1} for ref in refs]
    column, values = tables.subjects.c.subject_ref, bindparam("values", type_=LargeBinary)
    statement = database.among(empty_world.admin().dialect.name, select(column), column, values, size)
    with database.writing(empty_world.admin()) as connection:
        connection.execute(tables.subjects.insert(), rows)
        for wanted in ([], refs[:1], refs[10:2990], [b"\0" * size, refs[5], b"\xff" * size]):
            found = connection.execute(statement, {"values": database.joined(wanted, size)}).scalars().all()
            assert sorted(found) == sorted(set(wanted) & set(refs))


def test_values_of_another_size_are_refused() -> None:
    """One of them would move all that follow."""
    with pytest.raises(ValueError, match="32 bytes"):
        database.joined([b"a" * 32, b"b" * 31, b"c" * 33], 32)


@pytest.mark.parametrize("analysed", [False, True])
def test_a_reservation_looks_for_each_name_by_the_index(empty_world: World, analysed: bool) -> None:
    """However many names are asked for, and whatever the database believes of the size of its tables: none of those
    that grow with the people is gone through."""
    vault = set_up(empty_world)
    streams = {f"patient-{number}": f"patient:{number}" for number in range(800)}
    keys = [(owner, "") for owner in streams.values()]
    vault.reserve(LEDGER, streams, keys, mint=True)
    if analysed:
        empty_world.execute("ANALYZE")
    with noted_statements(vault.engine) as asked:
        vault.reserve(LEDGER, streams, keys, mint=False)
    assert len(asked) == 2
    explain = "EXPLAIN" if vault.engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    plan: list[str] = []
    for statement, parameters in asked:
        with database.reading(vault.engine) as connection:
            plan += [str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {statement}", parameters)]
    for name in ("subject_names", "streams", "subjects", "subject_keys", "link_keys"):
        steps = [line.split("(")[0] for line in plan if re.search(rf"(Scan|SEARCH|SCAN)\b.* {name}\b", line)]
        assert steps, plan
        assert all("Index" in step or step.startswith("SEARCH") for step in steps), plan


@pytest.mark.parametrize("young", [True, False])
def test_keys_are_looked_up_one_by_one_by_their_ids(empty_world: World, young: bool) -> None:
    """However many keys a page needs. In PostgreSQL one plan serves all pages, and it may have been made when the vault
    was empty: no more than later does it go through what else the ledger has."""
    vault = set_up(empty_world)
    goes_by = {"subject_keys": ["key_id"], "subjects": ["ledger_id", "subject_ref"]}
    if young:
        goes_by |= {"fences": ["key_id"], "erasures": ["ledger_id", "subject_ref"]}
    else:
        owners = [f"patient:{number}" for number in range(800)]
        vault.reserve(LEDGER, {}, [(owner, "") for owner in owners], mint=True)
        empty_world.execute("ANALYZE")
    with noted_statements(vault.engine) as asked:
        vault.look_up_keys(LEDGER, [b"k" * 32])
    statement, parameters = asked[0]
    plan = _lasting_plan(vault, statement, parameters)
    for name, columns in goes_by.items():
        (step,) = [step for step in plan if re.search(rf"( on|SEARCH|SCAN) {name} ", step)]
        condition = re.search(r"(Index Cond:| USING .*INDEX) (.*)", step)
        assert condition is not None, plan
        assert all(re.search(rf"\b{column} ?=", condition[2]) for column in columns), plan


def _lasting_plan(vault: Vault, statement: str, parameters: Any) -> list[str]:
    """The steps of the plan that a statement has whatever its values are, each in one line."""
    with database.reading(vault.engine) as connection:
        if vault.engine.dialect.name == "sqlite":
            return [str(row[-1]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        numbered = statement % {name: f"${number}" for number, name in enumerate(parameters, 1)}
        kinds = {"keys": "bytea", "ledger": "uuid"}
        types = [kinds.get(name, "text") for name in parameters]
        connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
        connection.exec_driver_sql(f"PREPARE looking_up ({', '.join(types)}) AS {numbered}")
        values = ", ".join("NULL" for _ in types)
        lines = [str(row[0]) for row in connection.exec_driver_sql(f"EXPLAIN EXECUTE looking_up ({values})")]
        # A line for each step, and behind it those that say what it goes by.
        return re.sub(r"\n(?! *->)\s*", " ", "\n".join(lines)).split("\n")


def test_the_keys_of_a_page_cost_one_statement(empty_world: World) -> None:
    """More of them than a list of parameters takes, given twice, and what is no key among them."""
    vault = set_up(empty_world)
    owners = [f"patient:{number}" for number in range(1200)]
    reserved = vault.reserve(LEDGER, {}, [(owner, "") for owner in owners], mint=True)
    wanted = [key.key_id for key in reserved.keys.values()]
    with noted_statements(vault.engine) as asked:
        found = vault.look_up_keys(LEDGER, [*wanted, *wanted])
    assert len(asked) == 1
    assert {key_id: (view.status, view.key and view.key.key_id) for key_id, view in found.items()} == {
        key_id: ("living", key_id) for key_id in wanted
    }
    assert vault.look_up_keys(LEDGER, [b"k" * 31, wanted[0], b"", wanted[1], b"k" * 33]).keys() == set(wanted[:2])


def test_a_server_that_is_away_is_unavailable(tmp_path: Path, postgres: PostgresCluster) -> None:
    """I9: no connection is an error of its own, and shows no password."""
    url = postgres.url("nowhere").replace(f":{postgres.port}/", ":1/")
    world = World(url, url, tmp_path)
    with pytest.raises(VaultUnavailableError) as raised:
        world.open().look_up_keys(LEDGER, [b"k" * 32])
    assert postgres.superuser.password not in str(raised.value)
    world.close()


def test_postgresql_statements_have_limits(postgres: PostgresCluster, tmp_path: Path) -> None:
    """A statement, a wait for a lock or a forgotten transaction does not block others for ever."""
    with postgresql_world(postgres, tmp_path) as world:
        settings = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_isolation"]
        with database.reading(world.admin()) as connection:
            found = [connection.execute(text(f"SHOW {name}")).scalar_one() for name in settings]
        assert found == ["30s", "10s", "1min", "read committed"]


def test_postgresql_is_durable_whatever_the_server_s_default_is(postgres: PostgresCluster, tmp_path: Path) -> None:
    """I11: a key that events are sealed under, or a fence, must not be lost in a crash of the server."""
    with postgresql_world(postgres, tmp_path) as world:
        with database.writing(world.admin()) as connection:
            name = connection.execute(text("SELECT current_database()")).scalar_one()
            connection.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
        world.admin().dispose()
        with database.reading(world.admin()) as connection:
            assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == "on"


def test_sqlite_is_durable_private_and_shreds(tmp_path: Path) -> None:
    """WAL with full sync, foreign keys, zeroed deleted rows; nobody else can read the files."""
    with sqlite_world(tmp_path) as world:
        set_up(world)
        with database.reading(world.admin()) as connection:
            pragmas = ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
            found = [connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in pragmas]
        assert found == ["wal", 2, 1, 1]
        files = list(tmp_path.glob("keyvault.db*"))
        assert len(files) == 3
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_sqlite_waits_for_another_process(tmp_path: Path) -> None:
    """A writer waits until another process has let go of the file; readers do not wait at all."""
    with sqlite_world(tmp_path) as world:
        vault = set_up(world)
        key_id = key_of(vault, "patient:A")
        command = [sys.executable, "-c", HOLD_WRITE_LOCK, str(tmp_path / "keyvault.db")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            assert status_of(vault, key_id) == "living"
            assert holder.poll() is None
            assert key_of(vault, "patient:B")
        assert holder.returncode == 0


def test_another_process_that_closes_the_vault_does_not_take_its_log_away(tmp_path: Path) -> None:
    """I11: as long as this process has the vault open, no other is the last one, however many connections it opens."""
    with sqlite_world(tmp_path) as world:
        vault = set_up(world)
        key_of(vault, "patient:A")
        with database.reading(world.admin()), database.reading(world.admin()):
            pass
        command = [sys.executable, "-c", READ_AND_CLOSE, str(tmp_path / "keyvault.db")]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b"1\n"
        key_of(vault, "patient:B")
        assert subprocess.run(command, capture_output=True, check=True).stdout == b"2\n"


def test_errors_show_no_values(empty_world: World) -> None:
    """I5: what the database says about values of a statement stays out of the error, its cause and its context."""
    set_up(empty_world)
    secret = b"canary-in-a-parameter"
    row = tables.subjects.insert().values(ledger_id=LEDGER, subject_ref=secret, state="active", changed_at=1)
    with database.writing(empty_world.admin()) as connection:
        connection.execute(row)
    with pytest.raises(KeyVaultError) as raised, database.writing(empty_world.admin()) as connection:
        connection.execute(row)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    for shown in (str(raised.value), repr(raised.value)):
        assert secret.decode() not in shown
        assert secret.hex() not in shown


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "postgresql://u:secret@h/d"]
)
def test_other_databases_are_refused(url: str) -> None:
    """Only a SQLite file or PostgreSQL through psycopg; the error names them, and no password."""
    with pytest.raises(KeyVaultError, match="sqlite:///PATH") as raised:
        make_engine(url)
    assert "secret" not in str(raised.value)


# The queue of writers


def test_threads_get_the_lock_in_order_of_arrival() -> None:
    """No writer starves: who came first goes first, and nobody barges in."""
    lock, order, threads = database.FairLock(), list[int](), list[threading.Thread]()

    def work(n: int) -> None:
        with lock.held(10):
            order.append(n)

    with lock.held(10):
        for n in range(8):
            threads.append(threading.Thread(target=work, args=(n,)))
            threads[-1].start()
            while len(lock._waiting) <= n:
                pass
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_who_waits_too_long_gives_up_and_leaves_the_queue() -> None:
    """A writer that gives up is told that the vault is busy, and the lock goes on to the next."""
    lock = database.FairLock()
    with lock.held(1):
        with pytest.raises(VaultUnavailableError), lock.held(0.01):
            pass
        assert not lock._waiting
    with lock.held(0.01):
        pass
    with pytest.raises(ZeroDivisionError), lock.held(1):
        raise ZeroDivisionError
    with lock.held(0.01):
        pass
