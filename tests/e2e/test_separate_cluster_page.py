"""With the settings of the page no wrapped key gets into the log of the vault's server; with others it does."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from keyvault import tables
from ledger.domain.events import OPERATOR
from ledger.domain.query import NameOrRef
from ledger.services.appending.append import append_events
from ledger.services.erase import ErasureOrder, erase_subject
from tests.e2e.cli_support import ROOT
from tests.support.keys import places_of
from tests.support.postgres import PostgresCluster
from tests.support.service import Service, event, new_ledger, postgres_place, set_up

PAGE = (ROOT / "docs" / "how-to" / "separate-cluster.md").read_text()
LOGGING, FOLLOWERS, REPLICATION = (block.split(";") for block in re.findall(r"^```sql\n(.*?)^```$", PAGE, re.M | re.S))
# What the page warns of, on top of its settings; that it says nothing of is PostgreSQL's default.
LOUD = ["ALTER SYSTEM RESET log_error_verbosity", "ALTER SYSTEM RESET log_parameter_max_length"]
STATEMENTS = ("ALTER SYSTEM SET log_statement = 'mod'", "ALTER SYSTEM SET log_min_duration_statement = 0")
MISTAKES = ("INSERT INTO subject_keys SELECT * FROM subject_keys", "UPDATE subject_keys SET epoch = NULL")


class Site:
    """A vault on a cluster of its own."""

    def __init__(self, cluster: PostgresCluster, service: Service) -> None:
        self.cluster = cluster
        self.service = service
        self.ledger_id: UUID = new_ledger(service).ledger_id
        self.people = 0

    def execute(self, statements: Sequence[str]) -> None:
        """As a superuser; when this returns, every session has the settings."""
        with self.cluster.connect() as connection:
            for statement in filter(str.strip, [*statements, "SELECT pg_reload_conf()"]):
                connection.execute(statement.encode())
        time.sleep(0.2)

    def query(self, statement: str) -> list[tuple[object, ...]]:
        """What a superuser sees."""
        database = make_url(self.service.place.vault_url).database or ""
        with self.cluster.connect(database) as connection:
            found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []

    def keys_in_the_log(self, *mistakes: str) -> bool:
        """Whether a wrapped key or its id is logged while somebody is recorded and erased, and a hand errs."""
        begin = self.cluster.log_file.stat().st_size
        name = f"person:{self.people}"
        self.people += 1
        new = event(f"case-{self.people}", subject=name, data={"n": 1})
        append_events(self.service.deps, self.ledger_id, [new], OPERATOR)
        with self.service.vault.engine.connect() as connection:
            rows = connection.execute(sa.select(tables.subject_keys.c.key_id, tables.subject_keys.c.wrapped_dek)).all()
        for mistake in (*mistakes, "SELECT nothing"):
            with pytest.raises(psycopg.Error):
                self.query(mistake)
        order = ErasureOrder(NameOrRef(name, None), None, None, None, block_unknown=False, requested_by=OPERATOR)
        erase_subject(self.service.deps, self.ledger_id, order)
        logged = self.cluster.log_file.read_bytes()[begin:]
        assert b"SELECT nothing" in logged, "this is not where the server logs"
        return places_of([value for row in rows for value in row], {"log": logged}) != []


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server for all these tests."""
    with PostgresCluster() as cluster:
        service = set_up(postgres_place(cluster, tmp_path_factory.mktemp("site") / "home"))
        yield Site(cluster, service)
        service.close()


@pytest.fixture
def site(prepared: Site) -> Site:
    """Set up as the page says."""
    prepared.execute(["ALTER SYSTEM RESET ALL", *LOGGING])
    return prepared


def test_the_settings_of_the_page_keep_wrapped_keys_out_of_the_log(site: Site) -> None:
    """And what it warns of lets them in, PostgreSQL's own defaults among it."""
    assert not site.keys_in_the_log(*MISTAKES)
    site.execute(LOUD)
    assert not site.keys_in_the_log()
    for mistake in MISTAKES:
        assert site.keys_in_the_log(mistake)
    for statement in STATEMENTS:
        site.execute([*LOGGING, statement])
        assert not site.keys_in_the_log(*MISTAKES)
        site.execute([*LOUD, statement])
        assert site.keys_in_the_log(), statement


def test_nobody_can_follow_and_who_tries_is_seen(site: Site) -> None:
    """The queries of the page give nothing as long as nobody has prepared anything."""
    slots, publications = FOLLOWERS[:2]
    assert (site.query(slots), site.query(publications)) == ([], [])
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="logical"):
        site.query("SELECT pg_create_logical_replication_slot('follower', 'pgoutput')")
    site.query("CREATE PUBLICATION everything FOR ALL TABLES")
    assert site.query(publications) == [("everything",)]
    site.query("DROP PUBLICATION everything")


def test_the_service_waits_for_a_standby_whatever_the_default_is(site: Site) -> None:
    """The page's settings are taken; and a server that would not wait by itself does for the service."""
    site.execute(REPLICATION)
    shown = site.query("SHOW synchronous_standby_names")
    site.execute(["ALTER SYSTEM RESET synchronous_standby_names", "ALTER SYSTEM SET synchronous_commit = 'off'"])
    assert shown == [("ANY 1 (standby_a, standby_b)",)]
    assert site.query("SHOW synchronous_commit") == [("off",)]
    with site.service.vault.engine.connect() as connection:
        assert connection.execute(sa.text("SHOW synchronous_commit")).scalar_one() == "on"
