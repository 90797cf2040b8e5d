"""The fixtures that every test may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import PostgresCluster
from tests.support.server import ServedLedger
from tests.support.service import Place, postgres_place, sqlite_place


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A running server for the whole session. Make a database of your own on it; do not stop it."""
    with PostgresCluster() as cluster:
        yield cluster


@pytest.fixture
def own_postgres() -> Iterator[PostgresCluster]:
    """A running server for this test alone, which may stop, kill and restart it."""
    with PostgresCluster() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Fresh databases of either engine, which several processes may open."""
    if request.param == "sqlite":
        return sqlite_place(tmp_path / "home")
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    return postgres_place(cluster, tmp_path / "home")


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> Iterator[ServedLedger]:
    """A served process of the test's own on either engine; it may be killed."""
    settings: dict[str, str] = {}
    if request.param == "postgresql":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        settings["AUDIT_LEDGER_DATABASE_URL"] = cluster.create_database()
        settings["AUDIT_LEDGER_KEYVAULT_URL"] = cluster.create_database()
    with ServedLedger(settings) as served:
        yield served
