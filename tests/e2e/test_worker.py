"""A served process and a worker process: read models follow, a dead worker shows, and the next one catches up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cli_support import Cli
from tests.e2e.conftest import Tenant, postgres_settings
from tests.support.metrics import scrape
from tests.support.postgres import PostgresCluster
from tests.support.server import Client, ServedLedger
from tests.support.worker import WorkerProcess, eventually

GRACE_SECONDS = 10.0
PROJECTIONS = {"current_state", "activity", "daily_counts"}


@pytest.fixture(scope="module")
def sqlite_server() -> Iterator[ServedLedger]:
    """For these tests alone: a worker follows all ledgers there are, and says what is wrong with any of them."""
    with ServedLedger() as server:
        yield server


@pytest.fixture(scope="module")
def postgres_server(postgres: PostgresCluster) -> Iterator[ServedLedger]:
    """The same with several processes on PostgreSQL."""
    with ServedLedger(postgres_settings(postgres)) as server:
        yield server


def visit(patient: str, crp: int) -> dict[str, Any]:
    """An event about somebody."""
    return {
        "stream": f"patient-{patient}",
        "type": "Visit",
        "subject": f"patient:{patient}",
        "data": {"crp": crp},
    }


def append(client: Client, path: str, *events: dict[str, Any]) -> int:
    """Append; gives the position of the last."""
    answer = client.post(f"{path}/events", {"events": events})
    assert answer.status == 201
    position: int = answer.json()["events"][-1]["position"]
    return position


def state_of(client: Client, path: str, patient: str, min_position: int) -> Any:
    """The document of a stream in the read model, not older than a position."""
    body = {"stream": f"patient-{patient}", "min_position": min_position}
    answer = client.post(f"{path}/read-models/current_state", body)
    assert answer.status == 200, answer.body
    return answer.json()["documents"][0]["document"]


def lag(tenant: Tenant, **labels: str) -> float | None:
    """Events that its followers (or some of them) are behind, all together."""
    return scrape(tenant.client, "audit_ledger_lag_events", ledger=tenant.ledger_id, **labels)


def projections(client: Client, path: str) -> list[dict[str, Any]]:
    """How far the projections are."""
    listed: list[dict[str, Any]] = client.get(f"{path}/projections").json()["projections"]
    return listed


def test_a_killed_worker_shows_and_the_next_one_catches_up(tenant: Tenant) -> None:
    """Lag in events and seconds, and nobody who has the lease: in the metrics and in the list of projections."""
    path, client = tenant.path, tenant.client
    with WorkerProcess(tenant.server) as worker:
        position = append(client, path, visit("A", 12), visit("B", 3))
        assert state_of(client, path, "A", position) == {"crp": 12}
        eventually(lambda: lag(tenant) == 0)
        worker.kill()

        position = append(client, path, visit("A", 40), visit("A", 41), visit("A", 42))
        assert client.post(f"{path}/state", {"stream": "patient-A"}).json()["state"] == {"crp": 42}
        assert {one["name"] for one in projections(client, path)} == PROJECTIONS
        assert {one["behind"] for one in projections(client, path)} == {3}
        eventually(lambda: not any(one["held"] for one in projections(client, path)))
        assert lag(tenant, kind="projection", name="activity") == 3
        assert (scrape(client, "audit_ledger_lag_seconds", ledger=tenant.ledger_id, name="activity") or 0) > 0
        assert scrape(client, "audit_ledger_leases", ledger=tenant.ledger_id, kind="projection") == 0

        worker.start()
        assert state_of(client, path, "A", position) == {"crp": 42}
        eventually(lambda: lag(tenant) == 0)
        assert scrape(client, "audit_ledger_lag_seconds", ledger=tenant.ledger_id) == 0


def test_a_worker_that_is_told_to_stop_does_so_within_seconds(tenant: Tenant) -> None:
    """In the middle of its work; it finishes its steps, gives its leases back, and the next one goes on at once."""
    path, client = tenant.path, tenant.client
    lines = [visit(str(number % 50), number) for number in range(2000)]
    client.post_lines(f"{path}/events", lines)
    with WorkerProcess(tenant.server) as worker:
        eventually(lambda: any(one["position"] >= 0 for one in projections(client, path)))
        status, seconds = worker.stop()
        assert (status, worker.told("worker-stopped")) == (0, 1)
        assert seconds < GRACE_SECONDS
        assert not any(one["held"] for one in projections(client, path))
        assert [line["event"] for line in worker.log_lines()] == ["working", "worker-stopped"]
        worker.start()
        assert state_of(client, path, "49", len(lines) - 1) == {"crp": 1999}


def test_an_erasure_reaches_the_read_models(tenant: Tenant) -> None:
    """I7: from the acknowledgement on nobody reads it there; and the worker goes on for the others."""
    path, client = tenant.path, tenant.client
    with WorkerProcess(tenant.server) as worker:
        position = append(client, path, visit("A", 12), visit("B", 3))
        assert state_of(client, path, "A", position) == {"crp": 12}
        ref = client.post(f"{path}/streams/lookup", {"stream": "patient-A"}).json()["stream_ref"]
        assert client.post(f"{path}/erasures", {"subject": "patient:A", "ground": "17(1)(b)"}).status == 201
        answer = client.post(f"{path}/read-models/current_state", {"stream_ref": ref}).json()["documents"][0]
        assert (answer["document"], answer["complete"]) == ({}, False)
        assert [redaction["reason"] for redaction in answer["redactions"]] == ["erased"]
        position = append(client, path, visit("B", 4))
        assert state_of(client, path, "B", position) == {"crp": 4}
        assert worker.stop()[0] == 0
        assert "worker-duty-failed" not in worker.log()


def test_only_the_projections_that_are_asked_for_are_run(embedded_tenant: Tenant) -> None:
    """AUDIT_LEDGER_PROJECTIONS; the metrics say which of the server's setting were never begun. SIGINT ends a worker,
    too."""
    tenant, path, client = embedded_tenant, embedded_tenant.path, embedded_tenant.client
    append(client, path, visit("A", 12))
    with WorkerProcess(tenant.server, settings={"AUDIT_LEDGER_PROJECTIONS": "daily_counts"}) as worker:
        eventually(lambda: lag(tenant, name="daily_counts") == 0)
        assert worker.stop(signal.SIGINT)[0] == 0
    assert [one["name"] for one in projections(client, path)] == ["daily_counts"]
    assert scrape(client, "audit_ledger_not_begun", ledger=tenant.ledger_id, name="activity") == 1
    assert scrape(client, "audit_ledger_not_begun", ledger=tenant.ledger_id, name="daily_counts") is None


def test_a_worker_says_what_is_wrong_with_its_settings(tmp_path: Path) -> None:
    """Exit status 1, and one line."""
    cli = Cli(tmp_path / "home", {"AUDIT_LEDGER_PROJECTIONS": "current_state,typo"})
    done = cli.run("worker")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: AUDIT_LEDGER_PROJECTIONS must be none, or some of current_state")


def test_a_worker_does_not_start_without_its_databases(tmp_path: Path) -> None:
    """It says what is missing."""
    done = Cli(tmp_path / "home").run("worker")
    assert done.returncode == 1
    assert "ledger-database: cannot open the ledger database" in done.stderr
