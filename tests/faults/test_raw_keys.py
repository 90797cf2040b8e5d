"""No key ever stands anywhere unwrapped; and the wraps of an erased person's key that old pages, write-ahead logs and
backups still hold open to nobody once the epochs of their time are destroyed (I6)."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from api.backups import back_up
from api.config import Settings
from api.wiring import Service, open_service
from keyvault import tables
from keyvault.providers.file import FileProvider
from tests.support.contents import contents_of
from tests.support.keys import opened_by_any_kek, places_of, raw_keks, raw_keys
from tests.support.postgres import PostgresCluster
from tests.support.server import NDJSON, ServedLedger

ERASED = "patient:erased"
KEYS = tables.subject_keys


@dataclass(slots=True)
class Story:
    """A served ledger in which somebody was erased, and what an operator does to it.

    ``secrets``: every raw key that there ever was, by what it is. ``erased``: the row of the erased person's key, and
    ``erased_key`` what it opened to.
    """

    served: ServedLedger
    cluster: PostgresCluster | None
    keks: Path
    backups: Path
    path: str
    secrets: dict[str, bytes]
    erased: Any
    erased_key: bytes

    @contextlib.contextmanager
    def service(self) -> Iterator[Service]:
        """The same service in this process, for as short as that: whoever reads a file of SQLite takes the locks of his
        own process away."""
        service = open_service(Settings.from_environment(self.served.environment))
        try:
            yield service
        finally:
            service.close()

    def collect(self) -> dict[str, bytes]:
        """What lies wrapped in the vault now, and the KEKs that there are now."""
        with self.service() as service:
            return raw_keys(service.vault.engine, FileProvider(self.keks)) | raw_keks(self.keks)

    def contents(self) -> dict[str, bytes]:
        """All that was written anywhere but in the folder of KEKs."""
        return contents_of(self.served, self.cluster, self.backups)

    def back_up(self) -> None:
        """As ``audit-ledger backup`` does."""
        with self.service() as service:
            settings, now = service.settings, service.deps.clock()
            back_up(settings.database_url, self.backups, "ledger", now, settings.pg_dump)
            back_up(settings.keyvault_url, self.backups, "keyvault", now, settings.pg_dump)
            service.vault.epochs.note_backup(now, "made")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Up to the erasure and the rotation; the old epoch is still there."""
    folder = tmp_path_factory.mktemp("story")
    settings = {"AUDIT_LEDGER_KEK": f"file:{folder}/keks/kek"}
    with contextlib.ExitStack() as open_things:
        cluster = None
        if request.param == "postgresql":
            # Nothing is tidied away: this is about what lies around.
            cluster = open_things.enter_context(PostgresCluster({"autovacuum": "off", "wal_keep_size": "1GB"}))
            settings |= {
                "AUDIT_LEDGER_DATABASE_URL": cluster.create_database("ledger"),
                "AUDIT_LEDGER_KEYVAULT_URL": cluster.create_database("vault"),
                "AUDIT_LEDGER_PG_DUMP": str(cluster.bin_directory / "pg_dump"),
            }
        served = open_things.enter_context(ServedLedger(settings))
        yield tell(served, cluster, folder)


def tell(served: ServedLedger, cluster: PostgresCluster | None, folder: Path) -> Story:
    """Append, ask, back up, erase, rotate."""
    path, client = served.make_ledger("ward"), served.client
    people = (ERASED, "patient:other")
    events = [
        {"stream": f"{who.replace(':', '-')}", "type": "Visit", "subject": who, "data": {"n": n}, "nonpersonal": {}}
        for who in people
        for n in range(3)
    ]
    assert client.post(f"{path}/events", {"events": events}).status == 201
    backups = folder / "backups"
    backups.mkdir(mode=0o700)
    story = Story(served, cluster, folder / "keks" / "kek", backups, path, {}, None, b"")
    story.erased = row_of(story, ERASED)
    (story.erased_key,) = opened_by_any_kek(story.erased, story.keks)
    ask(story)
    story.secrets |= story.collect()
    story.back_up()

    assert client.post(f"{path}/erasures", {"subject": ERASED}).status == 201
    ask(story)
    with story.service() as service:
        service.vault.epochs.rotate()
    story.secrets |= story.collect()
    story.back_up()
    return story


def ask(story: Story) -> None:
    """Have keys unwrapped, in every process."""
    client, path = story.served.client, story.path
    for _ in range(3):
        assert client.post(f"{path}/query", {}).status == 200
        assert client.post(f"{path}/query", {}, {"Accept": NDJSON}).status == 200
        assert client.post(f"{path}/states", {"category": "patient"}).status == 200


def row_of(story: Story, person: str) -> Any:
    """The row of a person's key."""
    ledger_id = UUID(story.served.client.get(story.path).json()["id"])
    with story.service() as service, service.vault.engine.connect() as connection:
        ((key_id, _),) = service.vault.find_subjects(ledger_id, [person])[person].key_ids
        return connection.execute(sa.select(KEYS).where(KEYS.c.key_id == key_id)).one()


def test_wraps_that_lie_around_open_until_the_epoch_is_destroyed_and_never_again(story: Story) -> None:
    """The same bytes, from an old backup: whoever had a KEK of their time had the person's key."""
    pages = story.contents()
    lying_around = places_of([story.erased.wrapped_dek], pages)
    assert [place for place in lying_around if place.startswith(str(story.backups))]
    if story.cluster is not None:
        assert [place for place in lying_around if "pg_wal" in place]
    old = restored(story, sorted(story.backups.glob("keyvault-*"))[0])
    assert old.wrapped_dek == story.erased.wrapped_dek
    assert opened_by_any_kek(old, story.keks) == {story.erased_key}

    with story.service() as service:
        service.vault.epochs.destroy(1)
    assert places_of([old.wrapped_dek], story.contents()) != []
    assert set(raw_keks(story.keks)) == {"epoch-2.kek"}
    assert opened_by_any_kek(old, story.keks) == set()
    # Of the key itself nothing is left for anybody who has all of it.
    assert places_of([story.erased_key], story.contents()) == []
    found = story.served.client.post(f"{story.path}/query", {"category": "patient"}).json()["events"]
    assert [event["data"] for event in found] == [None] * 3 + [{"n": n} for n in range(3)]


def test_no_key_stands_anywhere_unwrapped(story: Story) -> None:
    """Not in databases, dead rows, write-ahead logs, dumps, backups, the journal or logs; a KEK only in its folder."""
    # Two people with a link key each, two secrets and two signing keys besides the ledger's own key, one KEK before and
    # one after.
    assert len(set(story.secrets.values())) == 2 * 2 + 3 + 1 + 2
    assert places_of(story.secrets.values(), story.contents()) == []
    files = {file.name: file.read_bytes() for file in story.keks.iterdir()}
    for name in ("epoch-1.kek", "epoch-2.kek"):
        assert places_of([story.secrets[name]], files) == ([name] if name in files else [])


def test_a_key_that_was_let_out_is_found(story: Story) -> None:
    """A search that cannot fail is none: a raw key in any of the places, in any form, is found there."""
    assert (
        story.served.client.post(
            f"{story.path}/events", {"stream": "patient-new", "type": "Visit", "subject": "patient:new", "data": {}}
        ).status
        == 201
    )
    before = set(story.secrets.values())
    (leaked,) = (key for name, key in story.collect().items() if name.startswith("key ") and key not in before)
    assert places_of([leaked], story.contents()) == []

    with story.service() as service, service.vault.engine.begin() as connection:
        row = {"ledger_id": UUID(int=1), "name_hash": leaked, "stream_ref": leaked[:16]}
        connection.execute(sa.insert(tables.streams).values(row))
    with story.served.log_file.open("a") as log:
        log.write(json.dumps({"event": "debug", "key": leaked.hex().upper()}) + "\n")
    (story.served.home / "leak").write_bytes(b"x" + leaked)
    (story.backups / "leak").write_bytes(b"x" + leaked.hex().encode())
    places = places_of([leaked], story.contents())
    assert {"log", str(story.served.home / "leak"), str(story.backups / "leak")} < set(places)
    where = ("dump of keyvault", "keyvault.db") if story.cluster is None else ("dump of vault", "data/base", "pg_wal")
    for place in where:
        assert [name for name in places if place in name], place
    (story.backups / "leak").unlink()


def restored(story: Story, backup: Path) -> Any:
    """The row of the erased person's key, from a backup of the vault."""
    if story.cluster is None:
        with contextlib.closing(sqlite3.connect(backup)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute("SELECT * FROM subject_keys WHERE key_id = ?", [story.erased.key_id])
            row = dict(found.fetchone())
            return SimpleNamespace(**{**row, "ledger_id": UUID(bytes=row["ledger_id"])})
    url = story.cluster.create_database()
    story.cluster.run("pg_restore", "--no-owner", f"--dbname={make_url(url).database}", str(backup))
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return connection.execute(sa.select(KEYS).where(KEYS.c.key_id == story.erased.key_id)).one()
