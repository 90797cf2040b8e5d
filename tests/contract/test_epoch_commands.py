"""The commands about epochs and backups, in this process, on SQLite and on PostgreSQL: what they refuse and what they
say. The round that an operator goes is told in ``tests/e2e``."""

from __future__ import annotations

import io
import os
import re
import shlex
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from api import backups, cli
from api.config import Settings
from api.epoch_duties import EpochDuties
from api.guard import Guard
from api.metrics import Counters, metrics_text
from api.wiring import Service, migrate_databases, open_service, prepare_home
from keyvault import database
from keyvault.errors import ProviderError
from keyvault.finality import DAY
from ledger.domain.events import OPERATOR
from ledger.domain.query import EventQuery, NameOrRef
from ledger.domain.times import format_time
from ledger.services.appending.append import append_events
from ledger.services.erase import ErasureOrder, erase_subject, get_erasure
from ledger.services.read import query_events
from tests.support.postgres import PostgresCluster
from tests.support.service import event, new_ledger

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


@dataclass
class Desk:
    """An operator's settings, and what the commands print."""

    environment: dict[str, str]
    capsys: pytest.CaptureFixture[str]

    @property
    def settings(self) -> Settings:
        """As the commands read them."""
        return Settings.from_environment(self.environment)

    @property
    def keks(self) -> Path:
        """The folder of KEKs."""
        return Path(self.environment["AUDIT_LEDGER_KEK"].removeprefix("file:"))

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command as ``main`` does; exit status, what it prints, what it complains of."""
        with pytest.MonkeyPatch.context() as patch:
            for name in list(os.environ):
                if name.startswith("AUDIT_LEDGER_"):
                    patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["audit-ledger", *arguments])
            patch.setattr(sys, "stdin", io.StringIO())
            # Logging is the process's own, and this process is the tests'.
            patch.setattr("api.commands.session.configure_logs", lambda _: None)
            status: Any = 0
            try:
                cli.main()
            except SystemExit as ended:
                status = ended.code or 0
        printed, complained = self.capsys.readouterr()
        return status, printed, complained

    def must(self, *arguments: str) -> str:
        """Run a command that has to succeed; gives what it prints."""
        status, printed, complained = self.run(*arguments)
        assert status == 0, complained
        return printed

    def fails(self, *arguments: str, status: int = 1) -> str:
        """Run a command that has to be refused; gives what it complains of."""
        ended, _, complained = self.run(*arguments)
        assert ended == status, complained
        return complained

    @contextmanager
    def service(self, **changes: str) -> Iterator[Service]:
        """The service, as another process has it."""
        opened = open_service(Settings.from_environment({**self.environment, **changes}))
        yield opened
        opened.close()

    def tamper(self, statement: str, **values: Any) -> None:
        """What a hand in the vault's database does."""
        with self.service() as service, database.writing(service.vault.engine) as connection:
            connection.execute(text(statement), values)


@pytest.fixture(params=["sqlite", "postgresql"])
def desk(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A vault with an epoch, and KEKs that lie apart."""
    (tmp_path / "keks").mkdir(mode=0o700)
    environment = {"AUDIT_LEDGER_HOME": str(tmp_path / "home"), "AUDIT_LEDGER_KEK": f"file:{tmp_path}/keks/kek"}
    if request.param == "postgresql":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        environment |= {
            "AUDIT_LEDGER_DATABASE_URL": cluster.create_database(),
            "AUDIT_LEDGER_KEYVAULT_URL": cluster.create_database(),
            "AUDIT_LEDGER_PG_DUMP": str(cluster.bin_directory / "pg_dump"),
        }
    found = Desk(environment, capsys)
    prepare_home(found.settings)
    migrate_databases(found.settings)
    with found.service() as service:
        service.vault.initialise()
    return found


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    """A folder that nobody else can look into."""
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700)
    return folder


# Epochs


def test_nobody_is_asked_where_nobody_can_answer(desk: Desk, safe: Path) -> None:
    """A KEK never goes because standard input happened to be empty."""
    desk.must("epochs", "rotate")
    desk.must("backup", str(safe))
    assert "add --yes" in desk.fails("epochs", "destroy", "1", status=2)
    assert (desk.keks / "epoch-1.kek").exists()


def test_a_refusal_is_one_line_that_says_what_to_do(desk: Desk) -> None:
    """Exit status 1."""
    assert "epochs rotate" in desk.fails("epochs", "destroy", "1", "--yes")
    assert "epochs list" in desk.fails("epochs", "destroy", "7", "--yes")
    desk.must("epochs", "rotate")
    complaint = desk.fails("epochs", "destroy", "1", "--yes")
    assert "audit-ledger backup DIR" in complaint
    assert len(complaint.splitlines()) == 1


def test_an_attested_backup_is_as_good(desk: Desk) -> None:
    """One that was made otherwise, with the time at which it began; never in the future."""
    desk.must("epochs", "rotate")
    future = ("--backup-taken", "2999-01-01T00:00:00Z")
    assert "future" in desk.fails("epochs", "destroy", "1", "--yes", *future, status=2)
    assert "no backup" in desk.fails("epochs", "destroy", "1", "--yes", "--backup-taken", "2020-01-01T00:00:00Z")
    with desk.service() as service:
        now = format_time(service.deps.clock())
    assert "epoch 1 is destroyed" in desk.must("epochs", "destroy", "1", "--yes", "--backup-taken", now)


def test_damaged_keys_are_named_and_given_up_only_loudly(desk: Desk, safe: Path) -> None:
    """Exit status 1, and the others are rewrapped; what is given up reads as unreadable (I9)."""
    with desk.service() as service:
        ledger_id = new_ledger(service).ledger_id  # type: ignore[arg-type]  # it only takes its dependencies
        append_events(service.deps, ledger_id, [event("p-1", subject="patient:1", data={})], OPERATOR)
    desk.tamper("UPDATE subject_keys SET wrapped_dek = :junk", junk=b"\x01junk")
    complaint = desk.fails("epochs", "rotate")
    assert re.search(r"epoch 1: the key [0-9a-f]{64} does not unwrap", complaint)
    assert "1 keys do not unwrap" in complaint
    assert "1 damaged" in desk.must("epochs", "list")
    desk.must("backup", str(safe))
    assert "--abandon-damaged" in desk.fails("epochs", "destroy", "1", "--yes")
    desk.must("epochs", "destroy", "1", "--yes", "--abandon-damaged")
    with desk.service() as service:
        (opened,) = query_events(service.deps, ledger_id, EventQuery(), cursor=None, limit=9).events
        assert {redaction.reason for redaction in opened.redactions} == {"unreadable"}


@pytest.mark.parametrize("page", ["rotate-keys.md", "back-up.md"])
def test_the_commands_of_the_how_to_pages_work_as_they_stand(desk: Desk, safe: Path, page: str) -> None:
    """In their order; what a person answers on a terminal is given as ``--yes``."""
    (block,) = re.findall(r"^```sh\n(.*?)^```$", (HOW_TO / page).read_text(), re.M | re.S)
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "audit-ledger"
        arguments = [str(safe) if word.startswith("/srv/backup/") else word for word in arguments]
        desk.must(*arguments, *(["--yes"] if "destroy" in arguments else []))


# Backups


def test_a_backup_goes_only_where_nobody_else_looks(desk: Desk, safe: Path) -> None:
    """Nor to the KEKs; and nothing is left behind or noted."""
    assert "cannot use" in desk.fails("backup", str(safe / "missing"))
    (safe / "file").touch()
    assert "not a folder" in desk.fails("backup", str(safe / "file"))
    (safe / "file").unlink()
    for mode in (0o750, 0o705):
        safe.chmod(mode)
        assert "others can look into" in desk.fails("backup", str(safe))
    for folder in (desk.keks, desk.keks.parent):
        assert "lie in one another" in desk.fails("backup", str(folder))
    assert list(safe.iterdir()) == []
    assert "none is known of" in desk.must("epochs", "list")


def test_a_backup_is_whole_and_private_and_noted(desk: Desk, safe: Path) -> None:
    """With ``--ledger`` of both databases; each counts from when it began."""
    files = [Path(line) for line in desk.must("backup", str(safe), "--ledger").splitlines()]
    assert [file.name.split("-")[0] for file in files] == ["keyvault", "ledger"]
    assert sorted(safe.iterdir()) == sorted(files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    kind = b"PGDMP" if files[0].suffix == ".dump" else b"SQLite format 3"
    assert all(file.read_bytes().startswith(kind) for file in files)
    assert "newest backup of the vault: 20" in desk.must("epochs", "list")


def test_a_backup_that_does_not_become_whole_does_not_count(desk: Desk, safe: Path) -> None:
    """A program that fails or is not there, or a disk that is full, leaves no file and no note."""
    with pytest.MonkeyPatch.context() as patch:

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(backups, "sync", fail)
        assert "No space left" in desk.fails("backup", str(safe))
    if "AUDIT_LEDGER_PG_DUMP" in desk.environment:
        desk.environment["AUDIT_LEDGER_PG_DUMP"] = "/nowhere/pg_dump"
        assert "install PostgreSQL's client programs" in desk.fails("backup", str(safe))
    assert list(safe.iterdir()) == []
    assert "none is known of" in desk.must("epochs", "list")


def test_a_dump_that_fails_shows_no_password(
    postgres: PostgresCluster, safe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the error, and not on the command line, which every user of the machine can list."""
    seen: list[list[str]] = []
    run = subprocess.run

    def watch(command: list[str], **options: Any) -> Any:
        seen.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", watch)
    url = postgres.url("there-is-no-such-database")
    with pytest.raises(backups.BackupError, match="exit status") as caught:
        backups.back_up(url, safe, "keyvault", 0, str(postgres.bin_directory / "pg_dump"))
    assert len(seen) == 1
    assert postgres.superuser.password not in f"{caught.value}{seen}"
    assert list(safe.iterdir()) == []


def test_a_damaged_database_is_not_backed_up_as_whole(tmp_path: Path, safe: Path) -> None:
    """SQLite finds pages that are not what they should be."""
    engine = database.make_engine(f"sqlite:///{tmp_path}/x.db")
    with database.writing(engine) as connection:
        connection.execute(text("CREATE TABLE t (x TEXT)"))
        connection.execute(text("CREATE INDEX i ON t (x)"))
        for number in range(500):
            connection.execute(text("INSERT INTO t VALUES (:x)"), {"x": f"{number:060}"})
        connection.execute(text("PRAGMA writable_schema = ON"))
        connection.execute(text("UPDATE sqlite_master SET rootpage = 2 WHERE name = 'i'"))
    engine.dispose()
    with pytest.raises(backups.BackupError):
        backups.back_up(f"sqlite:///{tmp_path}/x.db", safe, "x", 0, "pg_dump")
    assert list(safe.iterdir()) == []


def test_there_is_no_backup_of_no_database(tmp_path: Path, safe: Path) -> None:
    """An empty one would look like one."""
    with pytest.raises(backups.BackupError, match="there is no database"):
        backups.back_up(f"sqlite:///{tmp_path}/missing.db", safe, "x", 0, "pg_dump")


# The worker's duties


def test_the_duties_rotate_when_it_is_due_and_not_before(desk: Desk) -> None:
    """By the age of the current epoch; never with 0."""
    for days, age, newest in (("1", 0, 1), ("0", 400, 1), ("1", 2, 2), ("1", 0, 2)):
        desk.tamper(f"UPDATE epochs SET current_at = current_at - {age * DAY} WHERE state = 'current'")
        with desk.service(AUDIT_LEDGER_ROTATE_DAYS=days) as service:
            EpochDuties(service, threading.Event(), Guard(service)).do_all()
            assert service.vault.epochs.overview().rows[-1].epoch == newest
        if age == 400:
            desk.tamper(f"UPDATE epochs SET current_at = current_at + {age * DAY}")


def test_the_duties_complete_and_sign_and_raise_an_alarm(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I12: what a crash has left of a destruction; then the statement. The alarm is raised once a day."""
    caplog.set_level("INFO", logger="audit_ledger")
    with desk.service(AUDIT_LEDGER_FINAL_ALARM_DAYS="1") as service:
        ledger_id = new_ledger(service).ledger_id  # type: ignore[arg-type]  # it only takes its dependencies
        append_events(service.deps, ledger_id, [event("p-1", subject="patient:1", data={})], OPERATOR)
        order = ErasureOrder(NameOrRef("patient:1", None), None, None, None, False, OPERATOR)
        entry = erase_subject(service.deps, ledger_id, order).erasure.entry
        desk.tamper(f"UPDATE erasures SET erased_at = erased_at - {2 * DAY}")
        duties = EpochDuties(service, threading.Event(), Guard(service))
        duties.do_all()
        duties.do_all()
        assert [record.getMessage() for record in caplog.records].count("erasures-not-final") == 1
        desk.environment["AUDIT_LEDGER_FINAL_ALARM_DAYS"] = "1"
        assert "erasures that are not final: 1, 1 of them overdue" in desk.must("epochs", "list")
        assert gauges(service) == {"not_final": 1.0, "final_overdue": 1.0}

        service.vault.epochs.rotate()
        service.vault.epochs.note_backup(service.deps.clock(), "made")

        def fail(_epoch: int) -> None:
            raise ProviderError("the keeper is not there")

        with monkeypatch.context() as patch:
            patch.setattr(service.vault._keyring.provider, "destroy", fail)
            with pytest.raises(ProviderError):
                service.vault.epochs.destroy(1)
            assert "destruction under way" in desk.must("epochs", "list")
            duties.do_all()
            duties.do_all()
        told = [record for record in caplog.records if record.getMessage() == "worker-duty-failed"]
        assert [record.__dict__["duty"] for record in told] == ["epoch-destruction"]
        duties.do_all()
        assert service.vault.epochs.overview().rows[0].state == "destroyed"
        assert get_erasure(service.deps, ledger_id, entry.erasure_id).final.at is not None
        assert gauges(service) == {"not_final": 0.0, "final_overdue": 0.0}
        messages = [record.getMessage() for record in caplog.records]
        assert {"worker-duty-recovered", "epoch-destroyed", "erasure-final"} <= set(messages)


def test_the_duties_forget_names(desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """When their time is over; one that cannot be forgotten is told, and the others are."""
    caplog.set_level("INFO", logger="audit_ledger")
    with desk.service() as service:
        ledger_id = new_ledger(service).ledger_id  # type: ignore[arg-type]  # it only takes its dependencies
        entries = []
        for name in ("patient:1", "patient:2"):
            append_events(service.deps, ledger_id, [event("p-" + name[-1], subject=name, data={})], OPERATOR)
            order = ErasureOrder(NameOrRef(name, None), None, None, None, False, OPERATOR)
            entries.append(erase_subject(service.deps, ledger_id, order).erasure.entry)
        duties = EpochDuties(service, threading.Event(), Guard(service))
        duties.do_all()
        assert [get_erasure(service.deps, ledger_id, one.erasure_id).linked.pending for one in entries] == [
            "not-yet"
        ] * 2
        desk.tamper(f"UPDATE erasures SET erased_at = erased_at - {91 * DAY}")
        unlink = service.vault.unlink

        def fail_for_one(ledger_id: UUID, ref: bytes, now: int) -> int:
            if ref == entries[0].subject_ref:
                raise ProviderError("the keeper is not there")
            return unlink(ledger_id, ref, now)

        with monkeypatch.context() as patch:
            patch.setattr(type(service.vault), "unlink", lambda _, *arguments: fail_for_one(*arguments))
            duties.do_all()
        pending = [get_erasure(service.deps, ledger_id, one.erasure_id).linked.pending for one in entries]
        assert pending == ["unsigned", None]
        duties.do_all()
        assert get_erasure(service.deps, ledger_id, entries[0].erasure_id).linked.pending is None
        told = [(record.getMessage(), record.__dict__.get("duty")) for record in caplog.records]
        assert ("worker-duty-failed", "unlinking") in told
        assert ("worker-duty-recovered", "unlinking") in told
        assert told.count(("erasure-unlinked", None)) == 2


def gauges(service: Service) -> dict[str, float]:
    """What the metrics say of erasures that are not final."""
    found = re.findall(r"^audit_ledger_erasures_(\w+) (\S+)$", metrics_text(service, Counters()).decode(), re.M)
    return {name: float(value) for name, value in found}


def test_a_worker_that_stops_leaves_a_rotation_to_the_next(desk: Desk) -> None:
    """At its next batch."""
    desk.tamper(f"UPDATE epochs SET current_at = current_at - {2 * DAY}")
    with desk.service(AUDIT_LEDGER_ROTATE_DAYS="1") as service:
        stop = threading.Event()
        duties = EpochDuties(service, stop, Guard(service))
        stop.set()
        duties.duties["epoch-rotation"]()
        assert service.vault.epochs.overview().rows[0].being_rewrapped
        EpochDuties(service, threading.Event(), Guard(service)).do_all()
        assert service.vault.epochs.overview().rows[0].retired_at is not None
