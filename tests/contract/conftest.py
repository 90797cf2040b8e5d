"""The databases that the contract suites of the ledger share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.ledgers import Backend, Ledger, open_postgresql, open_sqlite


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
