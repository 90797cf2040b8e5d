"""Destroying an epoch: from then on every older copy of what was wrapped under it is noise.

1. Checks; each refuses with its reason and what to do. The last of them stand in the transaction of step 2.
2. The order: ``destroyed_at``. From here on there is no way back, and whoever finds the order carries it out.
3. The journal's line ``epoch-destroyed``. Before the act: a line says what must not exist, so that a crash, or a vault
   restored from before the order, leaves something that can be finished. Behind the act, a crash in between would leave
   a KEK that is missing and nothing that says why.
4. The provider destroys the KEK.
5. ``destroyed``, with the time at which the keeper's last copy is gone.

A crash leaves one of these states, and the next call goes on from there (I12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, Engine

from keyvault import database, epoch_store, mark_store, replicas, rotation
from keyvault.epoch_store import EpochRow
from keyvault.errors import EpochRefusedError
from keyvault.journal import Journal
from keyvault.keyring import Keyring
from keyvault.scribe import write_line

_BACK_UP: Final = "run `audit-ledger backup DIR`, or say with --backup-taken TIME when one was taken otherwise"


def require_destroyable(engine: Engine, epoch: int, *, abandon_damaged: bool) -> EpochRow:
    """Step 1, without the replicas: raise :class:`EpochRefusedError` unless the epoch may be destroyed, or is already.

    ``abandon_damaged``: rows that do not unwrap do not stand in the way, and are lost for good.
    """
    return database.read(engine, lambda connection: _checked(connection, epoch, abandon_damaged))


def destroy(
    engine: Engine,
    keyring: Keyring,
    journal: Journal,
    clock: Callable[[], int],
    epoch: int,
    *,
    abandon_damaged: bool = False,
) -> EpochRow:
    """Destroy the KEK of an epoch for good, and give what is known of the epoch then. Doing it again changes nothing,
    and completes what was interrupted.

    Raises :class:`EpochRefusedError`, and :class:`~keyvault.errors.BusyError` while another process is at it.
    """
    with database.only_one(engine):
        row = require_destroyable(engine, epoch, abandon_damaged=abandon_damaged)
        if row.destroyed_at is None:
            if abandon_damaged:
                # What counted as damaged may have been mended since: only what does not unwrap now is given up.
                rotation.rewrap_again(engine, keyring, clock)
            replicas.require_caught_up(engine)
            with database.writing(engine) as connection:
                database.take_long(connection)
                database.lock_epochs(connection)
                epoch_store.hold_retiring(connection)
                row = _checked(connection, epoch, abandon_damaged)
                epoch_store.order_destruction(connection, epoch, clock())
        if row.state != "destroyed" or epoch in keyring.provider.epochs():
            _carry_out(engine, keyring, journal, clock, epoch)
    return next(row for row in database.read(engine, epoch_store.all_epochs) if row.epoch == epoch)


def complete(engine: Engine, keyring: Keyring, journal: Journal, clock: Callable[[], int]) -> tuple[int, ...]:
    """Carry out what was ordered and then interrupted. Gives the epochs."""
    ordered = [row.epoch for row in database.read(engine, epoch_store.all_epochs) if row.ordered]
    if not ordered:
        return ()
    with database.only_one(engine):
        for epoch in ordered:
            _carry_out(engine, keyring, journal, clock, epoch)
    return tuple(ordered)


def _carry_out(engine: Engine, keyring: Keyring, journal: Journal, clock: Callable[[], int], epoch: int) -> None:
    """Steps 3 to 5. Nothing that lives is under an epoch whose destruction was ordered: if there is, a hand has put the
    order there, or the rows."""
    database.read(engine, lambda connection: _require_unused(connection, epoch))
    line = write_line(engine, keyring, journal, "epoch-destroyed", {"epoch": epoch}, clock())
    gone_at = keyring.provider.destroy(epoch)
    with database.writing(engine) as connection:
        database.lock_epochs(connection)
        epoch_store.mark_destroyed(connection, epoch, gone_at if gone_at is not None else clock())
        mark_store.note_journal(connection, line)


def _require_unused(connection: Connection, epoch: int) -> None:
    database.take_long(connection)
    row = next((one for one in epoch_store.all_epochs(connection) if one.epoch == epoch), None)
    left = epoch_store.count_under(connection, epoch)
    if row is None or left > (row.damaged or 0):
        raise EpochRefusedError(
            "not-empty", f"{left} rows are under epoch {epoch}, whose destruction was ordered: nothing was destroyed"
        )


def _checked(connection: Connection, epoch: int, abandon_damaged: bool) -> EpochRow:
    rows = {row.epoch: row for row in epoch_store.all_epochs(connection)}
    row = rows.get(epoch)
    if row is None:
        raise EpochRefusedError("unknown", f"there is no epoch {epoch}; see `audit-ledger epochs list`")
    if row.destroyed_at is not None:
        return row
    if row.state != "retiring":
        raise EpochRefusedError(
            "in-use", f"epoch {epoch} is {row.state}: living keys need it; run `audit-ledger epochs rotate` first"
        )
    if row.rewrapped_at is None:
        raise EpochRefusedError(
            "not-rewrapped",
            f"a rotation has left keys under epoch {epoch}; run `audit-ledger epochs rotate`, which finishes it",
        )
    _require_empty(connection, row, abandon_damaged)
    newest = epoch_store.newest_backup(connection)
    if newest is None or newest <= row.rewrapped_at:
        raise EpochRefusedError(
            "no-backup",
            f"no backup of the vault is known that is newer than the rewrap of epoch {epoch}, and older ones will open "
            f"nothing without its KEK: {_BACK_UP}",
        )
    return row


def _require_empty(connection: Connection, row: EpochRow, abandon_damaged: bool) -> None:
    """Counted again: a hand or a restored backup could have brought rows back since the proof."""
    database.take_long(connection)
    left = epoch_store.count_under(connection, row.epoch)
    if left > (row.damaged or 0):
        raise EpochRefusedError(
            "not-empty",
            f"{left} rows are under epoch {row.epoch} again; run `audit-ledger epochs rotate`, which rewraps them",
        )
    if left and not abandon_damaged:
        raise EpochRefusedError(
            "damaged",
            f"{left} rows under epoch {row.epoch} do not unwrap (`audit-ledger epochs rotate` names them): put them "
            "back from a backup and rotate again. With --abandon-damaged they are given up: what is sealed under those "
            "keys can then never be read again, not even with a backup",
        )
