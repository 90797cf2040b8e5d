"""What holds for every request."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Tenant
from tests.support.server import ServedLedger

_DEPENDENCIES = ("ledger-database", "key-vault", "kek", "journal", "migrations", "restore-guard")


def test_only_health_and_documents_are_public(sqlite_server: ServedLedger) -> None:
    """Everything else is 401 without a key, with a challenge."""
    stranger = sqlite_server.client.with_key(None)

    for path in ("/livez", "/readyz", "/docs", "/v1/openapi.json"):
        assert stranger.get(path).status == 200
    answer = stranger.get("/v1/ledgers")
    assert (answer.status, answer.code, answer.headers["www-authenticate"]) == (401, "unauthenticated", "Bearer")


def test_readiness_names_each_dependency(served: ServedLedger) -> None:
    """One by one."""
    assert served.client.get("/readyz").json() == {
        "status": "ready",
        "dependencies": dict.fromkeys(_DEPENDENCIES, "ok"),
    }


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer alk_00", "bearer " + "x" * 300, "Bearer ü"]
)
def test_a_wrong_key_is_refused_like_no_key(sqlite_server: ServedLedger, header: str) -> None:
    """Whatever is wrong with it, the answer is the same."""
    stranger = sqlite_server.client.with_key(None)

    answer = stranger.get("/v1/ledgers", {"Authorization": header.encode().decode("latin-1")})

    assert (answer.status, answer.code) == (401, "unauthenticated")


def test_a_secret_that_differs_in_one_letter_is_refused(sqlite_server: ServedLedger) -> None:
    """The key's id is right, its secret is not."""
    key = sqlite_server.client.key or ""
    other = key[:-2] + ("A" if key[-2] != "A" else "B") + key[-1]

    assert sqlite_server.client.with_key(other).get("/v1/ledgers").status == 401
    assert sqlite_server.client.get("/v1/ledgers", {"Authorization": f"bearer {key}"}).status == 200


def test_a_revoked_key_is_refused_from_its_next_request_on(served: ServedLedger) -> None:
    """Also in the other processes."""
    issued = served.client.post(
        "/v1/api-keys", {"name": "short", "principal": "somebody", "roles": ["auditor"], "ledger": None}
    ).json()
    client = served.client.with_key(issued["secret"])
    assert client.get("/v1/ledgers").status == 200

    assert served.client.delete(f"/v1/api-keys/{issued['id']}").status == 204

    assert [client.get("/v1/ledgers").status for _ in range(8)] == [401] * 8
    listed = {key["id"]: key for key in served.client.get("/v1/api-keys").json()["api_keys"]}
    assert listed[issued["id"]]["revoked_at"] is not None
    assert listed[issued["id"]]["last_used_at"] is not None
    assert "secret" not in listed[issued["id"]]
    assert served.client.delete("/v1/api-keys/00000000-0000-4000-8000-000000000000").code == "not-found"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not-found"),
        ("GET", "/v1/patient:A", 404, "not-found"),
        ("GET", "/v1/ledgers/", 404, "not-found"),
        ("GET", "/v1//ledgers", 404, "not-found"),
        ("GET", "/v1/ledgers/%00", 404, "not-found"),
        ("GET", "/v1/ledgers/nobody", 404, "not-found"),
        ("GET", "/docs/../api/config.py", 404, "not-found"),
        ("PUT", "/v1/ledgers", 405, "method-not-allowed"),
        ("OPTIONS", "/v1/ledgers", 405, "method-not-allowed"),
        ("BREW", "/v1/ledgers", 405, "method-not-allowed"),
    ],
)
def test_every_refusal_is_a_problem_document(
    sqlite_server: ServedLedger, method: str, path: str, status: int, code: str
) -> None:
    """RFC 9457, and nothing of the request in it."""
    answer = sqlite_server.client.send(method, path)

    problem = answer.json()
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert b"patient" not in answer.body
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD, POST"


def test_answers_are_not_stored_and_have_the_requests_id(embedded_tenant: Tenant) -> None:
    """``no-store``; an id that is none is replaced; every log line has it."""
    client, path = embedded_tenant.client, embedded_tenant.path

    given = client.get(path, {"X-Request-Id": "support-7.x_1"})
    minted = [client.get(path).headers["x-request-id"] for _ in range(2)]
    replaced = client.get(path, {"X-Request-Id": "patient:A {}"}).headers["x-request-id"]

    assert given.headers["cache-control"] == "no-store"
    assert given.headers["x-request-id"] == "support-7.x_1"
    assert len({*minted, replaced}) == 3
    logged = {line.get("request_id") for line in embedded_tenant.server.log_lines()}
    assert {"support-7.x_1", *minted, replaced} <= logged
    assert "patient:A {}" not in embedded_tenant.server.log()


def test_the_log_has_no_names_values_queries_or_secrets(embedded_tenant: Tenant) -> None:
    """I5: not even where a client puts them into addresses, headers and fields."""
    canary = "Canary-Log-9917"
    client, path = embedded_tenant.client, embedded_tenant.path
    client.post(
        f"{path}/events", {"stream": f"patient-{canary}", "type": "X", "subject": canary, "data": {"n": canary}}
    )
    client.post(f"{path}/events", {"stream": canary, canary: canary})
    client.post(f"{path}/query", {"subject": canary, "cursor": canary})
    client.get(f"{path}/events?stream={canary}&after={canary}")
    client.get(f"{path}/subjects/{canary}")
    client.get(f"/{canary}?{canary}", {"X-Request-Id": f"{canary} x", "User-Agent": canary, "Referer": canary})
    client.send("POST", f"{path}/events", canary.encode(), {"Content-Type": canary, "Idempotency-Key": canary + "é"})

    log = embedded_tenant.server.log()

    assert canary not in log
    assert (client.key or "?") not in log
    assert any(
        line.get("route") == "/v1/ledgers/<ledger>/subjects/<ref>" for line in embedded_tenant.server.log_lines()
    )


def test_a_ledger_is_made_once_and_described(served: ServedLedger) -> None:
    """201 with its verifier key; the name is taken then."""
    made = served.client.post("/v1/ledgers", {"name": f"hospital-{served.port}"})
    again = served.client.post("/v1/ledgers", {"name": f"hospital-{served.port}"})

    ledger = made.json()
    assert (made.status, list(ledger)) == (201, ["name", "id", "size", "last_recorded_at", "verifier_key"])
    assert (ledger["size"], ledger["last_recorded_at"]) == (0, None)
    assert ledger["verifier_key"].startswith(f"localhost/{ledger['name']}+")
    assert (again.status, again.code) == (409, "already-exists")
    assert ledger in served.client.get("/v1/ledgers").json()["ledgers"]


def test_the_page_of_the_documentation_asks_nobody_else(sqlite_server: ServedLedger) -> None:
    """``/docs`` is bundled: every address in it is of this server, and its policy allows no other."""
    client = sqlite_server.client.with_key(None)
    page = client.get("/docs")

    assert b"http" not in page.body.replace(b"<!doctype html>", b"")
    assert "script-src 'self';" in page.headers["content-security-policy"]
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png"):
        assert asset.encode() in page.body
        assert client.get(f"/docs/{asset}").status == 200
    assert b"/v1/openapi.json" in client.get("/docs/start.js").body


def test_the_served_document_is_the_checked_in_one(sqlite_server: ServedLedger) -> None:
    """docs/openapi.json can be relied on; ``scripts/openapi`` writes it anew."""
    served = json.loads(sqlite_server.client.get("/v1/openapi.json").body)

    assert json.loads(Path("docs/openapi.json").read_text(encoding="utf-8")) == served


def test_the_verifier_key_is_a_c2sp_one(embedded_tenant: Tenant) -> None:
    """signed-note: name, the first 4 bytes of a hash over name and key, algorithm 1 and 32 bytes."""
    name, key_id, key = embedded_tenant.client.get(embedded_tenant.path).json()["verifier_key"].split("+", 2)

    decoded = base64.b64decode(key, validate=True)
    assert (decoded[0], len(decoded)) == (1, 33)
    assert key_id == hashlib.sha256(name.encode() + b"\n" + decoded).digest()[:4].hex()
