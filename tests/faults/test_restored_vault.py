"""An old backup of the key vault is put back beside the new ledger: by real ``pg_basebackup``, by ``pg_dump``, and from
copied files. Nothing that should be gone is read by anybody (I7, I8)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from keyvault.envelope import key_id_of
from tests.support.keys import keys_opened_in, raw_keks
from tests.support.postgres import PostgresCluster
from tests.support.restoring import BaseBackups, Databases, Dumps, Installation, RestorableCluster, SqliteFiles
from tests.support.server import NDJSON, Answer, Client

ERASED = ("ann", "bob")
LIVING = ("eve", "joe")


@pytest.fixture
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Databases]:
    """One way of backing up and putting back."""
    with contextlib.ExitStack() as running:
        if request.param == "pg_basebackup":
            vault, ledger = (running.enter_context(RestorableCluster()) for _ in range(2))
            yield BaseBackups({"vault": vault, "ledger": ledger})
        elif request.param == "pg_dump":
            cluster: PostgresCluster = request.getfixturevalue("postgres")
            yield Dumps(cluster)
        else:
            yield SqliteFiles(tmp_path)


@dataclass(slots=True)
class Story:
    """A served ledger. ``keys``: the key id of each person."""

    installation: Installation
    path: str = ""
    keys: dict[str, bytes] = field(default_factory=dict)

    @property
    def client(self) -> Client:
        """With all roles."""
        return self.installation.served.client

    def visit(self, *people: str) -> None:
        """Something is recorded of each of them."""
        events = [
            {"stream": f"patient-{who}", "type": "Visit", "subject": who, "data": {"of": marker_of(who)}}
            for who in people
        ]
        assert self.client.post(f"{self.path}/events", {"events": events}).status == 201
        with self.installation.service() as service:
            ledger_id = UUID(self.client.get(self.path).json()["id"])
            for who, subject in service.vault.find_subjects(ledger_id, people).items():
                ((self.keys[who], _),) = subject.key_ids

    def erase(self, who: str) -> None:
        """Gone for good."""
        assert self.client.post(f"{self.path}/erasures", {"subject": who}).status == 201

    def opened(self) -> set[str]:
        """Whose keys open of all that stands in the vault, with every KEK that exists."""
        with self.installation.service() as service:
            opened = keys_opened_in(service.vault.engine, self.installation.keks)
        ids = {key_id_of(key) for key in opened}
        return {who for who, key_id in self.keys.items() if key_id in ids}

    def answers(self) -> dict[str, Answer]:
        """What the service says when it is asked for everything, in every way that shows payloads."""
        before_all = {"position": 2}
        asked: dict[str, tuple[str, Any, dict[str, str]]] = {
            "page": ("query", {}, {}),
            "page of the past": ("query", {"as_of": before_all}, {}),
            "export": ("query", {}, {"Accept": NDJSON}),
            "states": ("states", {"category": "patient"}, {}),
            "states of the past": ("states", {"category": "patient", "as_of": before_all}, {}),
        }
        for who in (*ERASED, *LIVING):
            stream = {"stream": f"patient-{who}"}
            asked[f"page of {who}"] = ("query", {"subject": who}, {})
            asked[f"state of {who}"] = ("state", stream, {})
            asked[f"history of {who}"] = ("history", {**stream, "path": "/of"}, {})
        found = {
            name: self.client.post(f"{self.path}/{rest}", body, more) for name, (rest, body, more) in asked.items()
        }
        found["feed"] = self.client.get(f"{self.path}/events?after=-1")
        return found

    def seen(self) -> set[str]:
        """Whose data is in any of these answers. All of them are given."""
        answers = self.answers()
        assert {name: answer.status for name, answer in answers.items()} == dict.fromkeys(answers, 200)
        return {who for who in self.keys if any(marker_of(who).encode() in answer.body for answer in answers.values())}

    def redactions(self) -> dict[str, int]:
        """Reason → how often it is given on one page of everything."""
        events = self.client.post(f"{self.path}/query", {"type": ["Visit"]}).json()["events"]
        reasons = [redaction["reason"] for event in events for redaction in event["redactions"]]
        return {reason: reasons.count(reason) for reason in reasons}


def marker_of(who: str) -> str:
    """What is recorded of a person, and of nobody else."""
    return f"what-is-recorded-of-{who}"


@pytest.fixture
def story(databases: Databases, tmp_path: Path) -> Iterator[Story]:
    """Two backups: ``first`` before anybody was erased; ``second`` after ann was, and after a rotation. Since then bob
    was erased, too. Of joe the first one knows nothing."""
    with Installation(tmp_path, databases) as installation:
        installation.served.start()
        story = Story(installation, installation.served.make_ledger("ward"))
        story.visit("ann", "bob", "eve")
        installation.keep("first")
        story.visit("joe")
        story.erase("ann")
        installation.served.run("epochs", "rotate")
        installation.served.run("backup", str(installation.backups))
        installation.keep("second")
        story.erase("bob")
        story.visit("eve")
        installation.keep("new")
        yield story


@pytest.mark.parametrize("databases", ["files", "pg_basebackup", "pg_dump"], indirect=True)
def test_an_old_vault_beside_the_new_ledger(story: Story) -> None:
    """Before the old epoch is destroyed the old vault holds living keys of erased people, and nobody is shown what they
    seal. Afterwards it holds nothing that opens."""
    installation = story.installation
    everybody = {*ERASED, *LIVING}
    assert story.opened() == set(LIVING)
    assert story.seen() == set(LIVING)
    installation.served.stop()

    installation.put_back("first", "vault")
    assert story.opened() == everybody - {"joe"}, "else this shows nothing: an old backup does bring keys back"

    installation.put_back("new", "vault")
    installation.served.run("epochs", "destroy", "1", "--yes")
    assert set(raw_keks(installation.keks)) == {"epoch-2.kek"}
    installation.put_back("first", "vault")
    assert story.opened() == set()
    with installation.service() as service:
        assert keys_opened_in(service.vault.engine, installation.keks) == set(), "not even the ledger's own secrets"

    installation.put_back("second", "vault")
    assert story.opened() == everybody - {"ann"}
