"""A vault on a database of its own, opened as often as a test likes: the world that the vault's contract suite runs in.

On PostgreSQL the vault works with the rights of the service's role and no more, so every test also tests the grants.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from keyvault import tables
from keyvault.database import make_engine, reading, writing
from keyvault.journal import JournalEntry, read
from keyvault.keyring import SERVICE
from keyvault.migrate import migrate
from keyvault.opening import open_vault
from keyvault.values import ErasureEntry, KeyView
from keyvault.vault import Vault
from tests.support.postgres import PostgresCluster

T = TypeVar("T")

LEDGER = UUID("0193a5e0-7c00-7000-8000-00000000000a")
OTHER_LEDGER = UUID("0193a5e0-7c00-7000-8000-00000000000b")
OPERATOR = UUID("0193a5e0-7c00-7000-8000-00000000000c")
NOW = 1_700_000_000_000_000


def erasure_id(number: int) -> UUID:
    """UUIDv7s that sort by number."""
    return UUID(f"0193a5e0-7c00-7000-8000-{number:012x}")


@dataclass
class World:
    """Where the vault lives, and hands that reach around it."""

    url: str
    admin_url: str
    folder: Path
    clock: Callable[[], int] = field(default_factory=lambda: itertools.count(NOW).__next__)
    _opened: list[Vault] = field(default_factory=list)
    _admin: list[Engine] = field(default_factory=list)

    @property
    def journal_path(self) -> Path:
        return self.folder / "erasures.journal"

    @property
    def kek_folder(self) -> Path:
        return self.folder / "kek"

    def open(self) -> Vault:
        """Another vault over the same database, as another process would have it: own engine, own cache."""
        vault = open_vault(self.url, f"file:{self.kek_folder}", f"file:{self.journal_path}", self.clock)
        self._opened.append(vault)
        return vault

    def admin(self) -> Engine:
        """An engine with all rights."""
        if not self._admin:
            self._admin.append(make_engine(self.admin_url))
        return self._admin[0]

    def execute(self, statement: str, **values: Any) -> None:
        """What a hand in the database does."""
        with writing(self.admin()) as connection:
            connection.execute(text(statement), values)

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        """All rows of a table, in a fixed order."""
        with reading(self.admin()) as connection:
            return sorted((tuple(row) for row in connection.execute(tables.metadata.tables[name].select())), key=repr)

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables."""
        return {name: self.rows(name) for name in tables.metadata.tables}

    def journal(self) -> tuple[JournalEntry, ...]:
        """The journal, verified."""
        return read(self.journal_path, Ed25519PublicKey.from_public_bytes(self.open().verifying_key(SERVICE)))

    def close(self) -> None:
        """Give all connections back."""
        for vault in self._opened:
            vault.close()
        for engine in self._admin:
            engine.dispose()


@contextmanager
def sqlite_world(folder: Path) -> Iterator[World]:
    """An empty database in a SQLite file."""
    url = f"sqlite:///{folder}/keyvault.db"
    yield from _closing(World(url, url, folder))


@contextmanager
def postgresql_world(cluster: PostgresCluster, folder: Path) -> Iterator[World]:
    """An empty database on the server, and a role for the service without any right yet."""
    admin_url = cluster.create_database()
    name = make_url(admin_url).database
    assert name is not None
    yield from _closing(World(cluster.url(name, cluster.create_role()), admin_url, folder))


def service_role(world: World) -> str | None:
    """The role that the vault works with."""
    return make_url(world.url).username


def set_up(world: World) -> Vault:
    """Migrated, initialised, and with two ledgers."""
    migrate(world.admin(), service_role(world))
    vault = world.open()
    vault.initialise()
    for ledger_id in (LEDGER, OTHER_LEDGER):
        vault.create_ledger(ledger_id)
    return vault


def key_of(vault: Vault, name: str, purpose: str = "") -> bytes:
    """The key id of a subject's key, minted if it must be."""
    reservation = vault.reserve(LEDGER, {}, [(name, purpose)], mint=True)
    return reservation.keys[reservation.subjects[name], purpose].key_id


def status_of(vault: Vault, key_id: bytes) -> str | None:
    """The status of one key."""
    view = view_of(vault, key_id)
    return None if view is None else view.status


def view_of(vault: Vault, key_id: bytes) -> KeyView | None:
    """The view of one key."""
    return vault.look_up_keys(LEDGER, [key_id]).get(key_id)


def begin(
    vault: Vault, subject: str | bytes, number: int = 1, purposes: Sequence[str] | None = None, *, block: bool = False
) -> ErasureEntry:
    """Step 1 of an erasure."""
    return vault.begin_erasure(
        LEDGER,
        subject,
        erasure_id=erasure_id(number),
        purposes=purposes,
        ground="17(1)(b)",
        reference="case 1",
        name_commitment=b"c" * 32,
        requested_at=NOW + number,
        requested_by=OPERATOR,
        block_unknown=block,
    )


def erase(vault: Vault, subject: str | bytes, number: int = 1, purposes: Sequence[str] | None = None) -> ErasureEntry:
    """Steps 1, 3 and 4 of an erasure."""
    entry = begin(vault, subject, number, purposes)
    return vault.finish_erasure(LEDGER, entry.erasure_id, NOW + 1000 + number)


def at_once(*works: Callable[[], T]) -> list[T]:
    """Run each in a thread of its own, all starting at the same moment."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], T]) -> T:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def _closing(world: World) -> Iterator[World]:
    try:
        yield world
    finally:
        world.close()
