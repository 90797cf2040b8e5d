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
from tests.support.server import NDJSON, Answer, Client, ServedLedger
from tests.support.worker import eventually

ERASED = ("ann", "bob")
LIVING = ("eve", "joe")


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
        """Whose data is in any of these answers. All of them are given, but for streams that an old vault has lost."""
        answers = self.answers()
        assert {answer.status for answer in answers.values()} <= {200, 404}
        return {who for who in self.keys if any(marker_of(who).encode() in answer.body for answer in answers.values())}

    def restart_with(self, everything: str, vault: str) -> ServedLedger:
        """All as it was then, but an older vault. The service is not started."""
        self.installation.put_back(everything, "ledger", "keks", "journal")
        self.installation.put_back(vault, "vault")
        return self.installation.served

    def reconciled(self) -> list[dict[str, Any]]:
        """What the ledger says of restored backups."""
        answer = self.client.post(f"{self.path}/query", {"type": ["VaultReconciled"]})
        return [event["nonpersonal"] for event in answer.json()["events"]]

    def redactions(self) -> dict[str, int]:
        """Reason → how often it is given on one page of everything."""
        events = self.client.post(f"{self.path}/query", {"type": ["Visit"]}).json()["events"]
        reasons = [redaction["reason"] for event in events for redaction in event["redactions"]]
        return {reason: reasons.count(reason) for reason in reasons}


def marker_of(who: str) -> str:
    """What is recorded of a person, and of nobody else."""
    return f"what-is-recorded-of-{who}"


@pytest.fixture(scope="module", params=["files", "pg_basebackup", "pg_dump"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Two backups: ``first`` before anybody was erased; ``second`` after ann was, and after a rotation. Since then bob
    was erased, too. Of joe the first one knows nothing. Then the service was stopped (``new``), and the old epoch
    destroyed (``newest``)."""
    folder = tmp_path_factory.mktemp("story")
    with contextlib.ExitStack() as running:
        installation = running.enter_context(Installation(folder, databases_of(request, folder, running)))
        installation.served.start()
        story = Story(installation, installation.served.make_ledger("ward"))
        story.visit("ann", "bob", "eve")
        installation.keep("first", "vault")
        story.visit("joe")
        story.erase("ann")
        installation.served.run("epochs", "rotate")
        installation.served.run("backup", str(installation.backups))
        installation.keep("second", "vault")
        story.erase("bob")
        story.visit("eve")
        assert {answer.status for answer in story.answers().values()} == {200}
        assert story.seen() == set(LIVING)
        installation.served.stop()
        installation.keep("new", "ledger", "keks", "journal")
        installation.served.run("epochs", "destroy", "1", "--yes")
        installation.keep("newest", "ledger", "keks", "journal")
        yield story


def databases_of(request: pytest.FixtureRequest, folder: Path, running: contextlib.ExitStack) -> Databases:
    """One way of backing up and putting back."""
    if request.param == "pg_basebackup":
        vault, ledger = (running.enter_context(RestorableCluster()) for _ in range(2))
        return BaseBackups({"vault": vault, "ledger": ledger})
    if request.param == "pg_dump":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        return Dumps(cluster)
    return SqliteFiles(folder)


@pytest.fixture
def story(told: Story) -> Iterator[Story]:
    """Told to its end, and nothing runs."""
    yield told
    told.installation.served.kill()


def test_a_vault_from_before_the_rotation_is_purged_before_anything_is_served(story: Story) -> None:
    """It brings living keys of erased people back, and has lost the key of somebody who lives. The keys go by
    themselves; what is lost a person has to see."""
    served = story.restart_with("new", "first")
    assert story.opened() == {"ann", "bob", "eve"}, "else this shows nothing: an old backup does bring keys back"
    served.start(ready=False)
    ready = story.client.get("/readyz")
    assert (ready.status, ready.json()["dependencies"]["restore-guard"] == "ok") == (503, False)
    assert {(answer.status, answer.code) for answer in story.answers().values()} == {(503, "not-ready")}
    assert story.opened() == {"eve"}

    asked = served.run("vault", "reconcile", check=False)
    assert asked.returncode == 1
    assert f"lost key: {story.keys['joe'].hex()}" in asked.stdout
    served.run("vault", "reconcile", "--yes")
    eventually(lambda: 503 not in {answer.status for answer in story.answers().values()})
    assert story.seen() == {"eve"}
    assert story.redactions() == {"erased": 2, "unreadable": 1}
    assert story.reconciled()


def test_a_vault_from_before_the_destruction_opens_nothing(story: Story) -> None:
    """Not a key, not a name, not the ledger's own secrets: with every KEK that exists, nothing."""
    served = story.restart_with("newest", "first")
    assert set(raw_keks(story.installation.keks)) == {"epoch-2.kek"}
    assert story.opened() == set()
    with story.installation.service() as service:
        assert keys_opened_in(service.vault.engine, story.installation.keks) == set()
    served.start(ready=False)
    assert story.client.get("/readyz").status == 503
    assert {answer.status for answer in story.answers().values()} == {503}
    assert served.run("vault", "reconcile", "--yes", check=False).returncode == 1


def test_a_vault_from_before_an_erasure_is_mended_by_itself(story: Story) -> None:
    """Nothing is lost with it, so the service erases again, says so, and serves."""
    served = story.restart_with("newest", "second")
    assert story.opened() == {"bob", "eve", "joe"}, "else this shows nothing"
    served.start()
    assert story.opened() == set(LIVING)
    assert story.seen() == set(LIVING)
    assert story.redactions() == {"erased": 2}
    assert "restore-noticed" in {line["event"] for line in served.log_lines()}
    (event,) = story.reconciled()
    assert event["erased_again"] == 1
    served.run("vault", "reconcile")
