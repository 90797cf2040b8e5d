"""Served processes for the tests that talk HTTP: one on SQLite and one on PostgreSQL, shared by the session."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pytest

from api.config import DEFAULT_THREADS
from tests.support.postgres import PostgresCluster
from tests.support.server import Client, ServedLedger


@dataclass
class Tenant:
    """A ledger of a test's own, and clients for it by role."""

    server: ServedLedger
    name: str
    path: str

    @cached_property
    def client(self) -> Client:
        """With all roles."""
        return self.server.client

    def client_with(self, *roles: str, ledger: str | None = None) -> Client:
        """With some roles."""
        return Client(self.server.port, self.server.make_key(*roles, ledger=ledger))

    @property
    def server_threads(self) -> int:
        """How many requests each of its processes works on at the same time."""
        return DEFAULT_THREADS

    @cached_property
    def ledger_id(self) -> str:
        """Its id, by which the metrics name it."""
        ledger_id: str = self.client.get(self.path).json()["id"]
        return ledger_id

    @property
    def size(self) -> int:
        """How many events it has."""
        size: int = self.client.get(self.path).json()["size"]
        return size


def postgres_settings(cluster: PostgresCluster) -> dict[str, str]:
    """Two databases, each with an owner who migrates and a service's role that may only do what is granted."""
    settings = {}
    for name in ("DATABASE", "KEYVAULT"):
        owner, service = cluster.create_role(), cluster.create_role()
        database = cluster.create_database(owner=owner).rpartition("/")[2]
        settings[f"AUDIT_LEDGER_{name}_URL"] = cluster.url(database, service)
        settings[f"AUDIT_LEDGER_MIGRATE_{name}_URL"] = cluster.url(database, owner)
    return settings


@pytest.fixture(scope="session")
def sqlite_server() -> Iterator[ServedLedger]:
    """The embedded default. Do not stop it."""
    with ServedLedger() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(postgres: PostgresCluster) -> Iterator[ServedLedger]:
    """Several processes on PostgreSQL. Do not stop it."""
    with ServedLedger(postgres_settings(postgres)) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def served(request: pytest.FixtureRequest) -> ServedLedger:
    """The service on each database."""
    name = "sqlite_server" if request.param == "sqlite" else "postgres_server"
    server: ServedLedger = request.getfixturevalue(name)
    return server


def make_tenant(server: ServedLedger) -> Tenant:
    """A fresh ledger on a server."""
    name = f"test-{secrets.token_hex(6)}"
    return Tenant(server, name, server.make_ledger(name))


@pytest.fixture
def tenant(served: ServedLedger) -> Tenant:
    """A fresh ledger on each database."""
    return make_tenant(served)


@pytest.fixture
def embedded_tenant(sqlite_server: ServedLedger) -> Tenant:
    """A fresh ledger on SQLite, for what does not depend on the database."""
    return make_tenant(sqlite_server)
