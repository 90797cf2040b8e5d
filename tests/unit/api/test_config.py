"""Settings that cannot be meant are refused before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.config import Settings, SettingsError

POSTGRES = "postgresql+psycopg://ledger:secret-1@db.example/ledger"
VAULT = "postgresql+psycopg://vault:secret-2@keys.example/vault"


def settings(**environment: str) -> Settings:
    """The settings of this environment."""
    return Settings.from_environment(environment)


def test_the_defaults_are_those_of_the_contract() -> None:
    """Everything under the home folder, served on this machine only."""
    home = Path("var").absolute()
    found = settings()

    assert found.home == home
    assert found.database_url == f"sqlite:///{home}/ledger.db"
    assert found.keyvault_url == f"sqlite:///{home}/keyvault.db"
    assert (found.kek, found.journal) == (f"file:{home}/kek", f"file:{home}/erasures.journal")
    assert (found.host, found.port, found.origin) == ("127.0.0.1", 8080, "localhost")
    assert (found.workers, found.log_level) == (1, "info")


def test_an_empty_setting_counts_as_absent() -> None:
    """As most tools that set environments do it."""
    assert settings(PORT="", AUDIT_LEDGER_DATABASE_URL="") == settings()


@pytest.mark.parametrize("name", ["ROTATE_DAYS", "KEK_COPIES_DAYS", "FINAL_ALARM_DAYS"])
def test_days_are_whole_numbers_from_0(name: str) -> None:
    """0 means never, or none."""
    assert getattr(settings(**{f"AUDIT_LEDGER_{name}": "0"}), name.lower()) == 0
    for value in ("-1", "1.5", "36501", "x"):
        with pytest.raises(SettingsError, match="from 0 to 36500"):
            settings(**{f"AUDIT_LEDGER_{name}": value})


def test_no_kek_in_a_file_is_made_on_a_schedule_that_nobody_has_set() -> None:
    """It would have to be copied to safekeeping and to other machines before anything hangs on it."""
    assert settings().rotate_days == 0
    assert settings(AUDIT_LEDGER_ROTATE_DAYS="30").rotate_days == 30


def test_postgresql_gets_several_processes() -> None:
    """One on SQLite, where writers would only wait for each other."""
    assert settings(AUDIT_LEDGER_DATABASE_URL=POSTGRES, AUDIT_LEDGER_KEYVAULT_URL=VAULT).workers == 2
    assert settings(AUDIT_LEDGER_DATABASE_URL=POSTGRES).workers == 1


@pytest.mark.parametrize(
    ("ledger", "vault"),
    [
        ("sqlite:////data/one.db", "sqlite:////data/one.db"),
        ("sqlite:////data/one.db", "sqlite:////data/../data/one.db"),
        (POSTGRES, POSTGRES),
        (POSTGRES, POSTGRES.replace("ledger:secret-1", "vault:secret-2")),
        (POSTGRES, POSTGRES.replace("db.example", "DB.example:5432")),
        (
            "postgresql+psycopg://a:b@localhost/one",
            "postgresql+psycopg://c:d@127.0.0.1:5432/one?application_name=vault",
        ),
        ("postgresql+psycopg:///one", "postgresql+psycopg://localhost/one"),
        ("postgresql+psycopg:///one?host=/run/postgresql", "postgresql+psycopg:///one"),
        ("postgresql+psycopg:///other?dbname=one", "postgresql+psycopg:///one"),
    ],
)
def test_ledger_and_vault_never_share_a_database(ledger: str, vault: str) -> None:
    """I8: one backup must not hold both. However the address is written."""
    with pytest.raises(SettingsError, match="AUDIT_LEDGER_KEYVAULT_URL"):
        settings(AUDIT_LEDGER_DATABASE_URL=ledger, AUDIT_LEDGER_KEYVAULT_URL=vault)


def test_two_databases_of_one_server_are_allowed() -> None:
    """The documentation says why two servers are better."""
    settings(AUDIT_LEDGER_DATABASE_URL=POSTGRES, AUDIT_LEDGER_KEYVAULT_URL=POSTGRES.replace("/ledger", "/vault"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUDIT_LEDGER_DATABASE_URL", "mysql://user:secret-1@db/x"),
        ("AUDIT_LEDGER_DATABASE_URL", "postgresql://user:secret-1@db/x"),
        ("AUDIT_LEDGER_DATABASE_URL", "sqlite://"),
        ("AUDIT_LEDGER_DATABASE_URL", "sqlite:///:memory:"),
        ("AUDIT_LEDGER_DATABASE_URL", "sqlite:///a.db?secret-1=1"),
        ("AUDIT_LEDGER_DATABASE_URL", "postgresql+psycopg://user:secret-1@db"),
        ("AUDIT_LEDGER_DATABASE_URL", "postgresql+psycopg://user:secret-1@db:port/x"),
        ("AUDIT_LEDGER_DATABASE_URL", "postgresql+psycopg://user:secret-1[@db/x"),
        ("AUDIT_LEDGER_KEYVAULT_URL", "secret-1"),
        ("AUDIT_LEDGER_MIGRATE_DATABASE_URL", "postgresql+psycopg://owner:secret-1@db/ledger"),
        ("AUDIT_LEDGER_KEK", "vault:pin=secret-1"),
        ("AUDIT_LEDGER_KEK", "secret-1"),
        ("AUDIT_LEDGER_KEK", "pkcs11:"),
        ("AUDIT_LEDGER_KEK", "file:"),
        ("AUDIT_LEDGER_JOURNAL", "postgresql+psycopg://j:secret-1@db/x"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "80a"),
        ("PORT", "-1"),
        ("AUDIT_LEDGER_WORKERS", "0"),
        ("AUDIT_LEDGER_THREADS", "1000"),
        ("AUDIT_LEDGER_ORIGIN", "Example Org"),
        ("AUDIT_LEDGER_LOG_LEVEL", "loud"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(name: str, value: str) -> None:
    """The message names the setting, and repeats no password or PIN."""
    with pytest.raises(SettingsError) as refusal:
        settings(**{name: value})

    assert name in str(refusal.value)
    assert "secret-1" not in str(refusal.value)


def test_an_owner_migrates_the_services_own_database_only() -> None:
    """Anything else is a mix-up."""
    both = {"AUDIT_LEDGER_DATABASE_URL": POSTGRES, "AUDIT_LEDGER_KEYVAULT_URL": VAULT}
    owner = POSTGRES.replace("ledger:secret-1", "owner:secret-3")

    assert settings(**both, AUDIT_LEDGER_MIGRATE_DATABASE_URL=owner).migrate_database_url == owner
    with pytest.raises(SettingsError, match="another database"):
        settings(**both, AUDIT_LEDGER_MIGRATE_KEYVAULT_URL=owner)


def test_settings_do_not_show_their_secrets() -> None:
    """URLs hold passwords, and settings get printed."""
    shown = repr(settings(AUDIT_LEDGER_DATABASE_URL=POSTGRES, AUDIT_LEDGER_KEYVAULT_URL=VAULT))

    assert "secret" not in shown
