"""The round of an operator, on both databases: erase, rotate, back up, destroy; the erasure is final, the old backup
opens nothing, and the service has gone on all the while."""

from __future__ import annotations

import os
import pty
import re
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from keyvault.database import make_engine, writing
from keyvault.errors import NotAuthenticError, ProviderError
from keyvault.providers.file import FileProvider
from tests.support.postgres import PostgresCluster
from tests.support.server import PROGRAM, ServedLedger
from tests.support.worker import WorkerProcess, eventually

DAY = 86_400_000_000


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServedLedger]:
    """A served ledger whose KEKs lie apart from its databases."""
    settings = {"AUDIT_LEDGER_KEK": f"file:{tmp_path}/keks/kek"}
    if request.param == "postgresql":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        settings |= {
            "AUDIT_LEDGER_DATABASE_URL": cluster.create_database(),
            "AUDIT_LEDGER_KEYVAULT_URL": cluster.create_database(),
            "AUDIT_LEDGER_PG_DUMP": str(cluster.bin_directory / "pg_dump"),
        }
    with ServedLedger(settings) as served:
        yield served


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    """A folder that nobody else can look into."""
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700)
    return folder


def keks_of(server: ServedLedger) -> Path:
    """The folder of KEKs."""
    return Path(server.environment.get("AUDIT_LEDGER_KEK", f"file:{server.home}/kek").removeprefix("file:"))


def fails(server: ServedLedger, *arguments: str) -> str:
    """Run a command that has to be refused; gives what it complains of."""
    done = server.run(*arguments, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def wraps_in(backup: Path, server: ServedLedger, postgres: PostgresCluster) -> list[bytes]:
    """The wrapped keys that a restored backup holds."""
    if backup.suffix == ".db":
        with sqlite3.connect(backup) as connection:
            return [row[0] for row in connection.execute("SELECT wrapped_dek FROM subject_keys")]
    name = make_url(postgres.create_database()).database
    assert name is not None
    postgres.run("pg_restore", "--no-owner", f"--dbname={name}", str(backup))
    with postgres.connect(name) as connection:
        return [row[0] for row in connection.execute("SELECT wrapped_dek FROM subject_keys")]


def test_the_round_of_an_operator(server: ServedLedger, safe: Path, postgres: PostgresCluster) -> None:
    """From an erasure to its signed end, with the commands of the how-to page."""
    path, client = server.make_ledger("ward"), server.client
    events = [{"stream": f"p-{n}", "type": "CRP", "subject": f"patient:{n}", "data": {"crp": n}} for n in range(3)]
    assert client.post(f"{path}/events", {"events": events}).status == 201
    old = Path(server.run("backup", str(safe)).stdout.strip())
    erasure = client.post(f"{path}/erasures", {"subject": "patient:0"}).json()
    assert (erasure["final_at"], erasure["final_pending"]["reason"]) == (None, "epochs-alive")

    rotated = server.run("epochs", "rotate")
    assert rotated.stdout == "epoch 2 is current now\nrewrapped 12\n"
    assert "rewrapping 12 keys for epoch 2" in rotated.stderr
    assert "audit-ledger backup DIR" in fails(server, "epochs", "destroy", "1", "--yes")
    backup = Path(server.run("backup", str(safe), "--ledger").stdout.splitlines()[0])
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    destroyed = server.run("epochs", "destroy", "1", "--yes").stdout
    assert "epoch 1 is destroyed" in destroyed
    assert "1 erasures became final" in destroyed
    assert [kek.name for kek in keks_of(server).iterdir()] == ["epoch-2.kek"]

    shown = client.get(f"{path}/erasures/{erasure['id']}").json()
    assert shown["final_at"] is not None
    assert shown["final_pending"] is None
    receipt = client.get(f"{path}/erasures/{erasure['id']}/receipt").json()
    assert receipt["payload"] == erasure["receipt"]["payload"]
    assert receipt["statements"][0]["payload"]["final_at"] == shown["final_at"]
    subject = client.post(f"{path}/subjects/lookup", {"subject": "patient:0"}).json()
    assert subject["final_at"] == shown["final_at"]
    found = client.post(f"{path}/query", {"type": ["CRP"]}).json()["events"]
    assert [event["data"] for event in found] == [None, {"crp": 1}, {"crp": 2}]
    assert client.post(f"{path}/events", {**events[1], "stream": "p-9"}).status == 201

    listed = server.run("epochs", "list").stdout.splitlines()
    assert re.match(r"epoch 1 \(file\) destroyed: 0 keys; .*gone ", listed[0])
    assert re.match(r"epoch 2 \(file\) current: 12 keys", listed[1])
    assert listed[-1] == "erasures that are not final: 0"
    assert_opens_nothing(old, server, postgres)


def assert_opens_nothing(backup: Path, server: ServedLedger, postgres: PostgresCluster) -> None:
    """With every KEK that still exists, under whatever epoch's number."""
    wraps = wraps_in(backup, server, postgres)
    assert len(wraps) == 3
    provider = FileProvider(keks_of(server))
    assert provider.epochs() == {2}
    for wrap in wraps:
        for epoch in (1, 2):
            with pytest.raises((NotAuthenticError, ProviderError)):
                provider.unwrap(epoch, wrap, b"")


def test_asked_on_a_terminal_a_no_changes_nothing(safe: Path) -> None:
    """And a rotation there draws a bar. (The same on either database: what is asked is not in it.)"""
    server = ServedLedger()
    server.run("init")
    drawn = on_a_terminal(server, ["epochs", "rotate"], "")
    assert "rewrapping" in drawn
    assert "100%" in drawn
    server.run("backup", str(safe))
    assert "Destroy the KEK of epoch 1 for good?" in on_a_terminal(server, ["epochs", "destroy", "1"], "n\n")
    assert (keks_of(server) / "epoch-1.kek").exists()
    assert "is destroyed" in on_a_terminal(server, ["epochs", "destroy", "1"], "y\n")
    assert not (keks_of(server) / "epoch-1.kek").exists()
    server.remove()


def on_a_terminal(server: ServedLedger, arguments: list[str], typed: str) -> str:
    """What a command shows to somebody who sits there."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [str(PROGRAM), *arguments], env=server.environment, stdin=child, stdout=child, stderr=child, close_fds=True
    )
    os.close(child)
    os.write(parent, typed.encode())
    shown = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:  # that is how a terminal says that everybody has left
            break
        if not piece:
            break
        shown += piece
    process.wait(60)
    os.close(parent)
    return shown.decode()


# The worker


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
def test_a_worker_rotates_when_it_is_time(server: ServedLedger) -> None:
    """Once, and says that there is a new KEK to be kept. (Its duties are tested on either database elsewhere.)"""
    tamper(server, f"UPDATE epochs SET current_at = current_at - {2 * DAY}")
    with WorkerProcess(server, settings={"AUDIT_LEDGER_ROTATE_DAYS": "1"}) as worker:
        eventually((keks_of(server) / "epoch-2.kek").exists)
        eventually(lambda: worker.told("epoch-rotated") == 1)
        assert worker.stop()[0] == 0
    assert "epoch 2 (file) current" in server.run("epochs", "list").stdout


def tamper(server: ServedLedger, statement: str) -> None:
    """What a hand in the vault's database does."""
    environment = server.environment
    engine = make_engine(environment.get("AUDIT_LEDGER_KEYVAULT_URL", f"sqlite:///{server.home}/keyvault.db"))
    with writing(engine) as connection:
        connection.execute(text(statement))
    engine.dispose()
