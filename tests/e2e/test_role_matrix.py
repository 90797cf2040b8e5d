"""Each endpoint with each role and with none. The table is written by hand, from the contract."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from tests.e2e.conftest import Tenant, make_tenant
from tests.support.server import Client, ServedLedger

ROLES = ("writer", "auditor", "privacy", "admin")
ANY = ROLES
REF = "sub_" + "0" * 32
ID = "00000000-0000-4000-8000-000000000000"
NAME = "nobody-made-this"
NUMBER = "x999/999"
LEVEL = "63"
LEASED = {"consumer": ID, "partition": 0, "position": 0}
TYPE = "Registered.Nowhere"
EVENT = {"stream": "ward-1", "type": "Noted", "nonpersonal": {}}


@dataclass(frozen=True)
class Endpoint:
    """Who may, and what a key that may gets for this request."""

    method: str
    path: str
    roles: tuple[str, ...]
    status: int
    body: object = field(default=None, hash=False)


MATRIX = [
    Endpoint("POST", "{ledger}/events", ("writer",), 201, EVENT),
    Endpoint("GET", "{ledger}/events", ("auditor",), 200),
    Endpoint("GET", "{ledger}/events/" + ID, ("auditor",), 404),
    Endpoint("POST", "{ledger}/query", ("auditor",), 200, {}),
    Endpoint("POST", "{ledger}/state", ("auditor",), 404, {"stream": "ward-0"}),
    Endpoint("POST", "{ledger}/states", ("auditor",), 200, {"category": "ward"}),
    Endpoint("POST", "{ledger}/diff", ("auditor",), 404, {"stream": "ward-0", "old_as_of": "2020-01-01T00:00:00Z"}),
    Endpoint("POST", "{ledger}/history", ("auditor",), 404, {"stream": "ward-0", "path": "/beds"}),
    Endpoint("POST", "{ledger}/subscriptions", ("auditor", "admin"), 422, {"name": "NOT VALID"}),
    Endpoint("GET", "{ledger}/subscriptions", ("auditor", "admin"), 200),
    Endpoint("GET", "{ledger}/subscriptions/" + NAME, ("auditor", "admin"), 404),
    Endpoint("DELETE", "{ledger}/subscriptions/" + NAME, ("auditor", "admin"), 404),
    Endpoint("POST", "{ledger}/subscriptions/" + NAME + "/fetch", ("auditor",), 404, {"consumer": ID}),
    Endpoint("POST", "{ledger}/subscriptions/" + NAME + "/acknowledge", ("auditor",), 404, LEASED),
    Endpoint("POST", "{ledger}/subscriptions/" + NAME + "/fail", ("auditor",), 404, {**LEASED, "error": "Timeout"}),
    Endpoint("GET", "{ledger}/subscriptions/" + NAME + "/parked", ("auditor", "admin"), 404),
    Endpoint("POST", "{ledger}/subscriptions/" + NAME + "/replay", ("auditor", "admin"), 404, {}),
    Endpoint("POST", "{ledger}/subscriptions/" + NAME + "/restart", ("auditor", "admin"), 404),
    Endpoint("POST", "{ledger}/read-models/" + NAME, ("auditor",), 404, {"limit": 1}),
    Endpoint("GET", "{ledger}/projections", ("auditor", "admin"), 200),
    Endpoint("POST", "{ledger}/projections/" + NAME + "/rebuild", ("admin",), 404),
    Endpoint("POST", "{ledger}/projections/" + NAME + "/restart", ("admin",), 404),
    Endpoint("POST", "{ledger}/streams/lookup", ("writer", "auditor"), 404, {"stream": "ward-0"}),
    Endpoint("POST", "{ledger}/streams/copy", ("admin",), 404, {"stream": "ward-0", "target": "ward-1"}),
    Endpoint("POST", "{ledger}/types", ("admin",), 422, {"type": "Noted", "version": 2}),
    Endpoint("GET", "{ledger}/types", ("writer", "auditor", "admin"), 200),
    Endpoint("GET", "{ledger}/types/" + TYPE, ("writer", "auditor", "admin"), 404),
    Endpoint("GET", "{ledger}/policy", ("admin",), 200),
    Endpoint("PUT", "{ledger}/policy", ("admin",), 200, {}),
    Endpoint("POST", "{ledger}/subjects/lookup", ("privacy", "auditor"), 404, {"subject": "nobody"}),
    Endpoint("GET", "{ledger}/subjects/" + REF, ("privacy", "auditor"), 404),
    Endpoint("POST", "{ledger}/subjects/restrict", ("privacy",), 404, {"subject": "nobody"}),
    Endpoint("POST", "{ledger}/subjects/unrestrict", ("privacy",), 404, {"subject": "nobody"}),
    Endpoint("POST", "{ledger}/subjects/reinstate", ("privacy",), 404, {"subject": "nobody"}),
    Endpoint("POST", "{ledger}/erasures", ("privacy",), 404, {"subject": "nobody"}),
    Endpoint("GET", "{ledger}/erasures", ("privacy",), 200),
    Endpoint("GET", "{ledger}/erasures/" + ID, ("privacy",), 404),
    Endpoint("GET", "{ledger}/erasures/" + ID + "/receipt", ("privacy",), 404),
    Endpoint("GET", "{ledger}/checkpoint", ("auditor",), 200),
    Endpoint("GET", "{ledger}/tile/entries/" + NUMBER, ("auditor",), 404),
    Endpoint("GET", "{ledger}/tile/" + LEVEL + "/" + NUMBER, ("auditor",), 404),
    Endpoint("GET", "{ledger}/events/" + ID + "/proof", ("auditor",), 404),
    Endpoint("GET", "{ledger}/consistency?from=0", ("auditor",), 200),
    Endpoint("GET", "{ledger}", ANY, 200),
    Endpoint("GET", "/v1/ledgers", ANY, 200),
    Endpoint("POST", "/v1/ledgers", ("admin",), 422, {"name": "NOT VALID"}),
    Endpoint("GET", "/v1/api-keys", ("admin",), 200),
    Endpoint("POST", "/v1/api-keys", ("admin",), 422, {"name": "x", "principal": "y", "roles": []}),
    Endpoint("DELETE", "/v1/api-keys/" + ID, ("admin",), 404),
]
IN_A_LEDGER = [endpoint for endpoint in MATRIX if endpoint.path.startswith("{ledger}")]


def names(endpoint: Endpoint) -> str:
    """How a test is called."""
    return f"{endpoint.method} {endpoint.path}"


def call(client: Client, endpoint: Endpoint, ledger: str) -> tuple[int, str | None]:
    """Status, and the code if it is a problem."""
    body = json.dumps(endpoint.body).encode() if endpoint.body is not None else None
    headers = {"Content-Type": "application/json"} if body is not None else None
    answer = client.send(endpoint.method, endpoint.path.format(ledger=ledger), body, headers)
    return answer.status, answer.code if answer.status >= 400 else None


@pytest.fixture(scope="module")
def tenant(sqlite_server: ServedLedger) -> Tenant:
    """One ledger for the whole table."""
    return make_tenant(sqlite_server)


@pytest.fixture(scope="module")
def clients(tenant: Tenant) -> dict[str, Client]:
    """A client for each role."""
    return {role: tenant.client_with(role) for role in ROLES}


@pytest.fixture(scope="module")
def bound_clients(tenant: Tenant) -> dict[str, Client]:
    """A client for each role, for the one ledger only."""
    return {role: tenant.client_with(role, ledger=tenant.name) for role in ROLES}


@pytest.mark.parametrize("endpoint", MATRIX, ids=names)
def test_each_role_may_what_the_contract_says_and_no_more(
    tenant: Tenant, clients: dict[str, Client], endpoint: Endpoint
) -> None:
    """403 for every other role, 401 without a key."""
    expected = {role: endpoint.status if role in endpoint.roles else 403 for role in ROLES}

    assert {role: call(clients[role], endpoint, tenant.path)[0] for role in ROLES} == expected
    assert call(tenant.client.with_key(None), endpoint, tenant.path) == (401, "unauthenticated")


@pytest.mark.parametrize("endpoint", IN_A_LEDGER, ids=names)
def test_a_key_of_one_ledger_works_there_and_nowhere_else(
    tenant: Tenant, bound_clients: dict[str, Client], endpoint: Endpoint
) -> None:
    """And it does not learn whether there is another of that name."""
    other = make_tenant(tenant.server)

    for role in endpoint.roles:
        client = bound_clients[role]
        assert call(client, endpoint, tenant.path)[0] == endpoint.status
        assert call(client, endpoint, other.path) == (403, "forbidden")
        assert call(client, endpoint, "/v1/ledgers/nobody-made-this") == (403, "forbidden")


@pytest.mark.parametrize("endpoint", IN_A_LEDGER, ids=names)
def test_the_role_is_looked_at_before_the_ledger_and_the_ledger_before_the_body(
    tenant: Tenant, clients: dict[str, Client], endpoint: Endpoint
) -> None:
    """401 before 403 before 404 before 4xx of the body."""
    nowhere = "/v1/ledgers/nobody-made-this"
    wrong = Endpoint(endpoint.method, endpoint.path, endpoint.roles, 0, ["not", "valid"] if endpoint.body else None)

    assert call(tenant.client.with_key(None), wrong, nowhere)[0] == 401
    for role in ROLES:
        assert call(clients[role], wrong, nowhere)[0] == (404 if role in endpoint.roles else 403)


def test_a_key_of_one_ledger_sees_that_ledger_alone(tenant: Tenant, bound_clients: dict[str, Client]) -> None:
    """The list has nothing of other tenants."""
    make_tenant(tenant.server)

    listed = bound_clients["auditor"].get("/v1/ledgers").json()["ledgers"]

    assert [ledger["name"] for ledger in listed] == [tenant.name]


def test_an_admin_of_one_ledger_manages_its_keys_alone(tenant: Tenant, bound_clients: dict[str, Client]) -> None:
    """No ledgers, no keys for others or for all, and no sight of others' keys."""
    admin, other = bound_clients["admin"], make_tenant(tenant.server)
    key = {"name": "x", "principal": "y", "roles": ["auditor"]}
    others_key = tenant.client.post("/v1/api-keys", {**key, "ledger": other.name}).json()["id"]

    refused = [
        admin.post("/v1/ledgers", {"name": "one-more"}),
        admin.post("/v1/api-keys", {**key, "ledger": None}),
        admin.post("/v1/api-keys", key),
        admin.post("/v1/api-keys", {**key, "ledger": other.name}),
        admin.post("/v1/api-keys", {**key, "ledger": "nobody-made-this"}),
    ]
    made = admin.post("/v1/api-keys", {**key, "ledger": tenant.name})
    listed = admin.get("/v1/api-keys").json()["api_keys"]

    assert [(answer.status, answer.code) for answer in refused] == [(403, "forbidden")] * 5
    assert made.status == 201
    assert {entry["ledger"] for entry in listed} == {tenant.name}
    assert admin.delete(f"/v1/api-keys/{others_key}").status == 404
    assert admin.delete(f"/v1/api-keys/{made.json()['id']}").status == 204


def test_the_table_has_every_endpoint_and_the_document_says_the_same(sqlite_server: ServedLedger) -> None:
    """No endpoint is added without a row here."""
    document = json.loads(sqlite_server.client.get("/v1/openapi.json").body)
    documented = {
        (method.upper(), path): tuple(operation["x-roles"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if path.startswith("/v1") and method != "parameters"
    }

    table = {
        (
            row.method,
            row.path.replace("{ledger}", "/v1/ledgers/{ledger}")
            .replace(ID, "{id}")
            .replace(REF, "{ref}")
            .replace(NAME, "{name}")
            .replace(TYPE, "{type}")
            .replace(f"/{LEVEL}/", "/{level}/")
            .replace(NUMBER, "{number}")
            .partition("?")[0],
        ): row
        for row in MATRIX
    }

    assert documented.keys() == table.keys()
    for key, roles in documented.items():
        assert set(roles) == set(table[key].roles if table[key].roles != ANY else ())
