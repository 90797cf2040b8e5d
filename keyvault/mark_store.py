"""The vault's SQL about marks: how far it has seen the journal and each ledger to be. They only ever go forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, case, select, update

from keyvault.database import insert_missing
from keyvault.journal import NO_LINES, JournalMark
from keyvault.tables import journal_marks, ledger_marks
from keyvault.values import KnownLedger, VaultMark

_ONE: Final = 1


def journal_mark(connection: Connection) -> JournalMark:
    """How far the journal was."""
    row = connection.execute(select(journal_marks)).one_or_none()
    return NO_LINES if row is None else JournalMark(row.n, row.digest)


def note_journal(connection: Connection, mark: JournalMark) -> None:
    """This line was written by whoever calls, last in a transaction: all who write lines wait here for each other.

    Noted only if the vault has seen the line before it. Others may have written that, or it may say what an older vault
    does not know: whoever looks next finds out (:meth:`keyvault.guard.RestoreGuard.restored`).
    """
    _insert_journal(connection)
    connection.execute(
        update(journal_marks).where(journal_marks.c.n == mark.n - 1).values(n=mark.n, digest=mark.digest)
    )


def advance_journal(connection: Connection, mark: JournalMark) -> None:
    """Every line up to this one was found to be true of the vault."""
    _insert_journal(connection)
    connection.execute(update(journal_marks).where(journal_marks.c.n < mark.n).values(n=mark.n, digest=mark.digest))


def replace_journal(connection: Connection, mark: JournalMark) -> None:
    """Another journal has taken the place of the one that was known."""
    _insert_journal(connection)
    connection.execute(update(journal_marks).values(n=mark.n, digest=mark.digest))


def _insert_journal(connection: Connection) -> None:
    insert_missing(connection, journal_marks, [{"one": _ONE, "n": NO_LINES.n, "digest": NO_LINES.digest}])


def known_ledgers(connection: Connection) -> Mapping[UUID, KnownLedger]:
    """Every ledger that has keys here."""
    return {row.ledger_id: _known(row) for row in connection.execute(select(ledger_marks))}


def known_ledger(connection: Connection, ledger_id: UUID) -> KnownLedger:
    """How far this ledger was, and how often keys or refs were made for it."""
    row = connection.execute(select(ledger_marks).where(ledger_marks.c.ledger_id == ledger_id)).one_or_none()
    return KnownLedger(0, 0, None) if row is None else _known(row)


def vault_mark(connection: Connection, ledger_id: UUID) -> VaultMark:
    """How far the vault is, as this ledger is to note it."""
    lines = select(journal_marks.c.n).scalar_subquery()
    statement = select(ledger_marks.c.mints, ledger_marks.c.size, lines).where(ledger_marks.c.ledger_id == ledger_id)
    row = connection.execute(statement).one_or_none()
    return VaultMark(0, 0, 0) if row is None else VaultMark(row[0], row[2] or 0, row[1])


def insert_ledger(connection: Connection, ledger_id: UUID) -> None:
    """A new ledger, of which nothing was seen yet."""
    insert_missing(connection, ledger_marks, [{"ledger_id": ledger_id, "mints": 0, "size": 0}])


def count_mint(connection: Connection, ledger_id: UUID) -> None:
    """The name index or the keys of this ledger were changed. Called last in a transaction: in PostgreSQL all who mint
    for one ledger wait here for each other's commit."""
    connection.execute(
        update(ledger_marks).where(ledger_marks.c.ledger_id == ledger_id).values(mints=ledger_marks.c.mints + 1)
    )


def note_ledger(connection: Connection, ledger_id: UUID, size: int, leaf_hash: bytes) -> None:
    """The ledger has this many events, and the last of them has this leaf."""
    connection.execute(
        update(ledger_marks)
        .where(ledger_marks.c.ledger_id == ledger_id, ledger_marks.c.size < size)
        .values(size=size, leaf_hash=leaf_hash)
    )


def replace_ledger(connection: Connection, ledger_id: UUID, known: KnownLedger) -> None:
    """What is there now is what counts from here on, whatever was seen before."""
    insert_ledger(connection, ledger_id)
    # Others may have made something since the count was read: it never falls.
    mints = case((ledger_marks.c.mints > known.mints, ledger_marks.c.mints), else_=known.mints)
    connection.execute(
        update(ledger_marks)
        .where(ledger_marks.c.ledger_id == ledger_id)
        .values(mints=mints, size=known.size, leaf_hash=known.leaf_hash)
    )


def _known(row: Any) -> KnownLedger:
    return KnownLedger(row.mints, row.size, row.leaf_hash)
