"""Which was restored old, and what is noticed of it: every place alone, every two, every three, and all of them; when
the service starts, while it runs, and by ``audit-ledger vault reconcile``. The page shows the same table."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.app import create_app
from keyvault.database import only_one
from keyvault.journal import NO_LINES, Journal
from tests.e2e.cli_support import ROOT
from tests.support.keys import raw_keks
from tests.support.postgres import PostgresCluster
from tests.support.restored import ERASED, LIVING, NEW, RESTRICTED, Served, Town
from tests.support.restoring import Databases, Installation, Place, SqliteFiles, Templates
from tests.support.worker import eventually

PAGE: Final = ROOT / "docs" / "explanation" / "restored-backups.md"
UNREACHABLE: Final = frozenset({"The key vault cannot be reached.", "The ledger database cannot be reached."})


@dataclass(frozen=True, slots=True)
class Row:
    """What is noticed, by the words that the log has for it, and what of that is left when all is mended that can be.
    ``lost``: whether the one that was recorded last is lost with it."""

    noticed: frozenset[str]
    left: frozenset[str]
    lost: bool


def row(noticed: str, left: str, *, lost: bool = False) -> Row:
    """Words, separated by spaces."""
    return Row(frozenset(noticed.split()), frozenset(left.split()), lost)


UNDONE = "vault-behind erasures-undone states-undone"
ROWS: dict[tuple[Place, ...], Row] = {
    ("vault",): row(f"{UNDONE} epochs-undone", "vault-behind", lost=True),
    ("ledger",): row("ledger-behind", "ledger-behind", lost=True),
    ("keks",): row("kek-returned", ""),
    ("journal",): row("journal", "journal"),
    ("vault", "ledger"): row(f"{UNDONE} epochs-undone ledger-behind", "vault-behind ledger-behind", lost=True),
    ("vault", "keks"): row(f"{UNDONE} epochs-undone", "vault-behind", lost=True),
    ("vault", "journal"): row(UNDONE, "vault-behind", lost=True),
    ("ledger", "keks"): row("ledger-behind kek-returned", "ledger-behind", lost=True),
    ("ledger", "journal"): row("journal", "journal", lost=True),
    ("keks", "journal"): row("journal", "journal"),
    ("vault", "ledger", "keks"): row(f"{UNDONE} epochs-undone ledger-behind", "vault-behind ledger-behind", lost=True),
    ("vault", "keks", "journal"): row(UNDONE, "vault-behind", lost=True),
    ("ledger", "keks", "journal"): row("journal", "journal", lost=True),
    ("vault", "ledger", "journal"): row("", "", lost=True),
    ("vault", "ledger", "keks", "journal"): row("", "", lost=True),
}
# What a database has to do with it does not depend on what else is old.
ON_POSTGRESQL: Final[tuple[tuple[Place, ...], ...]] = (("vault",), ("ledger",), ("vault", "ledger"))
NOTICED = [places for places, found in ROWS.items() if found.noticed]
UNNOTICED = [places for places, found in ROWS.items() if not found.noticed]


def with_engines(rows: list[tuple[Place, ...]]) -> pytest.MarkDecorator:
    """All of these rows on SQLite, and some on PostgreSQL."""
    cases = [("sqlite", places) for places in rows]
    cases += [("postgresql", places) for places in rows if places in ON_POSTGRESQL]
    ids = [f"{engine}: {' and '.join(places)}" for engine, places in cases]
    return pytest.mark.parametrize(("town", "places"), cases, indirect=["town"], ids=ids)


ON_SQLITE = pytest.mark.parametrize("town", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def sqlite_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A town that has lived."""
    folder = tmp_path_factory.mktemp("town")
    yield from lived(folder, SqliteFiles(folder))


@pytest.fixture(scope="module")
def postgresql_town(postgres: PostgresCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Another."""
    yield from lived(tmp_path_factory.mktemp("town"), Templates(postgres))


def lived(folder: Path, databases: Databases) -> Iterator[Town]:
    """Up to its second moment."""
    with Installation(folder, databases) as installation:
        town = Town(installation)
        town.live()
        yield town


@pytest.fixture
def town(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Town:
    """One of them; whose service does not wait for others that might be at work, since there are none."""
    monkeypatch.setattr("api.guard.DOUBTS", (0.0,))
    monkeypatch.setattr("api.guard.LOOK_SECONDS", 0.0)
    found: Town = request.getfixturevalue(f"{request.param}_town")
    return found


def told(caplog: pytest.LogCaptureFixture) -> frozenset[str]:
    """What the log says was noticed."""
    records = [record for record in caplog.records if record.getMessage() == "restore-noticed"]
    return frozenset(vars(record)["trouble"] for record in records)


@with_engines(NOTICED)
def test_noticed_at_the_start_and_put_right_by_reconciling(
    town: Town, places: tuple[Place, ...], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is served before what was undone is done again, and before somebody has seen what is lost."""
    expected = ROWS[places]
    town.put_back(*places)
    with town.served() as served:
        assert told(caplog) == expected.noticed
        assert {finding.trouble for finding in served.guard.findings} == expected.left
        if expected.left:
            is_closed(served)
    status, said = town.command(capsys, "vault", "reconcile")
    assert status == (1 if expected.left else 0), said
    if "journal" in expected.left:
        assert "--new-journal" in said
        assert town.command(capsys, "vault", "reconcile", "--yes")[0] == 1
        assert town.command(capsys, "vault", "reconcile", "--new-journal", "--yes")[0] == 0
    elif expected.left:
        assert "the service stays closed" in said
        assert town.command(capsys, "vault", "reconcile", "--yes")[0] == 0
    caplog.clear()
    with town.served() as served:
        assert told(caplog) == frozenset()
        is_right(served, lost=expected.lost)
    # The destruction is in vault and journal alone: with both of them old nobody knows of it.
    forgotten = {"epoch-1.kek"} if {"vault", "keks", "journal"} <= set(places) else set()
    assert set(raw_keks(town.installation.keks)) == {"epoch-2.kek"} | forgotten


@with_engines([places for places in NOTICED if len(places) < 3])
def test_noticed_while_it_runs(town: Town, places: tuple[Place, ...], caplog: pytest.LogCaptureFixture) -> None:
    """The next append is refused, or recorded when all is right again; it is never recorded beside what is old."""
    expected = ROWS[places]
    town.put_back()
    with town.served() as served:
        assert served.visit(LIVING)[0] == 201
        town.installation.put_back("old", *places, running=True)
        eventually(lambda: served.visit(LIVING)[1].get("title") not in UNREACHABLE)
        assert told(caplog) == expected.noticed
        if expected.left:
            is_closed(served)
        else:
            is_right(served, lost=False)


@with_engines(UNNOTICED)
def test_all_of_them_old_are_noticed_from_outside_alone(
    town: Town, places: tuple[Place, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They fit each other, and the erased person is back: a kept size and root say so, and a kept receipt mends it."""
    town.put_back(*places)
    with town.served() as served:
        assert served.guard.findings == ()
        assert served.readable() == {ERASED, RESTRICTED, LIVING}
        assert served.get("/v1/ledgers/town")[1]["size"] < town.size
    town.write_receipt(tmp_path)
    status, said = town.command(capsys, "vault", "reconcile", "--receipts", str(tmp_path))
    assert (status, said.count("erased again")) == (0, 1)
    with town.served() as served:
        assert served.readable() == {RESTRICTED, LIVING}
        assert served.hidden()[ERASED] == "erased"
        assert served.visit(ERASED)[0] == 410


def cut_short(journal: Path) -> None:
    """Two lines are missing at the end."""
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-2]))


def altered(journal: Path) -> None:
    """One digit of a line in the middle."""
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"at":1', b'"at":2')
    journal.write_bytes(b"".join(lines))


def fresh(journal: Path) -> None:
    """Begun anew, by a service of another place."""
    journal.write_bytes(b"")
    Journal(journal).append("epoch-created", {"epoch": 1}, at=1, key=Ed25519PrivateKey.generate(), after=NO_LINES)


def empty(journal: Path) -> None:
    """As if it had just been made."""
    journal.write_bytes(b"")


JOURNALS: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": empty,
    "cut short": cut_short,
    "altered in the middle": altered,
    "replaced by a fresh one": fresh,
}


@ON_SQLITE
@pytest.mark.parametrize("how", JOURNALS)
def test_another_journal_than_the_one_that_was_there(
    town: Town, how: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never begun anew by itself; when somebody says so, with all that is known, and the old one is kept."""
    town.put_back()
    JOURNALS[how](town.installation.journal)
    beside = set(town.installation.journal.parent.iterdir())
    with town.served() as served:
        assert told(caplog) == {"journal"}
        is_closed(served)
    status, said = town.command(capsys, "vault", "reconcile", "--yes")
    assert (status, "--new-journal" in said) == (1, True)
    assert town.command(capsys, "vault", "reconcile", "--new-journal", "--yes")[0] == 0
    assert len(set(town.installation.journal.parent.iterdir()) - beside) == 1
    with town.served() as served:
        is_right(served, lost=False)


@ON_SQLITE
@pytest.mark.parametrize("how", [how for how in JOURNALS if how != "altered in the middle"])
def test_another_journal_is_noticed_while_it_runs(town: Town, how: str) -> None:
    """At once, but for a line far from the end: that takes a start, or a reconciliation."""
    town.put_back()
    with town.served() as served:
        assert served.visit(LIVING)[0] == 201
        JOURNALS[how](town.installation.journal)
        is_closed(served)


@ON_SQLITE
def test_keks_from_before_a_rotation(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    """The current one is missing: nothing is served, nothing is lost, and its copy puts all right."""
    town.put_back()
    (current,) = town.installation.keks.iterdir()
    content = current.read_bytes()
    current.unlink()
    with town.installation.service() as service:
        answer = create_app(service).test_client().get("/readyz")
        assert (answer.status_code, json.loads(answer.data)["dependencies"]["kek"]) == (503, "not available")
    status, said = town.command(capsys, "vault", "reconcile", "--yes")
    assert (status, "cannot read the KEK" in said) == (1, True)
    current.touch(0o600)
    current.write_bytes(content)
    with town.served() as served:
        is_right(served, lost=False)


@ON_SQLITE
def test_reconciling_waits_for_a_service_that_mends_just_now(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    """A service that is not ready tries every second, and must not turn the operator away."""
    town.put_back()
    holding, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with town.installation.service() as service, only_one(service.vault.engine, "reconciling"):
            holding.set()
            enough.wait(0.5)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(30)
    status, said = town.command(capsys, "vault", "reconcile")
    enough.set()
    holder.join()
    assert (status, said) == (0, "all fits: the service may serve\n")


def is_closed(served: Served) -> None:
    """Nothing is shown and nothing recorded, and it says why."""
    status, ready = served.get("/readyz")
    assert (status, ready["dependencies"]["restore-guard"] == "ok") == (503, False)
    for status, answer in (served.post("query", {}), served.visit(LIVING), served.get("/v1/ledgers/town")):
        assert (status, answer["type"]) == (503, "urn:audit-ledger:problem:not-ready")


def is_right(served: Served, *, lost: bool) -> None:
    """Whoever was erased is, whoever was restricted is, all others live; but for who was recorded last."""
    assert served.get("/readyz")[0] == 200
    assert served.readable() == ({LIVING} if lost else {LIVING, NEW})
    hidden = served.hidden()
    assert (hidden[ERASED], hidden[RESTRICTED]) == ("erased", "restricted")
    assert [served.visit(who)[0] for who in (ERASED, RESTRICTED, LIVING, NEW)] == [410, 201, 201, 201]


# The page


def test_the_page_has_the_same_table() -> None:
    """Row for row, word for word."""
    found = {}
    (section,) = re.findall(r"^## Which was restored old.*?(?=^## )", PAGE.read_text(), re.M | re.S)
    for line in re.findall(r"^\| (?:vault|ledger|KEKs|journal)\b.*$", section, re.M):
        places, noticed, _, left = (cell.strip() for cell in line.strip("|").split("|"))
        names = tuple(name.lower() for name in re.findall(r"vault|ledger|KEKs|journal", places))
        found[names] = (words_of(noticed), words_of(left))
    assert found == {places: (expected.noticed, expected.left) for places, expected in ROWS.items()}


def words_of(cell: str) -> frozenset[str]:
    """What stands in backticks."""
    return frozenset(re.findall(r"`([a-z-]+)`", cell))
