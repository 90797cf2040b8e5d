"""The vault's SQL about signed statements: one function a statement. They are only ever added to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, exists, func, select

from keyvault.database import insert_missing
from keyvault.erasure_store import entry_of
from keyvault.store import chunks
from keyvault.tables import erasures, statements
from keyvault.values import ErasureEntry, Statement, StatementKind


def insert_statement(connection: Connection, ledger_id: UUID, statement: Statement) -> None:
    """A statement, unless there is one of this kind about this erasure: the first one stays."""
    row = {
        "erasure_id": statement.erasure_id,
        "kind": statement.kind,
        "ledger_id": ledger_id,
        "at": statement.at,
        "payload": statement.payload,
        "signature": statement.signature,
    }
    insert_missing(connection, statements, [row])


def statements_about(
    connection: Connection, ledger_id: UUID, erasure_ids: Collection[UUID]
) -> Mapping[UUID, Sequence[Statement]]:
    """Erasure → what was stated about it, in order of kind."""
    found: dict[UUID, list[Statement]] = {}
    for chunk in chunks([one.hex for one in erasure_ids]):
        query = (
            select(statements)
            .where(statements.c.ledger_id == ledger_id, statements.c.erasure_id.in_([UUID(one) for one in chunk]))
            .order_by(statements.c.kind)
        )
        for row in connection.execute(query):
            statement = Statement(row.erasure_id, row.kind, row.at, row.payload, row.signature)
            found.setdefault(row.erasure_id, []).append(statement)
    return found


def done_without(connection: Connection, kind: StatementKind, after: UUID | None, limit: int) -> Sequence[ErasureEntry]:
    """Erasures of any ledger that are done and about which nothing of this kind was stated, in order of id."""
    query = select(erasures).where(_done_without(kind))
    if after is not None:
        query = query.where(erasures.c.erasure_id > after)
    query = query.order_by(erasures.c.erasure_id).limit(limit)
    return [entry_of(row) for row in connection.execute(query)]


def count_done_without(connection: Connection, kind: StatementKind, erased_before: int | None = None) -> int:
    """How many such erasures there are; with ``erased_before`` only those that were carried out before then."""
    query: Any = select(func.count()).select_from(erasures).where(_done_without(kind))
    if erased_before is not None:
        query = query.where(erasures.c.erased_at < erased_before)
    counted: int = connection.execute(query).scalar_one()
    return counted


def _done_without(kind: StatementKind) -> ColumnElement[bool]:
    stated = exists().where(statements.c.erasure_id == erasures.c.erasure_id, statements.c.kind == kind)
    return and_(erasures.c.state == "done", ~stated)
