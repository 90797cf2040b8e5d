"""Setting up from the command line: safe to repeat, safe when two run at once, safe after a crash."""

from __future__ import annotations

import json
import re
import stat
import subprocess
from pathlib import Path

import psycopg
import pytest

from ledger.domain.access import AccessRole
from ledger.errors import UnauthenticatedError
from ledger.services.api_keys import authenticate, list_api_keys
from tests.e2e.cli_support import SEPSIS, Cli, event, ndjson
from tests.support.postgres import PostgresCluster
from tests.support.server import ServedLedger


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """A home that does not exist yet."""
    return Cli(tmp_path / "home")


def test_init_prepares_a_home_that_nobody_else_can_read(cli: Cli) -> None:
    """Folder 0700, files 0600: databases, KEK, journal and the key of the operator."""
    cli.must("init")
    assert stat.S_IMODE(cli.home.stat().st_mode) == 0o700
    files = [path for path in cli.home.rglob("*") if path.is_file()]
    assert {"ledger.db", "keyvault.db", "erasures.journal", "admin-key"} <= {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_the_first_key_works_and_has_all_roles(cli: Cli) -> None:
    """What stands in the file is a key of the operator with all four roles, on all ledgers, without end."""
    cli.must("init")
    service = cli.open()
    key, _ = authenticate(service.deps, (cli.home / "admin-key").read_text().strip())
    service.close()
    assert (key.principal, key.roles, key.ledger_id, key.expires_at) == ("operator", frozenset(AccessRole), None, None)


def test_init_again_changes_nothing(cli: Cli) -> None:
    """No second key, no second epoch, no line in the journal."""
    cli.must("init")
    before = (cli.home / "admin-key").read_bytes(), (cli.home / "erasures.journal").read_bytes()
    cli.must("init")
    assert ((cli.home / "admin-key").read_bytes(), (cli.home / "erasures.journal").read_bytes()) == before
    assert len(cli.lines("keys", "list")) == 1


def test_two_inits_at_once_make_one_home(cli: Cli) -> None:
    """Both succeed, and there is one key, whose secret is the one in the file."""
    running = [cli.start("init", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    service = cli.open()
    authenticate(service.deps, (cli.home / "admin-key").read_text().strip())
    assert len(list_api_keys(service.deps)) == 1
    service.close()


def test_an_operator_who_takes_the_key_file_away_finds_no_new_key(cli: Cli) -> None:
    """Otherwise every start would leave another all-powerful key behind."""
    cli.must("init")
    (cli.home / "admin-key").unlink()
    assert "keys create" in cli.must("init")
    assert not (cli.home / "admin-key").exists()
    assert len(cli.lines("keys", "list")) == 1


@pytest.mark.parametrize("written", [b"", b"half a sec"])
def test_a_crash_before_the_key_file_leaves_no_key_that_nobody_has(cli: Cli, written: bytes) -> None:
    """I12: the row is there, the secret is lost; the next start revokes the one and makes another."""
    cli.must("init")
    lost = (cli.home / "admin-key").read_text().strip()
    (cli.home / "admin-key").unlink()
    (cli.home / "admin-key.pending").write_bytes(written)
    cli.must("init")
    service = cli.open()
    authenticate(service.deps, (cli.home / "admin-key").read_text().strip())
    with pytest.raises(UnauthenticatedError):
        authenticate(service.deps, lost)
    service.close()
    assert not (cli.home / "admin-key.pending").exists()


def test_a_crash_after_the_key_file_keeps_the_key(cli: Cli) -> None:
    """I12: only the pending file is cleared away."""
    cli.must("init")
    before = (cli.home / "admin-key").read_bytes()
    (cli.home / "admin-key.pending").write_bytes(before)
    cli.must("init")
    assert (cli.home / "admin-key").read_bytes() == before
    assert not (cli.home / "admin-key.pending").exists()
    assert [key["revoked_at"] for key in cli.lines("keys", "list")] == [None]


@pytest.mark.parametrize(
    "arguments",
    [
        ("ledgers", "list"),
        ("import", str(SEPSIS), "--ledger", "x"),
        ("query", "--ledger", "x"),
        ("verify", "--ledger", "x"),
        ("keys", "list"),
        ("demo",),
    ],
)
def test_without_init_every_command_says_what_to_do(cli: Cli, arguments: tuple[str, ...]) -> None:
    """One line on stderr that names `audit-ledger init`, exit status 1, and nothing is made by accident."""
    result = cli.run(*arguments)
    assert result.returncode == 1
    assert "audit-ledger init" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not cli.home.exists()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("PORT", "http"),
        ("AUDIT_LEDGER_DATABASE_URL", "mysql://u:canary@host/db"),
        ("AUDIT_LEDGER_KEYVAULT_URL", "postgresql+psycopg://u:canary@host"),
        ("AUDIT_LEDGER_KEK", "vault:canary"),
        ("AUDIT_LEDGER_KEK", "pkcs11:token=audit-ledger;object=kek?pin-value=canary"),
        ("AUDIT_LEDGER_KEK", "awskms:alias/audit-ledger?secret=canary"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not(tmp_path: Path, setting: str, value: str) -> None:
    """Settings hold passwords: the complaint says which setting and what to do, and never repeats it."""
    result = Cli(tmp_path / "home", {setting: value}).run("init")
    assert result.returncode == 1
    assert setting in result.stderr
    assert "canary" not in result.stderr


def test_a_home_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    """The operating system's reason with the path, no traceback."""
    (tmp_path / "file").touch()
    result = Cli(tmp_path / "file" / "home").run("init")
    assert result.returncode == 1
    assert str(tmp_path / "file") in result.stderr
    assert result.stderr.count("\n") == 1


def test_keys_are_made_listed_and_revoked(cli: Cli) -> None:
    """The secret is shown once and works until the key is revoked; no list shows it."""
    cli.must("init")
    cli.must("ledgers", "create", "shop")
    made = cli.lines(
        "keys", "create", "--name", "web", "--principal", "shop", "--role", "writer", "--role", "auditor",
        "--ledger", "shop", "--expires-at", "2999-01-01T00:00:00Z",
    )[0]  # fmt: skip
    service = cli.open()
    assert str(authenticate(service.deps, made["secret"])[0].key_id) == made["id"]
    listed = cli.must("keys", "list")
    assert made["id"] in listed
    assert made["secret"] not in listed
    cli.must("keys", "revoke", made["id"])
    with pytest.raises(UnauthenticatedError):
        authenticate(service.deps, made["secret"])
    service.close()
    shown = next(key for key in cli.lines("keys", "list") if key["id"] == made["id"])
    assert shown["revoked_at"] is not None
    assert (shown["ledger"], shown["roles"]) == ("shop", ["auditor", "writer"])


def test_keys_refuse_what_cannot_be_meant(cli: Cli) -> None:
    """An unknown role or a time that is over is a usage error; an unknown ledger or key is an error that says so;
    nothing is made."""
    cli.must("init")
    key = ("keys", "create", "--name", "n", "--principal", "p", "--role")
    assert cli.run(*key, "root").returncode == 2
    over = cli.run(*key, "writer", "--expires-at", "2020-01-01T00:00:00Z")
    assert (over.returncode, "--expires-at" in over.stderr) == (2, True)
    assert "ledgers create nowhere" in cli.run(*key, "writer", "--ledger", "nowhere").stderr
    assert cli.run("keys", "revoke", "00000000-0000-7000-8000-000000000000").returncode == 1
    assert len(cli.lines("keys", "list")) == 1


def test_the_demo_is_loaded_once(cli: Cli) -> None:
    """Running it again records nothing twice, also after somebody in it was erased (I4)."""
    cli.must("init")
    shown = cli.must("demo")
    assert str(cli.home / "admin-key") in shown
    assert shown.count("curl") == 3
    size = cli.lines("ledgers", "list")[0]["size"]
    cli.must("erase", "--ledger", "demo", "--yes", "@-", text="customer:mila\n")
    cli.must("demo")
    assert cli.lines("ledgers", "list")[0]["size"] == size + 1
    cli.must("verify", "--ledger", "demo")


def test_the_requests_that_the_demo_prints_can_be_tried() -> None:
    """Against the served ledger, in their order: the whole year, the first months, the erasure."""
    with ServedLedger() as served:
        printed = served.run("demo").stdout
        commands = re.findall(r"^curl .*\n.*$", printed, re.M)
        year, spring, erasure = (
            json.loads(subprocess.run(["bash", "-c", command], capture_output=True, check=True, timeout=60).stdout)
            for command in commands
        )
    assert len(year["events"]) > len(spring["events"]) > 0
    assert {found["subject"] for found in year["events"]} == {"customer:mila"}
    assert erasure["state"] == "erased"


def test_owner_roles_migrate_and_the_service_can_do_its_work_but_not_change_the_past(
    tmp_path: Path, postgres: PostgresCluster
) -> None:
    """I1: on PostgreSQL the service's role appends, asks and erases; updating or deleting an event is denied to it."""
    owner, service = postgres.create_role(), postgres.create_role()
    urls = {}
    for setting in ("DATABASE", "KEYVAULT"):
        name = f"cli_{setting.lower()}_{owner.name}"
        urls[f"AUDIT_LEDGER_MIGRATE_{setting}_URL"] = postgres.create_database(name, owner)
        urls[f"AUDIT_LEDGER_{setting}_URL"] = postgres.url(name, service)
    assert "newest" in Cli(tmp_path / "home", urls).must("migrate")
    Cli(tmp_path / "home", urls).must("migrate")
    # The owners' passwords are for migrating only; the service never gets to know them.
    cli = Cli(tmp_path / "home", {name: url for name, url in urls.items() if "MIGRATE" not in name})
    cli.must("init")
    cli.must("import", "-", "--source", "s", "--ledger", "ward", "--create", text=ndjson([event(), event()]))
    cli.must("erase", "--ledger", "ward", "--yes", "patient:A")
    assert [found["data"] for found in cli.lines("query", "--ledger", "ward", "--category", "patient")] == [None, None]
    cli.must("verify", "--ledger", "ward")
    with postgres.connect(f"cli_database_{owner.name}", service) as connection:
        for statement in ("UPDATE events SET event_type = 'x'", "DELETE FROM events", "TRUNCATE events"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
