"""Tiles, checkpoints, cosignatures and receipts behind ``ledger.ports.Transparency``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from ledger.domain.merkle import HASH_BYTES
from ledger.errors import IntegrityError
from ledger.ports import FullTile, PublishedCheckpoint, StoredReceipt
from ledger.storage.database import insert_missing, joined_bytes, read, writing
from ledger.storage.tables import checkpoints, cosignatures, events, receipts, tiles

FIRST: Final = -1
"""What stands for the size before the first checkpoint."""


class SqlTransparency:
    """One engine, shared by threads; every method is one short transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def leaf_hashes(self, ledger_id: UUID, first: int, count: int) -> bytes:
        """The leaf hashes of these positions."""
        columns = events.c
        place = sa.and_(columns.ledger_id == ledger_id, columns.position.between(first, first + count - 1))
        return self._hashes(columns.leaf_hash, columns.position, place, count, "the leaf hashes of events")

    def tile_roots(self, ledger_id: UUID, level: int, first: int, count: int) -> bytes:
        """The roots over stored tiles."""
        columns = tiles.c
        place = sa.and_(
            columns.ledger_id == ledger_id, columns.level == level, columns.number.between(first, first + count - 1)
        )
        return self._hashes(columns.root, columns.number, place, count, "tiles of the tree")

    def _hashes(
        self, column: sa.Column[bytes], order: sa.Column[int], place: sa.ColumnElement[bool], count: int, what: str
    ) -> bytes:
        found = read(self._engine, lambda connection: joined_bytes(connection, column, order, place))
        if len(found) != count * HASH_BYTES:
            raise IntegrityError(f"{what} are missing or damaged; run `audit-ledger verify`")
        return found

    def count_tiles(self, ledger_id: UUID, level: int) -> int:
        """How many full tiles of a level are stored."""
        columns = tiles.c
        statement = (
            sa.select(columns.number)
            .where(columns.ledger_id == ledger_id, columns.level == level)
            .order_by(columns.number.desc())
            .limit(1)
        )
        # They are stored in order, so the last one tells.
        number = read(self._engine, lambda connection: connection.execute(statement).scalar_one_or_none())
        return 0 if number is None else int(number) + 1

    def tiles(self, ledger_id: UUID, places: Collection[tuple[int, int]]) -> Sequence[FullTile]:
        """The stored tiles of these places."""
        found: list[FullTile] = []
        for level in sorted({level for level, _ in places}):
            numbers = sorted(number for at, number in places if at == level)
            statement = sa.select(tiles).where(
                tiles.c.ledger_id == ledger_id, tiles.c.level == level, tiles.c.number.in_(numbers)
            )
            found += [FullTile(row.level, row.number, row.root, row.hashes) for row in self._all(statement)]
        return found

    def add_tiles(self, ledger_id: UUID, tiles_: Sequence[FullTile]) -> None:
        """Store tiles that are not there."""
        with writing(self._engine) as connection:
            for tile in tiles_:
                row = {"level": tile.level, "number": tile.number, "root": tile.root, "hashes": tile.hashes}
                insert_missing(connection, tiles, {"ledger_id": ledger_id, **row})

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
