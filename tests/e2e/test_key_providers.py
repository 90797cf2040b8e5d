"""The whole service with its KEKs in a folder, in a PKCS#11 token and in AWS KMS, and with each gone for a while."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.cli_support import event, ndjson
from tests.e2e.conftest import make_tenant, postgres_settings
from tests.support.keepers import Keeper, make_keeper
from tests.support.kms import KmsServer
from tests.support.postgres import PostgresCluster
from tests.support.server import NDJSON, ServedLedger

MIXES = ("file on sqlite", "pkcs11 on postgresql", "awskms on sqlite")


@dataclass(frozen=True)
class Kept:
    """A served ledger and the keeper of its KEKs."""

    server: ServedLedger
    keeper: Keeper


@pytest.fixture(scope="module", params=MIXES)
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """One for each mix; on PostgreSQL several processes serve."""
    kind, _, engine = request.param.partition(" on ")
    with KmsServer() as kms:
        keeper = make_keeper(kind, tmp_path_factory.mktemp("keeper"), kms)
        settings = {"AUDIT_LEDGER_KEK": keeper.url, **keeper.environment}
        if engine == "postgresql":
            cluster: PostgresCluster = request.getfixturevalue("postgres")
            settings |= postgres_settings(cluster)
        with ServedLedger(settings) as server:
            yield Kept(server, keeper)


def test_the_story_of_a_person(kept: Kept) -> None:
    """Recorded, read, erased; the others stay."""
    tenant = make_tenant(kept.server)
    recorded = [tenant.client.post(f"{tenant.path}/events", event(f"patient-{name}")) for name in "AB"]
    assert [answer.status for answer in recorded] == [201, 201]
    shown = tenant.client.post(f"{tenant.path}/query", {}).json()["events"]
    assert [each["data"] for each in shown] == [{"crp": 7}, {"crp": 7}]

    erased = tenant.client.post(f"{tenant.path}/erasures", {"subject": "patient:A"})

    assert (erased.status, erased.json()["state"]) == (201, "erased")
    shown = tenant.client.post(f"{tenant.path}/query", {"category": "patient"}).json()["events"]
    assert [each["data"] for each in shown] == [None, {"crp": 7}]
    assert {redaction["reason"] for redaction in shown[0]["redactions"]} == {"erased"}


def test_a_keeper_that_goes_away_costs_nothing(kept: Kept, tmp_path: Path) -> None:
    """I9, I12: what needs it is 503 and never a redaction, nothing is recorded by halves, and when it is back all works
    by itself."""
    tenant = make_tenant(kept.server)
    # Recorded by another process: no process that serves has this person's key in memory.
    (tmp_path / "events.ndjson").write_bytes(ndjson([event("patient-A"), event("patient-B")]))
    kept.server.run_apart("import", str(tmp_path / "events.ndjson"), "--ledger", tenant.name)

    with kept.keeper.away():
        asked = [
            tenant.client.post(f"{tenant.path}/query", {}),
            tenant.client.post(f"{tenant.path}/query", {"stream": "patient-B"}),
            tenant.client.get(f"{tenant.path}/events"),
            tenant.client.post(f"{tenant.path}/state", {"stream": "patient-B"}),
            tenant.client.post(f"{tenant.path}/events", event("patient-new")),
        ]
        streamed = tenant.client.post(f"{tenant.path}/query", {}, {"Accept": NDJSON})
        ready = tenant.client.get("/readyz")
        alive = tenant.client.get("/livez")

    assert [(answer.status, answer.code) for answer in asked] == [(503, "vault-unavailable")] * len(asked)
    assert all(int(answer.headers["retry-after"]) > 0 for answer in asked)
    assert b"redactions" not in streamed.body
    assert b"vault-unavailable" in streamed.body
    assert (ready.status, alive.status) == (503, 200)
    assert "kek" in {error["dependency"] for error in ready.json()["errors"]}

    assert tenant.client.get("/readyz").status == 200
    shown = tenant.client.post(f"{tenant.path}/query", {}).json()["events"]
    assert [(each["data"], each["redactions"]) for each in shown] == [({"crp": 7}, [])] * 2
    assert tenant.client.post(f"{tenant.path}/events", event("patient-new")).status == 201
    assert tenant.client.post(f"{tenant.path}/erasures", {"subject": "patient:B"}).status == 201
    # Two that were imported, one new, one erasure: nothing of what was refused.
    assert tenant.size == 4
    assert not any(secret in kept.server.log() for secret in kept.keeper.secrets)


def test_nothing_starts_without_its_kek(kept: Kept) -> None:
    """A KEK is tried by wrapping and unwrapping before anything is served; the complaint names it and no secret."""
    with kept.keeper.away():
        refused = kept.server.run_apart("serve", check=False)
    assert refused.returncode == 1
    assert "kek: " in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not any(secret in refused.stderr for secret in kept.keeper.secrets)
