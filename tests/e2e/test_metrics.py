"""``/metrics``: for everybody inside, from whichever process, whatever is down, and without anybody's data."""

from __future__ import annotations

from http import HTTPStatus

from tests.e2e.conftest import Tenant, make_tenant
from tests.support.metrics import scrape
from tests.support.postgres import PostgresCluster
from tests.support.server import ServedLedger

ROUNDS = 40
QUERY = "/v1/ledgers/<ledger>/query"


def test_all_processes_count_together(tenant: Tenant) -> None:
    """Whichever process answers: nothing is missing, and nothing ever shrinks."""
    client = tenant.client
    tenant.client.post(f"{tenant.path}/events", {"stream": "ward-1", "type": "Opened", "nonpersonal": {}})
    before = scrape(client, "audit_ledger_queries_total") or 0
    asked = scrape(client, "audit_ledger_requests_total", route=QUERY, status="200") or 0
    asked_at_all = scrape(client, "audit_ledger_request_seconds_count", route=QUERY) or 0
    seen = [before]
    for _ in range(ROUNDS):
        assert client.post(f"{tenant.path}/query", {}).status == HTTPStatus.OK
        seen.append(scrape(client, "audit_ledger_queries_total") or 0)
    assert seen == sorted(seen)
    assert seen[-1] == before + ROUNDS
    assert scrape(client, "audit_ledger_requests_total", route=QUERY, status="200") == asked + ROUNDS
    assert scrape(client, "audit_ledger_request_seconds_count", route=QUERY) == asked_at_all + ROUNDS


def test_appends_are_counted_by_ledger_id(tenant: Tenant) -> None:
    """As the ledger counts them."""
    events = [{"stream": "ward-1", "type": "Opened", "nonpersonal": {}}] * 3
    tenant.client.post(f"{tenant.path}/events", {"events": events})
    assert scrape(tenant.client, "audit_ledger_events_total", ledger=tenant.ledger_id) == 3


def test_a_refused_question_is_a_request_but_no_query(embedded_tenant: Tenant) -> None:
    """Neither is an append."""
    client = embedded_tenant.client
    before = scrape(client, "audit_ledger_queries_total")
    refused = scrape(client, "audit_ledger_requests_total", route=QUERY, status="422") or 0
    assert client.post(f"{embedded_tenant.path}/query", {"no-such-field": 1}).status == 422
    client.post(f"{embedded_tenant.path}/events", {"stream": "ward-1", "type": "Opened", "nonpersonal": {}})
    assert scrape(client, "audit_ledger_queries_total") == before
    assert scrape(client, "audit_ledger_requests_total", route=QUERY, status="422") == refused + 1


def test_metrics_say_nothing_of_anybody(embedded_tenant: Tenant) -> None:
    """I5: no name, no stream, no ledger's name, no address that a client made up."""
    client = embedded_tenant.client
    canary = "canary-3f9a"
    client.post(
        f"{embedded_tenant.path}/events",
        {"stream": f"patient-{canary}", "type": "Visit", "subject": canary, "data": {"of": canary}},
    )
    client.post(f"{embedded_tenant.path}/query", {"subject": canary})
    client.get(f"/v1/{canary}")
    client.send(canary.upper().replace("-", ""), "/livez")
    told = client.with_key(None).get("/metrics").body.decode()
    assert canary not in told.lower()
    assert "CANARY3F9A" not in told
    assert embedded_tenant.name not in told


def test_metrics_answer_while_the_databases_are_down(own_postgres: PostgresCluster) -> None:
    """The vault first, then both: with what is left, and a metric that says so."""
    with ServedLedger({"AUDIT_LEDGER_KEYVAULT_URL": own_postgres.create_database()}) as server:
        client = make_tenant(server).client
        assert scrape(client, "audit_ledger_keyvault_up") == 1
        own_postgres.stop()
        assert scrape(client, "audit_ledger_keyvault_up") == 0
        assert scrape(client, "audit_ledger_open_erasures") is None
        assert scrape(client, "audit_ledger_database_up") == 1
        assert scrape(client, "audit_ledger_events_total") == 0
        assert scrape(client, "audit_ledger_queries_total") == 0
        own_postgres.start()
        assert scrape(client, "audit_ledger_keyvault_up") == 1
