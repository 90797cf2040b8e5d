"""The generations of the KEK: ``preparing`` → ``current`` → ``retiring`` → ``destroyed``.

How one follows the other is in ``rotation.py``, how one ends in ``destruction.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, Engine

from keyvault import database, destruction, epoch_store, rotation, statement_store, store
from keyvault.envelope import WrapKind
from keyvault.epoch_store import BackupKind, EpochRow
from keyvault.errors import DamagedKeyError, NotInitialisedError, ProviderError
from keyvault.journal import Journal
from keyvault.keyring import SERVICE, Keyring
from keyvault.rotation import QUIET, Follower, Rotation
from keyvault.scribe import write_line_in

T = TypeVar("T")

FIRST_EPOCH = 1


def initialise(engine: Engine, keyring: Keyring, journal: Journal, clock: Callable[[], int]) -> None:
    """Make epoch 1 and the service's signing key; doing it again changes nothing, and two processes at once make one.

    ``preparing`` → KEK durable at the provider → signing key → journal line → ``current``. A crash between any two
    leaves ``preparing``, and the next call does the rest; at worst the journal's line stands there twice. Once an epoch
    is current its KEK is never made again: without it the keys are gone, and a new one would only hide that.
    """
    with database.writing(engine) as connection:
        database.lock_epochs(connection)
        if epoch_store.epoch_states(connection).get(FIRST_EPOCH, "preparing") != "preparing":
            return
        epoch_store.insert_epoch(connection, FIRST_EPOCH, keyring.provider.name, clock())
    keyring.provider.create(FIRST_EPOCH)
    with database.writing(engine) as connection:
        database.lock_epochs(connection)
        rows = store.secrets_of(connection, SERVICE)
        if WrapKind.SIGNING_KEY not in rows:
            secret = keyring.new_secret(SERVICE, WrapKind.SIGNING_KEY, FIRST_EPOCH)
            store.insert_secrets(connection, [secret], clock())
    with database.writing(engine) as connection:
        database.lock_epochs(connection)
        if epoch_store.epoch_states(connection)[FIRST_EPOCH] == "preparing":
            write_line_in(connection, keyring, journal, "epoch-created", {"epoch": FIRST_EPOCH}, clock())
            epoch_store.make_epoch_current(connection, FIRST_EPOCH, clock())


def held_epoch(connection: Connection) -> int:
    """The current epoch, held until the transaction ends: a rotation waits for the keys that are being minted."""
    epoch = epoch_store.hold_current_epoch(connection)
    if epoch is None:
        raise NotInitialisedError("the vault has no current epoch; run `audit-ledger init`")
    return epoch


def reread(engine: Engine, work: Callable[[], T]) -> T:
    """Do ``work``; once more if it held a row from before a rewrap while the row's old KEK was destroyed.

    Such a key lives, and its row says by now how to open it. A row that still names a destroyed epoch was given up as
    damaged: :class:`DamagedKeyError`.
    """
    try:
        return work()
    except ProviderError as error:
        if not _is_destroyed(engine, error.epoch):
            raise
    try:
        return work()
    except ProviderError as error:
        if not _is_destroyed(engine, error.epoch):
            raise
        raise DamagedKeyError(f"a row of the vault is under epoch {error.epoch}, which was destroyed") from None


def _is_destroyed(engine: Engine, epoch: int | None) -> bool:
    rows = database.read(engine, epoch_store.all_epochs)
    return any(row.epoch == epoch and row.destroyed_at is not None for row in rows)


def probe(engine: Engine, keyring: Keyring) -> None:
    """Raise unless the provider wraps and unwraps under the current epoch, with the KEK that the vault's keys have."""
    epoch, rows = database.read(
        engine, lambda connection: (epoch_store.current_epoch(connection), store.secrets_of(connection, SERVICE))
    )
    if epoch is None:
        raise NotInitialisedError("the vault has no current epoch; run `audit-ledger init`")
    sample, aad = os.urandom(32), b"audit-ledger v1 probe"
    if keyring.provider.unwrap(epoch, keyring.provider.wrap(epoch, sample, aad), aad) != sample:
        raise ProviderError("the key provider does not give back what it wrapped")
    keyring.open_signing_key(rows)


@dataclass(frozen=True, slots=True)
class EpochOverview:
    """Every epoch, how many rows are wrapped under each, when the newest backup was taken that is known of, and how
    many erasures are not final."""

    rows: Sequence[EpochRow]
    wrapped: Mapping[int, int]
    newest_backup: int | None
    not_final: int


class Epochs:
    """What an operator and the worker do with epochs. Safe to use from several threads and processes."""

    def __init__(self, engine: Engine, keyring: Keyring, journal: Journal, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._parts = (engine, keyring, journal, clock)
        self._clock = clock

    def overview(self) -> EpochOverview:
        """What there is. Goes through all keys."""

        def look(connection: Connection) -> EpochOverview:
            database.take_long(connection)
            return EpochOverview(
                epoch_store.all_epochs(connection),
                epoch_store.count_rows(connection),
                epoch_store.newest_backup(connection),
                statement_store.count_done_without(connection, "final"),
            )

        return database.read(self._engine, look)

    def rotate(self, *, not_since: int | None = None, follower: Follower = QUIET) -> Rotation | None:
        """See :func:`keyvault.rotation.rotate`."""
        return rotation.rotate(*self._parts, not_since=not_since, follower=follower)

    def require_destroyable(self, epoch: int, *, abandon_damaged: bool = False) -> EpochRow:
        """See :func:`keyvault.destruction.require_destroyable`."""
        return destruction.require_destroyable(self._engine, epoch, abandon_damaged=abandon_damaged)

    def destroy(self, epoch: int, *, abandon_damaged: bool = False) -> EpochRow:
        """See :func:`keyvault.destruction.destroy`."""
        # A keeper of other keys (another region, a folder that is not mounted) has none of this epoch either, and would
        # call it gone: so first, whether it is the keeper of the vault's keys.
        engine, keyring, *_ = self._parts
        probe(engine, keyring)
        return destruction.destroy(*self._parts, epoch, abandon_damaged=abandon_damaged)

    def complete_destructions(self) -> tuple[int, ...]:
        """See :func:`keyvault.destruction.complete`."""
        return destruction.complete(*self._parts)

    def note_backup(self, taken_at: int, kind: BackupKind) -> None:
        """A backup of the vault that was begun at this time, and is whole."""
        with database.writing(self._engine) as connection:
            epoch_store.insert_backup(connection, taken_at, kind, self._clock())
