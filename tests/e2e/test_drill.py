"""``audit-ledger drill erase`` as an operator runs it: a report of what held, and of what was not looked at."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from typing_extensions import override

from api.drill.report import DRILL_DOMAIN
from ledger.domain.receipts import canonical_json
from tests.e2e.cli_support import Cli
from tests.e2e.conftest import postgres_settings
from tests.support.keepers import make_keeper
from tests.support.kms import KmsServer
from tests.support.postgres import PostgresCluster
from tests.support.server import ServedLedger


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """An installation whose KEKs lie apart."""
    cli = Cli(tmp_path / "home", {"AUDIT_LEDGER_KEK": f"file:{tmp_path}/keks"})
    cli.must("init")
    return cli


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where reports go."""
    folder = tmp_path / "drills"
    folder.mkdir(mode=0o700)
    return folder


def report_in(out: Path) -> Any:
    """The one report."""
    (path,) = out.glob("drill-*.json")
    return json.loads(path.read_text())


def words_in(text: str, payload: Any) -> list[str]:
    """Which of the canary's words stand there, told by their hashes."""
    words = re.findall(r"[0-9a-f]{32}(?:-[0-9a-f]{64})?", text)
    return [word for word in words if hashlib.sha256(word.encode()).hexdigest() in payload["marks_sha256"]]


def verdicts_of(payload: Any) -> dict[str, set[str]]:
    """Verdict → the names of its checks."""
    found: dict[str, set[str]] = {}
    for check in payload["checks"]:
        found.setdefault(check["verdict"], set()).add(check["name"])
    return found


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [name for name, _ in attrs if name in ("src", "href", "srcset", "action")]

    @override
    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_drill_on_sqlite_shows_that_all_held(cli: Cli, out: Path) -> None:
    """All checks hold; the report is signed, private and names nobody; what the drill made is gone but for the one
    backup that opens; and the next drill works."""
    done = cli.run_apart("drill", "erase", "--out", str(out), "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    report = report_in(out)
    payload = report["payload"]
    assert payload["verdict"] == "held"
    assert set(verdicts_of(payload)) == {"held"}
    assert len(payload["checks"]) == 20
    assert [step["name"] for step in payload["steps"]][-4:-1] == ["back up again", "destroy", "search after"]
    with contextlib.closing(cli.open()) as service:
        key = Ed25519PublicKey.from_public_bytes(service.vault.verifying_key(UUID(payload["ledger_id"])))
        assert service.vault.inspection.kept_epochs() == {2}
    key.verify(base64.b64decode(report["signature"]), DRILL_DOMAIN + canonical_json(payload))
    (page,) = out.glob("drill-*.html")
    assert_shows_all(page.read_text(), report)
    (backup,) = out.glob("keyvault-*.db")
    assert payload["backups"] == [backup.name]
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    assert len(list(out.iterdir())) == 3
    assert words_in(done.stdout + done.stderr + page.read_text() + json.dumps(report), payload) == []
    assert cli.must("verify", "--ledger", "drill")


def assert_shows_all(text: str, report: Any) -> None:
    """One file that loads nothing and runs nothing, and has every check."""
    page = Page(text)
    assert page.loads == []
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    for check in report["payload"]["checks"]:
        assert all(check[member] in page.text for member in check), check
    assert report["signature"] in page.text


def test_without_destruction_it_says_what_it_does_not_show(out: Path) -> None:
    """The embedded default, with KEKs beside the vault: nothing is rotated, and that is no success by itself."""
    cli = Cli(out.parent / "home")
    cli.must("init")
    (out / "drill.work").mkdir()
    (out / "drill.work" / "export.ndjson").write_text("left by a drill that was killed")
    arguments = ("drill", "erase", "--out", str(out), "--yes", "--without-destruction")
    done = cli.run_apart(*arguments, "--allow-unseen", "--keep-backups")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not everything was looked at" in done.stdout
    payload = report_in(out)["payload"]
    assert payload["verdict"] == "not looked at"
    assert verdicts_of(payload)["not looked at"] == {
        "no wrapped key of the canary opens",
        "no sealed part of the canary opens",
        "old epochs are destroyed",
        "no KEK is back",
        "the erasure is final",
    }
    assert "failed" not in verdicts_of(payload)
    kinds = sorted(path.name.partition("-")[0] for path in out.iterdir())
    assert kinds == ["drill", "drill", "keyvault", "ledger"]
    assert "epoch 1 (file) current" in cli.must("epochs", "list")
    assert_a_shared_place_is_not_final(cli, out)


def assert_a_shared_place_is_not_final(cli: Cli, out: Path) -> None:
    """With destruction all else holds there, and the exit status is 1: every copy of the folder has both."""
    for path in out.iterdir():
        path.unlink()
    done = cli.run_apart("drill", "erase", "--out", str(out), "--yes")
    assert done.returncode == 1
    payload = report_in(out)["payload"]
    assert verdicts_of(payload)["not looked at"] == {"the erasure is final"}
    assert "failed" not in verdicts_of(payload)
    assert "shared-place" in done.stdout


def test_what_it_refuses_before_it_begins(cli: Cli, out: Path) -> None:
    """Without a yes, with a server and no key for it, beside another drill, with a folder that others can look into."""
    unasked = cli.run("drill", "erase", "--out", str(out))
    assert unasked.returncode == 2
    assert "add --yes" in unasked.stderr
    assert "DESTROYED" in unasked.stderr
    assert "belong together" in cli.run("drill", "erase", "--out", str(out), "--url", "http://127.0.0.1:1").stderr
    folder = os.open(out, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert "another drill" in cli.run("drill", "erase", "--out", str(out), "--yes").stderr
    os.close(folder)
    out.chmod(0o755)
    assert "others can look into" in cli.run("drill", "erase", "--out", str(out), "--yes").stderr
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("kind", ["pkcs11", "awskms"])
def test_a_drill_with_another_keeper(kind: str, out: Path) -> None:
    """All that was wrapped under the old KEK is tried in the token, or by the cloud service. Its last copy is gone at
    once there, and only after its waiting time here: until then the erasure is not final."""
    with KmsServer() as kms:
        keeper = make_keeper(kind, out.parent / "keeper", kms)
        cli = Cli(out.parent / "home", {"AUDIT_LEDGER_KEK": keeper.url, **keeper.environment})
        cli.must("init")
        done = cli.run_apart("drill", "erase", "--out", str(out), "--yes", "--allow-unseen")
    assert done.returncode == 0, done.stdout + done.stderr
    report = report_in(out)
    waits = {"the erasure is final"} if kind == "awskms" else set()
    assert verdicts_of(report["payload"]).get("not looked at", set()) == waits
    assert not any(secret in json.dumps(report) for secret in keeper.secrets)


def test_a_drill_on_postgresql_beside_a_running_server(out: Path, own_postgres: PostgresCluster) -> None:
    """Owner and service roles, several server processes, heap files and write-ahead log; the server is asked too."""
    settings = postgres_settings(own_postgres) | {
        "AUDIT_LEDGER_PG_DUMP": str(own_postgres.bin_directory / "pg_dump"),
        "AUDIT_LEDGER_KEK": f"file:{out.parent}/keks",
    }
    with ServedLedger(settings) as served:
        role = settings["AUDIT_LEDGER_KEYVAULT_URL"].split("/")[2].partition(":")[0]
        with own_postgres.connect() as connection:
            connection.execute(f'GRANT pg_read_all_stats TO "{role}"'.encode())
        served.make_ledger("drill")
        asked = ("--url", f"http://127.0.0.1:{served.port}", "--key-file", str(served.home / "admin-key"))
        where = ("--data-directory", str(own_postgres.data_directory))
        done = served.run_apart("drill", "erase", "--out", str(out), "--yes", *asked, *where, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert served.client.get("/readyz").status == 200
    payload = report_in(out)["payload"]
    assert set(verdicts_of(payload)) == {"held"}
    assert sum(check["name"].startswith("the first answers") for check in payload["checks"]) == 3
    assert "PostgreSQL's data directories" in {check["where"] for check in payload["checks"]}
    assert all(role not in json.dumps(payload["settings"]) for role in ("role_", "@"))
    assert "PostgreSQL" in payload["versions"]["pg_dump"]
    assert len(list(out.glob("keyvault-*.dump"))) == 1
