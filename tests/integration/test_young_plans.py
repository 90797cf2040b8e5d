"""What PostgreSQL plans while a log is young it goes by until it knows better, and by then the log has grown."""

from __future__ import annotations

from uuid import UUID

import psycopg

from ledger.storage.database import open_engine
from ledger.storage.migrate import migrate
from ledger.storage.surveying import POSTGRESQL_SURVEY
from tests.support.postgres import PostgresCluster

LEDGER = UUID(int=1)


def test_an_append_goes_by_the_right_indexes_from_the_first_event_on(postgres: PostgresCluster) -> None:
    """An empty table makes every index look alike. The survey of an append takes those that lead straight to an id
    and to the newest event of a stream all the same: any other would read the whole ledger, under the head lock."""
    url = postgres.create_database()
    engine = open_engine(url)
    migrate(engine)
    engine.dispose()
    statement = POSTGRESQL_SURVEY
    for number, name in enumerate(("ledger", "ids", "keys", "refs"), 1):
        statement = statement.replace(f"%({name})s", f"${number}")

    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        connection.execute(f"PREPARE survey (uuid, uuid[], bytea[], bytea[]) AS {statement}".encode())
        plan = connection.execute(f"EXPLAIN EXECUTE survey ('{LEDGER}', '{{}}', '{{}}', '{{}}')".encode()).fetchall()

    scans = [line.strip() for (line,) in plan if "Scan" in line and " on events" in line]
    assert [scan.split(" on events")[0].removeprefix("->").strip() for scan in scans] == [
        "Index Only Scan using events_event_id",
        "Index Only Scan Backward using events_stream_version",
    ]
