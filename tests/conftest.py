"""The fixtures that every test may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres import PostgresCluster


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
