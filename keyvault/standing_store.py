"""The statement by which a reservation learns how things stand: one for all that must be of the same moment."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CompoundSelect,
    Connection,
    LargeBinary,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    null,
    select,
    union_all,
)

from keyvault.database import Question, among, joined
from keyvault.envelope import REF_SIZE, WrapKind
from keyvault.store import NOT_FENCED, KeyRow, SecretRow, possible_key, same_subject
from keyvault.tables import journal_marks, ledger_marks, ledger_secrets, subject_keys, subjects
from keyvault.values import SubjectState, VaultMark

_KEYS_OF_SUBJECT: Final = and_(same_subject(subject_keys, subjects), NOT_FENCED)


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with some subjects of a ledger: ref → state, their living keys, the ledger's own secrets, and how
    far the vault is."""

    states: Mapping[bytes, SubjectState]
    keys: Sequence[KeyRow]
    secrets: Mapping[WrapKind, SecretRow]
    mark: VaultMark


def standing_of(connection: Connection, ledger_id: UUID, refs: Collection[bytes]) -> Standing:
    """How it stands with the subjects of these refs, 16 bytes each. One statement, so that whoever notes the mark has
    noted every key that is seen here."""
    states: dict[bytes, SubjectState] = {}
    keys: list[KeyRow] = []
    secrets: dict[WrapKind, SecretRow] = {}
    mark = VaultMark(0, 0, 0)
    values = {"ledger": ledger_id, "refs": joined(refs, REF_SIZE)}
    rows = _STANDING.ask(connection, values)
    for ref, state, key_id, purpose, number, wrapped, epoch, mints, lines, size in rows:
        if ref is None:
            kind = WrapKind(number)
            secrets[kind] = SecretRow(ledger_id, kind, key_id, wrapped, epoch)
            mark = mark if mints is None else VaultMark(mints, lines or 0, size)
            continue
        states[ref] = state
        if key_id is not None:
            keys.append(possible_key(ledger_id, ref, key_id, purpose, number, wrapped, epoch))
    return Standing(states, keys, secrets, mark)


def _standing(dialect: str) -> CompoundSelect[Any]:
    """Rows of two kinds: (ref, state, key_id, purpose, generation, wrap, epoch) of each subject and key; and, without a
    ref, (key_id, kind, wrap, epoch, mints, lines, size) of each of the ledger's secrets."""
    key, secret, mark = subject_keys.c, ledger_secrets.c, ledger_marks.c
    of_subjects: Select[Any] = (
        select(
            subjects.c.subject_ref,
            subjects.c.state,
            key.key_id,
            key.purpose,
            key.generation,
            key.wrapped_dek,
            key.epoch,
            *(cast(null(), BigInteger).label(name) for name in ("mints", "lines", "size")),
        )
        .join_from(subjects, subject_keys, _KEYS_OF_SUBJECT, isouter=True)
        .where(subjects.c.ledger_id == bindparam("ledger"))
    )
    of_ledger = (
        select(
            cast(null(), LargeBinary),
            cast(null(), Text),
            secret.key_id,
            cast(null(), Text),
            secret.kind,
            secret.wrapped,
            secret.epoch,
            mark.mints,
            select(journal_marks.c.n).scalar_subquery(),
            mark.size,
        )
        .join_from(ledger_secrets, ledger_marks, mark.ledger_id == secret.ledger_id, isouter=True)
        .where(secret.ledger_id == bindparam("ledger"))
    )
    refs = bindparam("refs", type_=LargeBinary)
    return union_all(among(dialect, of_subjects, subjects.c.subject_ref, refs, REF_SIZE), of_ledger)


_STANDING: Final = Question(_standing)
