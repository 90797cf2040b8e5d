"""What the fault tests rely on: the test server really dies, and really keeps what was committed."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import create_engine, text

from tests.support.postgres import PostgresCluster


def test_a_killed_server_keeps_what_was_committed_and_nothing_else(own_postgres: PostgresCluster) -> None:
    """After SIGKILL the connections are dead; after the restart committed rows are there, open transactions are not."""
    url = own_postgres.create_database("kept")
    open_transaction = own_postgres.connect("kept")
    with own_postgres.connect("kept") as connection:
        connection.execute("CREATE TABLE facts (fact text)")
        connection.execute("INSERT INTO facts VALUES ('committed')")
    open_transaction.execute("BEGIN")
    open_transaction.execute("INSERT INTO facts VALUES ('open')")

    own_postgres.kill()

    assert not own_postgres.is_running()
    with pytest.raises(psycopg.OperationalError):
        open_transaction.execute("COMMIT")
    open_transaction.close()
    own_postgres.start()
    engine = create_engine(url)
    with engine.connect() as again:
        assert again.execute(text("SELECT fact FROM facts")).scalars().all() == ["committed"]
    engine.dispose()


def test_a_role_gets_only_what_is_granted_to_it(postgres: PostgresCluster) -> None:
    """A role of the tests is an ordinary one: it cannot read another's table, and its password is asked for."""
    owner, stranger = postgres.create_role(), postgres.create_role()
    database = postgres.create_database(owner=owner).rpartition("/")[2]
    with postgres.connect(database, owner) as connection:
        connection.execute("CREATE TABLE secrets (secret text)")

    with postgres.connect(database, stranger) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT * FROM secrets")
    with pytest.raises(psycopg.OperationalError):
        postgres.connect(database, type(owner)(owner.name, "wrong"))
