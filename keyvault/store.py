"""The vault's SQL about secrets, keys and fences: one function a statement.

Long lists go in chunks, sorted, so that transactions that touch the same rows take them in the same order. Rows of
which an append reads hundreds are named tuples: made and compared in a fraction of the time of a dataclass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Exists,
    LargeBinary,
    Select,
    UnaryExpression,
    and_,
    bindparam,
    case,
    delete,
    exists,
    literal_column,
    select,
)
from sqlalchemy.sql.operators import custom_op

from keyvault.database import among, insert_missing, joined
from keyvault.envelope import KEY_ID_SIZE, WrapKind
from keyvault.tables import epochs, erasures, fences, ledger_secrets, subject_keys, subjects
from keyvault.values import SubjectState

T = TypeVar("T", bytes, str)

CHUNK: Final = 500
FIRST_GENERATION: Final = 1
_UUID_SIZE: Final = 16


class SecretRow(NamedTuple):
    """A ledger's own secret, wrapped."""

    ledger_id: UUID
    kind: WrapKind
    key_id: bytes | None
    wrapped: bytes
    epoch: int


class KeyRow(NamedTuple):
    """A living key, wrapped."""

    key_id: bytes
    ledger_id: UUID
    subject_ref: bytes
    purpose: str
    generation: int
    wrapped: bytes
    epoch: int


class KeyInContext(NamedTuple):
    """A living key with what decides whether it may be used for reading now. None: the row it needs is not there."""

    row: KeyRow
    subject_state: SubjectState | None
    changed_at: int | None
    epoch_state: str | None
    open_erasure: UUID | None
    open_erasure_keys: str | None
    open_erasure_next_state: str | None


@dataclass(frozen=True, slots=True)
class FenceRow:
    """The record of a key that is gone."""

    key_id: bytes
    subject_ref: bytes
    purpose: str
    shredded_at: int
    erasure_id: UUID


def chunks(values: Collection[T]) -> Iterator[list[T]]:
    """The values, distinct and in order, in lists that fit an IN."""
    ordered = sorted(set(values))
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]


# Secrets

_SECRETS: Final = select(
    ledger_secrets.c.kind, ledger_secrets.c.key_id, ledger_secrets.c.wrapped, ledger_secrets.c.epoch
).where(ledger_secrets.c.ledger_id == bindparam("ledger"))


def secrets_of(connection: Connection, ledger_id: UUID) -> Mapping[WrapKind, SecretRow]:
    """A ledger's own secrets."""
    return {
        WrapKind(kind): SecretRow(ledger_id, WrapKind(kind), key_id, wrapped, epoch)
        for kind, key_id, wrapped, epoch in connection.execute(_SECRETS, {"ledger": ledger_id}).all()
    }


def insert_secrets(connection: Connection, rows: Sequence[SecretRow], now: int) -> None:
    """Secrets, where there are none of their kind yet."""
    insert_missing(
        connection,
        ledger_secrets,
        [
            {
                "ledger_id": row.ledger_id,
                "kind": int(row.kind),
                "key_id": row.key_id,
                "wrapped": row.wrapped,
                "epoch": row.epoch,
                "created_at": now,
            }
            for row in rows
        ],
    )


# Keys and fences. Whoever reads both reads the keys first: a shredding that commits in between then shows as a fence,
# and never as a key that has vanished.

# I8: a row that a restored backup or a hand has brought back is not a living key while its fence stands.
NOT_FENCED: Final = ~exists().where(fences.c.key_id == subject_keys.c.key_id)


def living_keys_of(table: Any) -> Exists:
    """Whether a key lives of the subject that a row of this table is about."""
    return exists().where(same_subject(subject_keys, table), NOT_FENCED)


def keys_of_subjects(connection: Connection, ledger_id: UUID, refs: Collection[bytes]) -> Sequence[KeyRow]:
    """The living keys of these subjects."""
    found = []
    for chunk in chunks(refs):
        statement = select(subject_keys).where(
            subject_keys.c.ledger_id == ledger_id, subject_keys.c.subject_ref.in_(chunk), NOT_FENCED
        )
        found += [key_row(row, row.ledger_id) for row in connection.execute(statement)]
    return found


def stored_keys_of(connection: Connection, ledger_id: UUID, ref: bytes) -> Sequence[KeyRow]:
    """Every key row of a subject, those behind a fence included."""
    statement = select(subject_keys).where(subject_keys.c.ledger_id == ledger_id, subject_keys.c.subject_ref == ref)
    return [key_row(row, row.ledger_id) for row in connection.execute(statement)]


def fences_of_subjects(connection: Connection, ledger_id: UUID, refs: Collection[bytes]) -> Sequence[FenceRow]:
    """The fences of these subjects."""
    found = []
    for chunk in chunks(refs):
        statement = select(fences).where(fences.c.ledger_id == ledger_id, fences.c.subject_ref.in_(chunk))
        found += [_fence_row(row) for row in connection.execute(statement)]
    return found


def insert_keys(connection: Connection, rows: Sequence[KeyRow], now: int) -> None:
    """Keys, where the subject has none of that purpose and generation yet."""
    insert_missing(
        connection,
        subject_keys,
        [
            {
                "key_id": row.key_id,
                "ledger_id": row.ledger_id,
                "subject_ref": row.subject_ref,
                "purpose": row.purpose,
                "generation": row.generation,
                "wrapped_dek": row.wrapped,
                "epoch": row.epoch,
                "created_at": now,
            }
            for row in sorted(rows, key=lambda row: (row.subject_ref, row.purpose))
        ],
    )


def keys_in_context(connection: Connection, ledger_id: UUID, key_ids: Collection[bytes]) -> Sequence[KeyInContext]:
    """The living keys among these. One statement, so that key, state and open erasure are of one moment; and one value
    for all of them, since the driver takes longer over a parameter than the database over a key."""
    # What has another length is no key: a hand can put it into a row of SQLite.
    wanted = joined([key_id for key_id in key_ids if len(key_id) == KEY_ID_SIZE], KEY_ID_SIZE)
    rows = connection.execute(_keys_in_context(connection.dialect.name), {"ledger": ledger_id, "keys": wanted})
    return [
        KeyInContext(possible_key(ledger_id, subject_ref, key_id, purpose, generation, wrapped, epoch), *context)
        for key_id, subject_ref, purpose, generation, wrapped, epoch, *context in rows.all()
    ]


@cache
def _keys_in_context(dialect: str) -> Select[Any]:
    # Put together once: that takes as long as a dozen keys, and every page of events asks.
    # As it stands in the index ``erasures_one_open``: with a parameter here PostgreSQL could not plan for it.
    is_open = and_(same_subject(erasures, subject_keys), erasures.c.state != literal_column("'done'"))
    # From the order on its KEK may be gone, and what is still under it was given up.
    epoch_state = case((epochs.c.destroyed_at.is_not(None), "destroyed"), else_=epochs.c.state)
    key = subject_keys.c
    ledger = bindparam("ledger", type_=key.ledger_id.type)
    if dialect == "postgresql":
        # No index serves this, so each row is found by its own key. Else a plan that was made when the vault was young,
        # and every index looked alike, would go through all that the ledger has.
        own = key.ledger_id.is_not_distinct_from(ledger)
    else:
        own = UnaryExpression(key.ledger_id, operator=custom_op("+")) == ledger
    keys = (
        select(
            key.key_id,
            key.subject_ref,
            key.purpose,
            key.generation,
            key.wrapped_dek,
            key.epoch,
            subjects.c.state.label("subject_state"),
            subjects.c.changed_at,
            epoch_state.label("epoch_state"),
            erasures.c.erasure_id,
            erasures.c.key_ids.label("erasure_keys"),
            erasures.c.next_state,
        )
        .join(subjects, same_subject(subjects, subject_keys), isouter=True)
        .join(epochs, epochs.c.epoch == subject_keys.c.epoch, isouter=True)
        .join(erasures, is_open, isouter=True)
        .where(own, NOT_FENCED)
    )
    return among(dialect, keys, key.key_id, bindparam("keys", type_=LargeBinary), KEY_ID_SIZE)


def stored_among(connection: Connection, ledger_id: UUID, key_ids: Collection[bytes]) -> frozenset[bytes]:
    """Those of these keys that have a row, whatever stands beside it."""
    column = subject_keys.c.key_id
    own = select(column).where(subject_keys.c.ledger_id == ledger_id)
    return frozenset(
        key_id for chunk in chunks(key_ids) for key_id in connection.execute(own.where(column.in_(chunk))).scalars()
    )


def fences_by_id(connection: Connection, ledger_id: UUID, key_ids: Collection[bytes]) -> Sequence[FenceRow]:
    """The fences among these keys."""
    found = []
    for chunk in chunks(key_ids):
        statement = select(fences).where(fences.c.ledger_id == ledger_id, fences.c.key_id.in_(chunk))
        found += [_fence_row(row) for row in connection.execute(statement)]
    return found


def fences_after(connection: Connection, ledger_id: UUID, after: bytes | None, limit: int) -> Sequence[FenceRow]:
    """The next fences of a ledger in order of their keys."""
    statement = select(fences).where(fences.c.ledger_id == ledger_id).order_by(fences.c.key_id).limit(limit)
    if after is not None:
        statement = statement.where(fences.c.key_id > after)
    return [_fence_row(row) for row in connection.execute(statement)]


def insert_fences(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Fences, where there are none of these keys yet."""
    insert_missing(connection, fences, [dict(row) for row in rows])


def delete_keys(connection: Connection, ledger_id: UUID, key_ids: Collection[bytes]) -> None:
    """I6: the one deletion of an erasure."""
    for chunk in chunks(key_ids):
        connection.execute(
            delete(subject_keys).where(subject_keys.c.ledger_id == ledger_id, subject_keys.c.key_id.in_(chunk))
        )


def same_subject(left: Any, right: Any) -> ColumnElement[bool]:
    return and_(left.c.ledger_id == right.c.ledger_id, left.c.subject_ref == right.c.subject_ref)


def key_row(row: Any, ledger_id: UUID) -> KeyRow:
    """The row as far as it could be a key's."""
    return possible_key(ledger_id, row.subject_ref, row.key_id, row.purpose, row.generation, row.wrapped_dek, row.epoch)


def possible_key(
    ledger_id: UUID, ref: bytes, key_id: bytes, purpose: Any, generation: Any, wrapped: Any, epoch: Any
) -> KeyRow:
    """The same for the values of one."""
    # SQLite takes a value of any type from a hand. What no key can have does not unwrap: damaged (I9), not a crash.
    return KeyRow(
        key_id,
        ledger_id,
        ref,
        str(purpose),
        generation if isinstance(generation, int) else 0,
        wrapped if isinstance(wrapped, bytes) else b"",
        epoch if isinstance(epoch, int) else 0,
    )


def as_uuid(value: Any) -> UUID | None:
    """A UUID as a driver gives it raw; None for what is none."""
    if isinstance(value, UUID):
        return value
    return UUID(bytes=value) if isinstance(value, bytes) and len(value) == _UUID_SIZE else None


def _fence_row(row: Any) -> FenceRow:
    return FenceRow(row.key_id, row.subject_ref, row.purpose, row.shredded_at, row.erasure_id)
