"""The vault's SQL about reinstatements of which something is still to be said: one function a statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, insert, select

from keyvault.tables import reinstatements
from keyvault.values import Reinstatement


def insert_one(connection: Connection, made: Reinstatement) -> None:
    """A new one."""
    connection.execute(
        insert(reinstatements).values(
            ledger_id=made.ledger_id,
            subject_ref=made.subject_ref,
            reason=made.reason,
            reinstated_at=made.reinstated_at,
            reinstated_by=made.reinstated_by,
        )
    )


def find(connection: Connection, ledger_id: UUID, ref: bytes) -> Reinstatement | None:
    """The one that made this subject, while something of it is still to be said."""
    statement = select(reinstatements).where(
        reinstatements.c.ledger_id == ledger_id, reinstatements.c.subject_ref == ref
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else _made(row)


def all_open(connection: Connection) -> Sequence[Reinstatement]:
    """Every ledger's, oldest first."""
    statement = select(reinstatements).order_by(reinstatements.c.reinstated_at, reinstatements.c.subject_ref)
    return [_made(row) for row in connection.execute(statement)]


def delete_one(connection: Connection, ledger_id: UUID, ref: bytes) -> None:
    """Everything is said of it."""
    connection.execute(
        delete(reinstatements).where(reinstatements.c.ledger_id == ledger_id, reinstatements.c.subject_ref == ref)
    )


def _made(row: Any) -> Reinstatement:
    return Reinstatement(row.ledger_id, row.subject_ref, row.reason, row.reinstated_at, row.reinstated_by)
