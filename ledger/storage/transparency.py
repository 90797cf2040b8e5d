"""Tiles, checkpoints, cosignatures and receipts behind ``ledger.ports.Transparency``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from ledger.domain.merkle import HASH_BYTES
from ledger.errors import IntegrityError
from ledger.ports import FullTile, HashRange, LogState, PublishedCheckpoint, StoredReceipt
from ledger.storage import rows
from ledger.storage.database import (
    insert_missing,
    joined_bytes,
    joined_text,
    leave_unflushed,
    look,
    one_of,
    put,
    read,
    writing,
)
from ledger.storage.remembered import Remembered
from ledger.storage.tables import Id, checkpoints, cosignatures, events, heads, ledgers, receipts, tiles

FIRST: Final = -1
"""What stands for the size before the first checkpoint."""


class SqlTransparency:
    """One engine, shared by threads; every method is one short transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tiles: Remembered[tuple[int, int]] = Remembered()
        self._ranges: Remembered[HashRange] = Remembered()

    def log_state(self, ledger_id: UUID, host: str) -> LogState:
        """Where a log is."""
        statement = _select_state(self._engine.dialect.name)
        values = {"ledger": ledger_id, "host": f"{host}/"}
        row = look(self._engine, lambda connection: connection.execute(statement, values).one_or_none())
        if row is None:
            raise IntegrityError("a ledger has no row, or no head")
        last = None
        if row.checkpoint_size is not None:
            last = PublishedCheckpoint(
                ledger_id, row.log_name, row.checkpoint_size, row.root, row.published_at, row.note, row.lines or ""
            )
        return LogState(row.log_name, rows.head_from(row), last)

    def hashes(
        self,
        ledger_id: UUID,
        tiles_: Collection[tuple[int, int]],
        ranges: Collection[HashRange],
        *,
        fresh: bool = False,
    ) -> tuple[Mapping[tuple[int, int], bytes], Mapping[HashRange, bytes]]:
        """Hashes of the tree, in one look at what is not remembered."""
        stored = {} if fresh else self._tiles.known(ledger_id, tiles_)
        put_together = {} if fresh else self._ranges.known(ledger_id, ranges)
        other_tiles = [place for place in tiles_ if place not in stored]
        other_ranges = [one for one in ranges if one not in put_together]

        def find(connection: Connection) -> tuple[dict[tuple[int, int], bytes], dict[HashRange, bytes]]:
            found = {}
            for level in sorted({level for level, _ in other_tiles}):
                numbers = [number for at, number in other_tiles if at == level]
                found.update(_stored_tiles(connection, ledger_id, level, numbers))
            return found, {one: _hashes(connection, ledger_id, one) for one in other_ranges}

        if other_tiles or other_ranges:
            more_tiles, more_ranges = look(self._engine, find)
            self._tiles.remember(ledger_id, more_tiles)
            self._ranges.remember(ledger_id, more_ranges)
            stored, put_together = {**stored, **more_tiles}, {**put_together, **more_ranges}
        return stored, put_together

    def add_tiles(self, ledger_id: UUID, tiles_: Sequence[FullTile]) -> None:
        """Store tiles, in the place of what is there."""
        with writing(self._engine) as connection:
            leave_unflushed(connection)
            for tile in tiles_:
                row = {"level": tile.level, "number": tile.number, "root": tile.root, "hashes": tile.hashes}
                put(connection, tiles, {"ledger_id": ledger_id, **row})

    def latest_published(self, ledger_id: UUID, origin: str, *, cosigned: bool = False) -> PublishedCheckpoint | None:
        """The largest checkpoint."""
        columns = checkpoints.c
        statement = sa.select(checkpoints).where(columns.ledger_id == ledger_id, columns.origin == origin)
        if cosigned:
            of_it = sa.and_(
                cosignatures.c.ledger_id == columns.ledger_id,
                cosignatures.c.origin == columns.origin,
                cosignatures.c.size == columns.size,
            )
            statement = statement.where(sa.exists().where(of_it))
        found = self._all(statement.order_by(columns.size.desc()).limit(1))
        return _checkpoint_from(found[0]) if found else None

    def published_sizes(self, host: str) -> Mapping[UUID, int]:
        """How far each log is published."""
        # One step down the index for each ledger: a GROUP BY would read all the checkpoints that there ever were.
        name = sa.literal(f"{host}/", sa.Text).concat(ledgers.c.name)
        newest = (
            sa.select(sa.func.max(checkpoints.c.size))
            .where(checkpoints.c.ledger_id == ledgers.c.ledger_id, checkpoints.c.origin == name)
            .scalar_subquery()
        )
        found = self._all(sa.select(ledgers.c.ledger_id, newest.label("published")))
        return {row.ledger_id: row.published for row in found if row.published is not None}

    def add_checkpoint(self, checkpoint: PublishedCheckpoint, *, after: int | None) -> bool:
        """Publish a checkpoint behind the one of this size."""
        previous = FIRST if after is None else after
        row = {
            "ledger_id": checkpoint.ledger_id,
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "previous": previous,
            "root": checkpoint.root,
            "published_at": checkpoint.published_at,
            "note": checkpoint.note,
        }
        columns = checkpoints.c
        ours = sa.select(columns.size, columns.note).where(
            columns.ledger_id == checkpoint.ledger_id,
            columns.origin == checkpoint.origin,
            columns.previous == previous,
        )
        with writing(self._engine) as connection:
            insert_missing(connection, checkpoints, row)
            found = connection.execute(ours).one_or_none()
            return found is not None and (found.size, found.note) == (checkpoint.size, checkpoint.note)

    def checkpoints(self, ledger_id: UUID, after: tuple[int, str] | None, limit: int) -> Sequence[PublishedCheckpoint]:
        """The next checkpoints, by size."""
        order = (checkpoints.c.size, checkpoints.c.origin)
        statement = sa.select(checkpoints).where(checkpoints.c.ledger_id == ledger_id).order_by(*order).limit(limit)
        if after is not None:
            statement = statement.where(sa.tuple_(*order) > sa.tuple_(*(sa.literal(value) for value in after)))
        return [_checkpoint_from(row) for row in self._all(statement)]

    def add_cosignature(self, ledger_id: UUID, origin: str, size: int, *, name: str, line: str, timestamp: int) -> None:
        """Keep a witness's signature line."""
        row = {"ledger_id": ledger_id, "origin": origin, "size": size}
        with writing(self._engine) as connection:
            insert_missing(connection, cosignatures, {**row, "name": name, "line": line, "timestamp": timestamp})

    def cosignatures(self, ledger_id: UUID, origin: str, size: int) -> Sequence[str]:
        """The signature lines on a checkpoint."""
        columns = cosignatures.c
        statement = (
            sa.select(columns.line)
            .where(columns.ledger_id == ledger_id, columns.origin == origin, columns.size == size)
            .order_by(columns.name)
        )
        return [row.line for row in self._all(statement)]

    def last_cosigned(self, ledger_id: UUID, origin: str, name: str) -> int:
        """The size of the last checkpoint that this witness has cosigned."""
        columns = cosignatures.c
        statement = (
            sa.select(columns.size)
            .where(columns.ledger_id == ledger_id, columns.origin == origin, columns.name == name)
            .order_by(columns.size.desc())
            .limit(1)
        )
        found = self._all(statement)
        return int(found[0].size) if found else 0

    def add_receipt(self, ledger_id: UUID, erasure_id: UUID, receipt: StoredReceipt) -> StoredReceipt:
        """Keep a receipt; the first one stays."""
        row = {"payload": receipt.payload, "signature": receipt.signature, "proof": receipt.proof}
        with writing(self._engine) as connection:
            insert_missing(connection, receipts, {"ledger_id": ledger_id, "erasure_id": erasure_id, **row})
        kept = self.receipt(ledger_id, erasure_id)
        if kept is None:
            raise IntegrityError("a receipt that was just stored is not there")
        return kept

    def receipt(self, ledger_id: UUID, erasure_id: UUID) -> StoredReceipt | None:
        """The receipt of an erasure."""
        columns = receipts.c
        found = self._all(sa.select(receipts).where(columns.ledger_id == ledger_id, columns.erasure_id == erasure_id))
        return StoredReceipt(found[0].payload, found[0].signature, found[0].proof) if found else None

    def _all(self, statement: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        def execute(connection: Connection) -> Sequence[sa.Row[Any]]:
            return connection.execute(statement).all()

        return read(self._engine, execute)


def _checkpoint_from(row: sa.Row[Any]) -> PublishedCheckpoint:
    return PublishedCheckpoint(row.ledger_id, row.origin, row.size, row.root, row.published_at, row.note)


@cache
def _select_state(dialect: str) -> sa.Select[Any]:
    """Made once: it is needed for every proof, and takes longer to make than to execute."""
    name = sa.bindparam("host", type_=sa.Text).concat(ledgers.c.name)
    others = checkpoints.alias("others")
    newest = (
        sa.select(sa.func.max(others.c.size))
        .where(others.c.ledger_id == ledgers.c.ledger_id, others.c.origin == name)
        .scalar_subquery()
    )
    last = sa.and_(
        checkpoints.c.ledger_id == ledgers.c.ledger_id, checkpoints.c.origin == name, checkpoints.c.size == newest
    )
    lines = (
        sa.select(joined_text(dialect, cosignatures.c.line))
        .where(
            cosignatures.c.ledger_id == checkpoints.c.ledger_id,
            cosignatures.c.origin == checkpoints.c.origin,
            cosignatures.c.size == checkpoints.c.size,
        )
        .scalar_subquery()
    )
    return (
        sa.select(
            heads,
            lines.label("lines"),
            name.label("log_name"),
            checkpoints.c.size.label("checkpoint_size"),
            checkpoints.c.root,
            checkpoints.c.published_at,
            checkpoints.c.note,
        )
        .select_from(ledgers.join(heads, heads.c.ledger_id == ledgers.c.ledger_id).outerjoin(checkpoints, last))
        .where(ledgers.c.ledger_id == sa.bindparam("ledger", type_=Id))
    )


def _stored_tiles(
    connection: Connection, ledger_id: UUID, level: int, numbers: Sequence[int]
) -> dict[tuple[int, int], bytes]:
    columns = tiles.c
    statement = sa.select(columns.number, columns.hashes).where(
        columns.ledger_id == ledger_id, columns.level == level, one_of(connection, columns.number, numbers)
    )
    return {(level, row.number): row.hashes for row in connection.execute(statement)}


def _hashes(connection: Connection, ledger_id: UUID, one: HashRange) -> bytes:
    level, first, count = one
    if level == 0:
        column, order = events.c.leaf_hash, events.c.position
        place = events.c.ledger_id == ledger_id
    else:
        column, order = tiles.c.root, tiles.c.number
        place = sa.and_(tiles.c.ledger_id == ledger_id, tiles.c.level == level - 1)
    found = joined_bytes(connection, column, order, sa.and_(place, order.between(first, first + count - 1)))
    if len(found) != count * HASH_BYTES:
        what = "the leaf hashes of events" if level == 0 else "tiles of the tree"
        raise IntegrityError(f"{what} are missing or damaged; run `audit-ledger verify`")
    return found
