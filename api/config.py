"""The settings: read from the environment once, checked before anything is opened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from ledger.services.projecting.shipped import SHIPPED

NONE: Final = "none"
SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql+psycopg"
WARN: Final = "warn"
STOP: Final = "stop"
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
DEFAULT_THREADS: Final = 16
POSTGRESQL_WORKERS: Final = 2
LARGEST_PORT: Final = 65535
MOST_WORKERS: Final = 64
MOST_DAYS: Final = 36_500
DEFAULT_ROTATE_DAYS: Final = 90
DEFAULT_VERIFY_DAYS: Final = 7
DEFAULT_ALARM_DAYS: Final = 120
"""A rotation's turn, and a month to destroy the old epoch."""
MOST_THREADS: Final = 20
"""The connection pools hold 20 connections: further threads would only wait for one."""

_KEK_SCHEMES: Final = ("pkcs11", "awskms")
"""Besides ``file``. What follows the scheme is the key provider's to check."""

_ORIGIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_PUBLIC_KEY: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,6}", re.ASCII)


class SettingsError(Exception):
    """The settings cannot be meant. The message names the setting and what to do; it never repeats a password."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one service. URLs hold passwords, so they are not shown."""

    home: Path
    """Folder of the embedded default: databases, KEKs, journal, admin key. Absolute."""
    database_url: str = field(repr=False)
    """The ledger database: ``sqlite:///PATH`` or ``postgresql+psycopg://…``."""
    keyvault_url: str = field(repr=False)
    """The vault's database, another one than the ledger's."""
    kek: str = field(repr=False)
    """The key provider: ``file:FOLDER``, ``pkcs11:…`` or ``awskms:…``."""
    journal: str
    """The journal: ``file:PATH``."""
    journal_key: bytes | None
    """The public key that the journal's lines must verify under, 32 bytes. None: the one in the home folder, if there
    is one."""
    migrate_database_url: str | None = field(repr=False)
    """The owner of the ledger database's tables, for ``migrate`` only. None: the service's own role."""
    migrate_keyvault_url: str | None = field(repr=False)
    """The owner of the vault's tables, for ``migrate`` only. None: the service's own role."""
    host: str
    """The address that the service listens on."""
    port: int
    """1…65535."""
    origin: str
    """The host name in the names of the ledgers' public keys (``origin/ledger``)."""
    workers: int
    """Processes that serve requests."""
    threads: int
    """Requests that each process works on at the same time."""
    log_level: str
    """One of ``LOG_LEVELS``."""
    projections: tuple[str, ...]
    """The projections that a worker runs, by name."""
    rotate_days: int
    """A worker rotates the KEK when the current epoch is older. 0: never."""
    kek_copies_days: int
    """How long copies of a KEK are kept elsewhere after it was destroyed, as the operator declares."""
    final_alarm_days: int
    """An erasure that is not final after so long raises an alarm. 0: never."""
    witnesses: Path | None
    """The policy file that names the witnesses of the checkpoints (C2SP tlog-policy). None: there are none."""
    witnesses_away: str
    """What happens to a checkpoint that the quorum has not cosigned: ``WARN``, it is published all the same; ``STOP``:
    not before."""
    verify_days: int
    """A worker verifies each ledger all through after so many days. 0: never."""
    pg_dump: str
    """The program ``pg_dump``: a name on the PATH, or a path. ``pg_restore`` is the one beside it."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings; a setting that is empty counts as absent. Raises ``SettingsError``."""
        env = {name: value for name, value in environment.items() if value}
        home = Path(env.get("AUDIT_LEDGER_HOME", "./var")).absolute()
        database_url = env.get("AUDIT_LEDGER_DATABASE_URL", f"sqlite:///{home}/ledger.db")
        keyvault_url = env.get("AUDIT_LEDGER_KEYVAULT_URL", f"sqlite:///{home}/keyvault.db")
        kinds = [
            _check_url("AUDIT_LEDGER_DATABASE_URL", database_url),
            _check_url("AUDIT_LEDGER_KEYVAULT_URL", keyvault_url),
        ]
        _check_apart(database_url, keyvault_url)
        return cls(
            home=home,
            database_url=database_url,
            keyvault_url=keyvault_url,
            kek=_scheme(env, "AUDIT_LEDGER_KEK", f"file:{home}/kek", others=_KEK_SCHEMES),
            journal=_scheme(env, "AUDIT_LEDGER_JOURNAL", f"file:{home}/erasures.journal"),
            journal_key=_journal_key(env.get("AUDIT_LEDGER_JOURNAL_KEY")),
            migrate_database_url=_owner_url(env, "AUDIT_LEDGER_MIGRATE_DATABASE_URL", database_url),
            migrate_keyvault_url=_owner_url(env, "AUDIT_LEDGER_MIGRATE_KEYVAULT_URL", keyvault_url),
            host=env.get("AUDIT_LEDGER_HOST", "127.0.0.1"),
            port=_number(env, "PORT", 8080, LARGEST_PORT),
            origin=_origin(env.get("AUDIT_LEDGER_ORIGIN", "localhost")),
            workers=_workers(env, both_on_servers=kinds == [POSTGRESQL, POSTGRESQL]),
            threads=_number(env, "AUDIT_LEDGER_THREADS", DEFAULT_THREADS, MOST_THREADS),
            log_level=_log_level(env.get("AUDIT_LEDGER_LOG_LEVEL", "info")),
            projections=_projections(env.get("AUDIT_LEDGER_PROJECTIONS", ",".join(SHIPPED))),
            rotate_days=_rotate_days(env),
            kek_copies_days=_number(env, "AUDIT_LEDGER_KEK_COPIES_DAYS", 0, MOST_DAYS, least=0),
            final_alarm_days=_number(env, "AUDIT_LEDGER_FINAL_ALARM_DAYS", DEFAULT_ALARM_DAYS, MOST_DAYS, least=0),
            witnesses=_file(env.get("AUDIT_LEDGER_WITNESSES")),
            witnesses_away=_witnesses_away(env.get("AUDIT_LEDGER_WITNESSES_AWAY", WARN)),
            verify_days=_number(env, "AUDIT_LEDGER_VERIFY_DAYS", DEFAULT_VERIFY_DAYS, MOST_DAYS, least=0),
            pg_dump=env.get("AUDIT_LEDGER_PG_DUMP", "pg_dump"),
        )


def _check_url(name: str, url: str) -> str:
    """The kind of database of a URL."""
    parts = _split(name, url)
    if parts.scheme == SQLITE:
        path = parts.path[1:]
        if parts.netloc or not path or path == ":memory:" or parts.query or parts.fragment:
            raise SettingsError(
                f"{name}: an SQLite database is a file, sqlite:///PATH without anything behind the path"
            )
        return SQLITE
    if parts.scheme == POSTGRESQL:
        if not parts.path.strip("/"):
            raise SettingsError(f"{name}: the URL names no database, postgresql+psycopg://USER:PASSWORD@HOST/DATABASE")
        return POSTGRESQL
    raise SettingsError(f"{name} must begin with sqlite:///PATH or {POSTGRESQL}://USER:PASSWORD@HOST/DATABASE")


def _split(name: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is not a port
    except ValueError:
        raise SettingsError(
            f"{name} is not a URL; special characters of a password are written as %40 and so on"
        ) from None
    return parts


def _check_apart(database_url: str, keyvault_url: str) -> None:
    # One database would mean one backup: whoever restores it would bring shredded keys back with it (I8).
    if _place(database_url) == _place(keyvault_url):
        raise SettingsError(
            "AUDIT_LEDGER_KEYVAULT_URL names the ledger's database: give the key vault a database of its own, best on "
            "another server, so that no backup holds both"
        )


def _place(url: str) -> tuple[object, ...]:
    parts = urlsplit(url)
    if parts.scheme == SQLITE:
        return (SQLITE, Path(parts.path[1:]).resolve())
    query = parse_qs(parts.query)
    host = query.get("host", [parts.hostname or "localhost"])[0].lower()
    port = query.get("port", [str(parts.port or 5432)])[0]
    local = host in ("localhost", "127.0.0.1", "::1") or host.startswith("/")
    return (POSTGRESQL, "localhost" if local else host, port, query.get("dbname", [unquote(parts.path.strip("/"))])[0])


def _owner_url(env: Mapping[str, str], name: str, service_url: str) -> str | None:
    url = env.get(name)
    if url is None:
        return None
    if _check_url(name, url) != POSTGRESQL:
        raise SettingsError(f"{name} is for PostgreSQL, where tables can belong to another role than the service's")
    if _place(url) != _place(service_url):
        raise SettingsError(f"{name} names another database than the service uses: only user and password may differ")
    return url


def _scheme(env: Mapping[str, str], name: str, default: str, others: tuple[str, ...] = ()) -> str:
    value = env.get(name, default)
    scheme, _, rest = value.partition(":")
    if scheme in others and rest:
        return value
    if scheme != "file" or not rest:
        # Nothing of the value: other providers' settings carry PINs.
        supported = " or ".join(("file:PATH", *(f"{other}:…" for other in others)))
        raise SettingsError(f"{name} must be {supported}")
    return f"file:{Path(rest).absolute()}"


def _journal_key(value: str | None) -> bytes | None:
    if value is not None and _PUBLIC_KEY.fullmatch(value) is None:
        raise SettingsError("AUDIT_LEDGER_JOURNAL_KEY must be 64 hexadecimal digits, as in the file journal-key.pub")
    return None if value is None else bytes.fromhex(value)


def _number(env: Mapping[str, str], name: str, default: int, largest: int, *, least: int = 1) -> int:
    text = env.get(name, str(default))
    if _NUMBER.fullmatch(text) is None or not least <= int(text) <= largest:
        raise SettingsError(f"{name} must be a whole number from {least} to {largest}")
    return int(text)


def _workers(env: Mapping[str, str], *, both_on_servers: bool) -> int:
    # SQLite has one writer at a time: a second process would only wait for the first.
    return _number(env, "AUDIT_LEDGER_WORKERS", POSTGRESQL_WORKERS if both_on_servers else 1, MOST_WORKERS)


def _rotate_days(env: Mapping[str, str]) -> int:
    # A new KEK in a file has to be copied, to safekeeping and to the other machines, before anything hangs on it: no
    # program makes one that nobody has asked for. Other keepers see to that themselves.
    in_files = env.get("AUDIT_LEDGER_KEK", "file:").startswith("file:")
    return _number(env, "AUDIT_LEDGER_ROTATE_DAYS", 0 if in_files else DEFAULT_ROTATE_DAYS, MOST_DAYS, least=0)


def _origin(value: str) -> str:
    if _ORIGIN.fullmatch(value) is None:
        raise SettingsError("AUDIT_LEDGER_ORIGIN must be a host name, lower-case letters, digits, '.' and '-'")
    return value


def _file(value: str | None) -> Path | None:
    return Path(value).absolute() if value is not None else None


def _witnesses_away(value: str) -> str:
    if value not in (WARN, STOP):
        raise SettingsError(f"AUDIT_LEDGER_WITNESSES_AWAY must be {WARN} or {STOP}")
    return value


def _log_level(value: str) -> str:
    if value not in LOG_LEVELS:
        raise SettingsError(f"AUDIT_LEDGER_LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}")
    return value


def _projections(value: str) -> tuple[str, ...]:
    names = () if value == NONE else tuple(value.split(","))
    unknown = set(names).difference(SHIPPED)
    if unknown:
        raise SettingsError(
            f"AUDIT_LEDGER_PROJECTIONS must be {NONE}, or some of {', '.join(SHIPPED)}, with commas between"
        )
    return names
