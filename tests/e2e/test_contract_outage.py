"""I9, I11, I12 over HTTP: what clients are told when a database goes away in the middle."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator

import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from ledger.services.appending.ingest import BATCH_LINES
from tests.e2e.conftest import Tenant, make_tenant, postgres_settings
from tests.support.postgres import PostgresCluster
from tests.support.server import NDJSON, ServedLedger

EVENT = {"stream": "patient-A", "type": "Noted", "subject": "patient:A", "data": {"n": 1}}


@pytest.fixture
def tenant(own_postgres: PostgresCluster) -> Iterator[Tenant]:
    """A ledger on a PostgreSQL that the test may stop."""
    with ServedLedger(postgres_settings(own_postgres)) as server:
        yield make_tenant(server)


def lines(count: int) -> Iterator[bytes]:
    """So many events, one a line."""
    for number in range(count):
        yield json.dumps({**EVENT, "data": {"n": number, "text": "x" * 200}}).encode() + b"\n"


def test_a_lost_database_is_a_503_and_comes_back(own_postgres: PostgresCluster, tenant: Tenant) -> None:
    """Nothing is shown as a redaction, readiness names what is missing, and afterwards all is as before."""
    tenant.client.post(f"{tenant.path}/events", EVENT)
    own_postgres.stop()

    refused = [
        tenant.client.post(f"{tenant.path}/query", {}),
        tenant.client.post(f"{tenant.path}/events", EVENT),
        tenant.client.post_lines(f"{tenant.path}/events", [EVENT]),
        tenant.client.post(f"{tenant.path}/erasures", {"subject": "patient:A"}),
    ]
    ready = tenant.client.get("/readyz")
    alive = tenant.client.get("/livez")

    for answer in refused:
        # Both are gone; a process that has not looked at anything yet misses the key vault first.
        assert (answer.status, answer.code) in ((503, "store-unavailable"), (503, "vault-unavailable"))
        assert int(answer.headers["retry-after"]) > 0
        assert "errors" not in answer.json()
    assert (ready.status, ready.code) == (503, "not-ready")
    assert {"ledger-database", "key-vault"} <= {error["dependency"] for error in ready.json()["errors"]}
    assert alive.status == 200

    own_postgres.start()
    assert tenant.client.get("/readyz").status == 200
    assert tenant.client.post(f"{tenant.path}/query", {}).json()["events"][0]["data"] == {"n": 1}


def test_lines_that_were_recorded_before_a_failure_are_told(own_postgres: PostgresCluster, tenant: Tenant) -> None:
    """I4, I11: the answer holds what is recorded and that it is not the end; sending all again completes it."""
    everything = list(lines(BATCH_LINES * 4))

    def until_it_breaks() -> Iterator[bytes]:
        for number, line in enumerate(everything):
            if number == BATCH_LINES * 3:
                wait_for_size(tenant, BATCH_LINES)
                own_postgres.stop("immediate")
            yield line

    headers = {"Content-Type": NDJSON, "Idempotency-Key": "file-1"}
    *told, end = tenant.client.send("POST", f"{tenant.path}/events", until_it_breaks(), headers).lines()

    assert end["end"] is False
    assert end["problem"]["type"].rpartition(":")[2] in ("store-unavailable", "vault-unavailable")
    assert (end["recorded"], end["duplicates"], end["refused"]) == (len(told), 0, 0)
    assert BATCH_LINES <= len(told) < len(everything)

    own_postgres.start()
    *again, whole = tenant.client.send("POST", f"{tenant.path}/events", iter(everything), headers).lines()
    assert again[: len(told)] == told
    assert whole["recorded"] + whole["duplicates"] == len(everything)
    assert whole["duplicates"] >= len(told)
    assert tenant.size == len(everything)


def test_an_export_that_fails_in_the_middle_says_so(own_postgres: PostgresCluster, tenant: Tenant) -> None:
    """Its last line is a problem and no end."""
    tenant.client.send("POST", f"{tenant.path}/events", lines(20_000), {"Content-Type": NDJSON})
    connection = http.client.HTTPConnection("127.0.0.1", tenant.server.port, timeout=60)
    headers = {"Authorization": f"Bearer {tenant.client.key}", "Content-Type": "application/json", "Accept": NDJSON}
    connection.request("POST", f"{tenant.path}/query", b"{}", headers)
    response = connection.getresponse()
    first = response.readline()
    own_postgres.stop("immediate")
    rest = response.read().splitlines()
    connection.close()

    assert json.loads(first)["position"] == 0
    last = json.loads(rest[-1])
    assert (last["end"], last["problem"]["status"]) == (False, 503)
    assert len(rest) < 20_000


def wait_for_size(tenant: Tenant, size: int) -> None:
    """Until so many events are recorded."""
    deadline = time.monotonic() + 30
    while tenant.size < size and time.monotonic() < deadline:
        time.sleep(0.05)
    assert tenant.size >= size


def test_a_lost_vault_is_a_503_and_never_a_redaction(own_postgres: PostgresCluster) -> None:
    """I9: with the ledger database there and the vault gone, nothing is shown or recorded until it is back."""
    settings = postgres_settings(own_postgres)
    vault = make_url(settings["AUDIT_LEDGER_KEYVAULT_URL"]).database
    with ServedLedger(settings) as server:
        tenant = make_tenant(server)
        event_id = tenant.client.post(f"{tenant.path}/events", EVENT).json()["events"][0]["id"]
        lock_out(own_postgres, vault, allowed=False)
        asked = [
            tenant.client.post(f"{tenant.path}/query", {}),
            tenant.client.post(f"{tenant.path}/query", {"stream": "patient-A"}),
            tenant.client.get(f"{tenant.path}/events"),
            tenant.client.get(f"{tenant.path}/events/{event_id}"),
            tenant.client.post(f"{tenant.path}/state", {"stream": "patient-A"}),
            tenant.client.post(f"{tenant.path}/events", {**EVENT, "subject": "patient:new"}),
            tenant.client.post(f"{tenant.path}/subjects/lookup", {"subject": "patient:A"}),
            tenant.client.post(f"{tenant.path}/erasures", {"subject": "patient:A"}),
        ]
        streamed = tenant.client.post(f"{tenant.path}/query", {}, {"Accept": NDJSON})
        ready = tenant.client.get("/readyz")
        lock_out(own_postgres, vault, allowed=True)

        assert [(answer.status, answer.code) for answer in asked] == [(503, "vault-unavailable")] * len(asked)
        assert all(int(answer.headers["retry-after"]) > 0 for answer in asked)
        assert b"redactions" not in streamed.body
        assert b"vault-unavailable" in streamed.body
        assert "key-vault" in {error["dependency"] for error in ready.json()["errors"]}
        shown = tenant.client.post(f"{tenant.path}/query", {}).json()["events"]
        assert [(event["data"], event["redactions"]) for event in shown] == [({"n": 1}, [])]


def lock_out(cluster: PostgresCluster, database: str | None, *, allowed: bool) -> None:
    """Let nobody into one database, and throw out who is in it; or let them in again."""
    with cluster.connect() as connection:
        connection.autocommit = True
        connection.execute(
            sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(
                sql.Identifier(database or ""), sql.Literal(allowed)
            )
        )
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,))
