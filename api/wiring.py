"""The one place where things are put together: store, vault, clock, randomness and alarms of one service."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit
from uuid import UUID

from sqlalchemy import Engine

from api.config import Settings, SettingsError
from api.private_files import write_private
from api.witnesses import open_witnesses
from keyvault import clear_names
from keyvault import database as vault_database
from keyvault import migrate as vault_migrations
from keyvault.errors import DamagedKeyError, KeyVaultError, NotAuthenticError, NotInitialisedError, ProviderError
from keyvault.finality import DAY
from keyvault.opening import open_vault
from keyvault.vault import Vault
from ledger.errors import LedgerError
from ledger.services.dependencies import Dependencies
from ledger.storage import migrate as ledger_migrations
from ledger.storage.catalogue import SqlCatalogues
from ledger.storage.database import open_engine
from ledger.storage.derived import open_derived
from ledger.storage.store import SqlStore
from ledger.storage.transparency import SqlTransparency

OK: Final = "ok"
JOURNAL_KEY_FILE: Final = "journal-key.pub"
MIGRATE_HINT: Final = "run `audit-ledger migrate` (before the first start: `audit-ledger init`)"

_log = logging.getLogger("audit_ledger")


class Counts(Protocol):
    """Who counts what happens inside. Called by any thread; must not raise."""

    def unwrap(self, *, remembered: bool) -> None:
        """A key was needed."""

    def alarm(self) -> None:
        """Something stored was not what was recorded."""

    def witness_failed(self, witness: str, outcome: str) -> None:
        """A witness has not cosigned what it was asked to."""


@dataclass(frozen=True, slots=True)
class Service:
    """An open service, shared by the threads of one process. Not to be taken across a fork: open one there."""

    settings: Settings
    deps: Dependencies
    store: SqlStore
    vault: Vault
    engine: Engine
    """Of the ledger database."""

    def close(self) -> None:
        """Give the connections back."""
        self.store.close()
        self.vault.close()
        if self.deps.witnesses is not None:
            self.deps.witnesses.close()

    def check(self) -> Mapping[str, str]:
        """Each dependency by name with ``ok`` or what is wrong with it; the texts hold nothing of anybody's data."""
        ledger, ledger_pending = self._database(lambda: ledger_migrations.pending_migrations(self.engine))
        vault, vault_pending = self._database(lambda: vault_migrations.pending_migrations(self.vault.engine))
        kek, journal = self._keys() if vault == OK else ("cannot be looked at without the key vault",) * 2
        pending = [
            name for name, is_pending in (("ledger", ledger_pending), ("key vault", vault_pending)) if is_pending
        ]
        return {
            "ledger-database": ledger,
            "key-vault": vault,
            "kek": kek,
            "journal": journal,
            "migrations": f"missing for the {' and the '.join(pending)}: {MIGRATE_HINT}" if pending else OK,
        }

    @staticmethod
    def _database(pending: Callable[[], bool]) -> tuple[str, bool]:
        try:
            return OK, pending()
        except (LedgerError, KeyVaultError) as error:
            return str(error), False

    def _keys(self) -> tuple[str, str]:
        """The state of KEK and journal. ``Vault.check`` looks at the KEK first."""
        try:
            self.vault.check()
        except (ProviderError, NotInitialisedError, DamagedKeyError, NotAuthenticError) as error:
            return str(error), "cannot be looked at without the KEK"
        except KeyVaultError as error:
            return OK, str(error)
        return OK, OK


def now() -> int:
    """Microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


def raise_alarm(ledger_id: UUID, position: int, part: int | None, what: str, /) -> None:
    """Report that something stored is not what was recorded (I9): one line in the log, without anybody's data."""
    _log.error("integrity-alarm", extra={"ledger_id": str(ledger_id), "position": position, "part": part, "what": what})


def open_service(settings: Settings, counts: Counts | None = None) -> Service:
    """Put a service together. Connects to nothing yet; ``check`` tells whether everything is there."""

    def note_unwrap(remembered: bool) -> None:
        if counts is not None:
            counts.unwrap(remembered=remembered)

    def alarm(ledger_id: UUID, position: int, part: int | None, what: str, /) -> None:
        raise_alarm(ledger_id, position, part, what)
        if counts is not None:
            counts.alarm()

    witnesses = open_witnesses(settings, counts.witness_failed if counts is not None else None)
    engine = open_engine(settings.database_url)
    store = SqlStore(engine)
    vault = open_vault(
        settings.keyvault_url,
        settings.kek,
        settings.journal,
        now,
        note_unwrap=note_unwrap,
        copies_kept=settings.kek_copies_days * DAY,
        home=settings.home,
        journal_key=pinned_journal_key(settings),
    )
    # mypy sees here that SqlStore and Vault are what ledger.ports asks for.
    deps = Dependencies(
        store=store,
        vault=vault,
        catalogues=SqlCatalogues(engine),
        derived=open_derived(engine),
        clock=now,
        entropy=os.urandom,
        alarm=alarm,
        guard=vault.guard,
        transparency=SqlTransparency(engine),
        signed=vault.signed_checkpoints,
        origin=settings.origin,
        witnesses=witnesses,
    )
    return Service(settings, deps, store, vault, engine)


def pinned_journal_key(settings: Settings) -> bytes | None:
    """The public key that the journal must verify under. Raises ``SettingsError`` for a file that holds none."""
    if settings.journal_key is not None:
        return settings.journal_key
    path = settings.home / JOURNAL_KEY_FILE
    try:
        return bytes.fromhex(path.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} holds no public key; put it back, or say AUDIT_LEDGER_JOURNAL_KEY") from error


def pin_journal_key(service: Service) -> None:
    """Write the public key of the journal into the home folder, unless one is pinned already."""
    path = service.settings.home / JOURNAL_KEY_FILE
    if service.settings.journal_key is None and not path.exists():
        write_private(path, service.vault.journal_verifying_key().hex().encode() + b"\n")


def prepare_home(settings: Settings) -> None:
    """Make the home folder, closed to everybody else."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.home.chmod(0o700)


def migrate_databases(settings: Settings, follower: Callable[[int], None] = lambda sealed: None) -> None:
    """Bring both databases to the newest schema; doing it again changes nothing.

    Where an owner role migrates, the service's role is granted what it needs and no more. Names that an older version
    left in clear are sealed, for which the KEKs are needed; ``follower`` is told how many so far.
    """
    engine = open_engine(settings.migrate_database_url or settings.database_url)
    try:
        role = _user(settings.database_url) if settings.migrate_database_url else None
        ledger_migrations.migrate(engine, role)
    finally:
        engine.dispose()
    engine = vault_database.make_engine(settings.migrate_keyvault_url or settings.keyvault_url)
    try:
        role = _user(settings.keyvault_url) if settings.migrate_keyvault_url else None
        vault_migrations.migrate(engine, role)
        clear = clear_names.are_left(engine)
    finally:
        engine.dispose()
    if clear:
        url = settings.migrate_keyvault_url or settings.keyvault_url
        vault = open_vault(url, settings.kek, settings.journal, now)
        try:
            vault.seal_clear_names(follower)
        finally:
            vault.close()


def _user(url: str) -> str | None:
    user = urlsplit(url).username
    return unquote(user) if user else None
