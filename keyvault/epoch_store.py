"""The vault's SQL about epochs, and about what is wrapped under them: one function a statement.

A rotation goes through keys that nobody may have damaged yet, or somebody has: so these statements read raw values, and
a row that no key can have comes out as damaged (``row`` is None) instead of stopping the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import (
    Connection,
    Label,
    bindparam,
    delete,
    exists,
    func,
    select,
    type_coerce,
    update,
)
from sqlalchemy.types import NullType

from keyvault.database import insert_missing, share_minting, stop_minting
from keyvault.envelope import WrapKind
from keyvault.link_store import count_links, count_links_under
from keyvault.store import KeyRow, SecretRow, as_uuid, chunks, key_row
from keyvault.tables import backups, epochs, fences, ledger_secrets, subject_keys

EpochState = Literal["preparing", "current", "retiring", "destroyed"]
BackupKind = Literal["made", "attested"]


@dataclass(frozen=True, slots=True)
class EpochRow:
    """One epoch. ``damaged``: how many rows under it did not unwrap when the others had been rewrapped. Times are
    microseconds since 1970 UTC; see ``tables.py`` for which is which."""

    epoch: int
    provider: str
    state: EpochState
    prepared_at: int
    current_at: int | None
    rewrapped_at: int | None
    damaged: int | None
    retired_at: int | None
    destroyed_at: int | None
    gone_at: int | None

    @property
    def being_rewrapped(self) -> bool:
        """Whether a rotation has left it and not yet come to its end."""
        return self.state == "retiring" and self.rewrapped_at is None

    @property
    def ordered(self) -> bool:
        """Whether its destruction was ordered, and is not known to be done."""
        return self.state == "retiring" and self.destroyed_at is not None


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key's row as a rotation comes across it. ``row`` is None when no key can have such a row; ``fenced``: the key
    was shredded, and a restored backup or a hand has brought the row back."""

    key_id: Any
    epoch: int
    row: KeyRow | None
    fenced: bool

    @property
    def title(self) -> str:
        """What to call it."""
        return f"the key {self.key_id.hex()}" if isinstance(self.key_id, bytes) else "a key without a key id"


@dataclass(frozen=True, slots=True)
class FoundSecret:
    """The same of a ledger's own secret."""

    title: str
    epoch: int
    row: SecretRow | None


# Epochs


def all_epochs(connection: Connection) -> Sequence[EpochRow]:
    """Every epoch, oldest first."""
    return [EpochRow(*row) for row in connection.execute(select(epochs).order_by(epochs.c.epoch))]


def hold_retiring(connection: Connection) -> Mapping[int, EpochRow]:
    """The retiring epochs by number, for this transaction alone: nobody else changes their states. Nobody mints under
    them any more, so this waits for no writer."""
    statement = select(epochs).where(epochs.c.state == "retiring").order_by(epochs.c.epoch).with_for_update()
    return {row.epoch: EpochRow(*row) for row in connection.execute(statement)}


def epoch_states(connection: Connection) -> Mapping[int, str]:
    """Every epoch and its state."""
    return {row.epoch: row.state for row in connection.execute(select(epochs.c.epoch, epochs.c.state))}


def current_epoch(connection: Connection) -> int | None:
    """The epoch that new keys are wrapped under."""
    return connection.execute(select(epochs.c.epoch).where(epochs.c.state == "current")).scalar_one_or_none()


def hold_current_epoch(connection: Connection) -> int | None:
    """The current epoch, which stays current until this transaction ends."""
    share_minting(connection)
    statement = select(epochs.c.epoch).where(epochs.c.state == "current").with_for_update(read=True)
    return connection.execute(statement).scalar_one_or_none()


def newest_epoch(connection: Connection) -> int | None:
    """The highest epoch that exists, in whatever state."""
    newest: int | None = connection.execute(select(func.max(epochs.c.epoch))).scalar_one()
    return newest


def insert_epoch(connection: Connection, epoch: int, provider: str, now: int) -> None:
    """A new epoch, preparing."""
    insert_missing(
        connection, epochs, [{"epoch": epoch, "provider": provider, "state": "preparing", "prepared_at": now}]
    )


def retire_current_epoch(connection: Connection) -> None:
    """Current → retiring, whichever it is. Waits for those who mint under it."""
    stop_minting(connection)
    connection.execute(update(epochs).where(epochs.c.state == "current").values(state="retiring"))


def make_epoch_current(connection: Connection, epoch: int, now: int) -> None:
    """Preparing → current."""
    connection.execute(
        update(epochs)
        .where(epochs.c.epoch == epoch, epochs.c.state == "preparing")
        .values(state="current", current_at=now)
    )


def mark_rewrapped(connection: Connection, epoch: int, *, at: int | None, damaged: int, retired_at: int | None) -> None:
    """A retiring epoch was gone through: when, how many damaged rows are left, and since when it is proven empty."""
    connection.execute(
        update(epochs)
        .where(epochs.c.epoch == epoch, epochs.c.state == "retiring")
        .values(rewrapped_at=at, damaged=damaged, retired_at=retired_at)
    )


def order_destruction(connection: Connection, epoch: int, now: int) -> None:
    """From here on there is no way back: whoever finds the order carries it out."""
    connection.execute(
        update(epochs)
        .where(epochs.c.epoch == epoch, epochs.c.state == "retiring", epochs.c.destroyed_at.is_(None))
        .values(destroyed_at=now)
    )


def mark_destroyed(connection: Connection, epoch: int, gone_at: int) -> None:
    """Retiring → destroyed. Doing it again can only make ``gone_at`` later."""
    later = func.coalesce(epochs.c.gone_at, gone_at) < gone_at
    connection.execute(
        update(epochs)
        .where(epochs.c.epoch == epoch, epochs.c.destroyed_at.is_not(None))
        .where((epochs.c.gone_at.is_(None)) | later)
        .values(state="destroyed", gone_at=gone_at)
    )


def retire_unused(connection: Connection, epoch: int, at: int) -> None:
    """An epoch that no row of this vault is under, and none will be: any state but destroyed → retiring, and empty."""
    connection.execute(
        update(epochs)
        .where(epochs.c.epoch == epoch, epochs.c.state.in_(("preparing", "retiring")))
        .values(state="retiring", rewrapped_at=at, damaged=0, retired_at=at)
    )


# What is wrapped under them


def keys_under(connection: Connection, old: Collection[int], after: Any, limit: int) -> Sequence[FoundKey]:
    """The next keys under these epochs, in order of key id, from the one after ``after`` (None: the first)."""
    fenced = exists().where(fences.c.key_id == subject_keys.c.key_id).label("fenced")
    statement = (
        select(*_raw(subject_keys), fenced)
        .where(subject_keys.c.epoch.in_(sorted(old)))
        .order_by(subject_keys.c.key_id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(subject_keys.c.key_id > type_coerce(after, subject_keys.c.key_id.type))
    return [_found_key(row) for row in connection.execute(statement)]


def secrets_under(connection: Connection, old: Collection[int]) -> Sequence[FoundSecret]:
    """The secrets under these epochs, in order of their keys: a few a ledger, so all at once."""
    statement = (
        select(*_raw(ledger_secrets))
        .where(ledger_secrets.c.epoch.in_(sorted(old)))
        .order_by(ledger_secrets.c.ledger_id, ledger_secrets.c.kind)
    )
    return [_found_secret(row) for row in connection.execute(statement)]


def count_rows(connection: Connection) -> Mapping[int, int]:
    """Epoch → how many rows are wrapped under it: keys, secrets and link keys."""
    found = dict(count_links(connection))
    for table in (subject_keys, ledger_secrets):
        statement = select(table.c.epoch, func.count()).group_by(table.c.epoch)
        for epoch, count in connection.execute(statement):
            found[epoch] = found.get(epoch, 0) + count
    return found


def count_under(connection: Connection, epoch: int) -> int:
    """How many rows are wrapped under this epoch."""
    return count_links_under(connection, epoch) + sum(
        connection.execute(select(func.count()).select_from(table).where(table.c.epoch == epoch)).scalar_one()
        for table in (subject_keys, ledger_secrets)
    )


def rewrap_keys(connection: Connection, rows: Sequence[tuple[KeyRow, KeyRow]]) -> Sequence[KeyRow]:
    """Put the new wraps in place of the old ones, and give the old rows of which that may have been done.

    A row that somebody holds (an erasure, say) is left out: waiting for it could end in a deadlock. I8: a row that is
    gone stays gone, and one that was rewrapped by others stays as it is.
    """
    held = _hold_free(connection, [old.key_id for old, _ in rows])
    free = [(old, new) for old, new in rows if old.key_id in held]
    if free:
        values = [
            {"id": old.key_id, "old": old.epoch, "old_wrap": old.wrapped, "new": new.epoch, "wrap": new.wrapped}
            for old, new in free
        ]
        connection.execute(_REWRAP_KEY, values)
    return [old for old, _ in free]


def rewrap_secrets(connection: Connection, rows: Sequence[tuple[SecretRow, SecretRow]]) -> None:
    """Put the new wraps in place of the old ones."""
    values = [
        {
            "id": old.ledger_id,
            "of_kind": int(old.kind),
            "old": old.epoch,
            "old_wrap": old.wrapped,
            "new": new.epoch,
            "wrap": new.wrapped,
        }
        for old, new in rows
    ]
    if values:
        connection.execute(_REWRAP_SECRET, values)


def delete_fenced(connection: Connection, key_ids: Collection[bytes]) -> int:
    """I8: rows of keys that were shredded, and that something has brought back."""
    deleted = 0
    for chunk in chunks(key_ids):
        behind_fence = exists().where(fences.c.key_id == subject_keys.c.key_id)
        free = _hold_free(connection, chunk)
        statement = delete(subject_keys).where(subject_keys.c.key_id.in_(sorted(free)), behind_fence)
        deleted += connection.execute(statement).rowcount
    return deleted


_REWRAP_KEY: Final = (
    update(subject_keys)
    .where(
        subject_keys.c.key_id == bindparam("id"),
        subject_keys.c.epoch == bindparam("old"),
        subject_keys.c.wrapped_dek == bindparam("old_wrap"),
    )
    .values(wrapped_dek=bindparam("wrap"), epoch=bindparam("new"))
)
_REWRAP_SECRET: Final = (
    update(ledger_secrets)
    .where(
        ledger_secrets.c.ledger_id == bindparam("id"),
        ledger_secrets.c.kind == bindparam("of_kind"),
        ledger_secrets.c.epoch == bindparam("old"),
        ledger_secrets.c.wrapped == bindparam("old_wrap"),
    )
    .values(wrapped=bindparam("wrap"), epoch=bindparam("new"))
)


def _hold_free(connection: Connection, key_ids: Collection[bytes]) -> set[bytes]:
    """Those of these rows that nobody else holds, held until the transaction ends."""
    found: set[bytes] = set()
    for chunk in chunks(key_ids):
        statement = (
            select(subject_keys.c.key_id)
            .where(subject_keys.c.key_id.in_(chunk))
            .order_by(subject_keys.c.key_id)
            .with_for_update(skip_locked=True)
        )
        found.update(connection.execute(statement).scalars())
    return found


def _raw(table: Any) -> list[Label[Any]]:
    """The columns without the conversions that a value of the wrong type or size would break."""
    return [type_coerce(column, NullType()).label(column.name) for column in table.c]


def _found_key(row: Any) -> FoundKey:
    ledger_id = as_uuid(row.ledger_id)
    texts = isinstance(row.key_id, bytes) and isinstance(row.subject_ref, bytes) and isinstance(row.purpose, str)
    if ledger_id is None or not texts:
        return FoundKey(row.key_id, row.epoch, None, bool(row.fenced))
    return FoundKey(row.key_id, row.epoch, key_row(row, ledger_id), bool(row.fenced))


def _found_secret(row: Any) -> FoundSecret:
    ledger_id = as_uuid(row.ledger_id)
    title = f"the secret of kind {row.kind!r} of the ledger {ledger_id or 'without an id'}"
    key_id_fits = row.key_id is None or isinstance(row.key_id, bytes)
    known = row.kind in {kind.value for kind in WrapKind}
    if ledger_id is None or not known or not key_id_fits or not isinstance(row.wrapped, bytes):
        return FoundSecret(title, row.epoch, None)
    return FoundSecret(title, row.epoch, SecretRow(ledger_id, WrapKind(row.kind), row.key_id, row.wrapped, row.epoch))


# Backups


def insert_backup(connection: Connection, taken_at: int, kind: BackupKind, now: int) -> None:
    """A backup of the vault that somebody has made, or says that somebody has."""
    insert_missing(connection, backups, [{"taken_at": taken_at, "kind": kind, "recorded_at": now}])


def newest_backup(connection: Connection) -> int | None:
    """When the newest backup was taken that is known of."""
    newest: int | None = connection.execute(select(func.max(backups.c.taken_at))).scalar_one()
    return newest
