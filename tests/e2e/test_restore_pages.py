"""The pages on restoring and on lost KEKs: their commands are run as they stand, and what they claim holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cli_support import ROOT
from tests.e2e.test_docs_commands import run_steps, steps_of
from tests.support.restored import ERASED, LIVING, NEW, Town
from tests.support.restoring import Installation, SqliteFiles

RESTORE = (ROOT / "docs" / "how-to" / "restore.md").read_text()
LOST_KEK = (ROOT / "docs" / "how-to" / "lost-kek.md").read_text()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """A service where two people were recorded."""
    with Installation(tmp_path, SqliteFiles(tmp_path)) as installation:
        town = Town(installation)
        with town.served() as served:
            assert served.post("", {"name": "town"}, path="/v1/ledgers")[0] == 201
            assert [served.visit(who)[0] for who in (ERASED, LIVING)] == [201, 201]
        yield town


def run_page(town: Town, page: str, here: dict[str, str], folder: Path) -> None:
    """Its commands, with the settings of this service."""
    folder.mkdir()
    run_steps(steps_of(re.sub(r"^```json\n.*?^```$", "", page, flags=re.M | re.S)), town.environment, here, folder)


def test_the_commands_of_restoring(town: Town, tmp_path: Path) -> None:
    """An old vault takes the new one's place, and whoever was erased since is erased again."""
    backup = tmp_path / "backups" / "keyvault-20260301T040000.000000Z.db"
    town.installation.keep("old", "vault")
    backup.write_bytes((tmp_path / "copies" / "old" / "vault").read_bytes())
    with town.served() as served:
        assert served.post("erasures", {"subject": ERASED})[0] == 201
    run_page(
        town, RESTORE, {"/srv/ledger/": f"{tmp_path}/", "/srv/backup/keyvault": f"{tmp_path}/backups"}, tmp_path / "out"
    )
    assert (tmp_path / "keyvault.db.broken").exists()
    with town.served() as served:
        assert served.readable() == {LIVING}
        (said,) = served.reconciled()
        assert said["erased_again"] == 1


def test_the_command_of_the_lost_kek(town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The copy of the file puts all right; without it, `verify` and `epochs list` say what the page says."""
    apart = tmp_path / "apart"
    town.installation.keks.rename(apart)
    town.installation.keks.mkdir(mode=0o700)
    status, said = town.command(capsys, "query", "--ledger", "town")
    shown = " ".join(re.findall(r"^Error: (cannot read the KEK .*?)\.\n```", LOST_KEK, re.M | re.S)[0].split())
    assert status == 1
    assert shown.replace("/var/lib/audit-ledger/kek/epoch-3.kek", f"{town.installation.keks}/epoch-1.kek") in said
    assert "intact" in town.command(capsys, "verify", "--ledger", "town", "--no-open")[1].splitlines()
    assert "epoch 1 (file) current: " in town.command(capsys, "epochs", "list")[1]
    here = {"/mnt/apart/kek": str(apart), "/var/lib/audit-ledger/kek": str(town.installation.keks)}
    run_page(town, LOST_KEK, here, tmp_path / "out")
    with town.served() as served:
        assert served.readable() == {ERASED, LIVING}


def test_the_epoch_before_and_a_backup_from_then_bring_back_what_they_can(
    town: Town, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest KEK is lost for good. Who was recorded before the rotation can be read, and nobody who was erased."""
    town.installation.keep("old", "vault")
    with town.served() as served:
        served.service.vault.epochs.rotate()
        assert served.visit(NEW)[0] == 201
        assert served.post("erasures", {"subject": ERASED})[0] == 201
    (town.installation.keks / "epoch-2.kek").unlink()
    town.installation.put_back("old", "vault")
    assert town.command(capsys, "vault", "reconcile", "--yes")[0] == 0
    with town.served() as served:
        assert served.guard.findings == ()
        assert served.readable() == {LIVING}
        assert [served.visit(who)[0] for who in (ERASED, LIVING, NEW)] == [410, 201, 201]
        assert served.service.vault.epochs.rotate() is not None
        assert served.readable() == {LIVING, NEW}
