"""The databases that the contract suites of the ledger share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy.engine import Engine, make_url

from ledger.storage.database import open_engine
from ledger.storage.migrate import migrate
from tests.support.ledgers import Backend, Ledger, open_postgresql, open_sqlite
from tests.support.postgres import PostgresCluster


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Both databases of a service, on each engine in turn."""
    home = tmp_path_factory.mktemp("backend")
    if request.param == "sqlite":
        opened = open_sqlite(home)
    else:
        opened = open_postgresql(request.getfixturevalue("postgres"), home)
    yield opened
    opened.close()


@pytest.fixture
def ledger(backend: Backend) -> Ledger:
    """An empty ledger, on each engine in turn."""
    return backend.new_ledger()


@pytest.fixture(scope="module")
def service(postgres: PostgresCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Backend, Engine]]:
    """A backend, and an engine that has the service role's rights on its ledger database."""
    role = postgres.create_role()
    opened = open_postgresql(postgres, tmp_path_factory.mktemp("service"))
    migrate(opened.engine, role.name)
    database = make_url(opened.urls[0]).database
    assert database is not None
    engine = open_engine(postgres.url(database, role))
    yield opened, engine
    engine.dispose()
    opened.close()
