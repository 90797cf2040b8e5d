"""Snapshots of streams."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from ledger.ports import Snapshot
from ledger.storage.database import insert_missing, one_of, read, writing
from ledger.storage.statements import in_chunks
from ledger.storage.tables import events, snapshots

_KEY_BYTES: Final = 32


class SqlSnapshots:
    """Satisfies ``ledger.ports.Snapshots``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def nearest_snapshots(
        self, ledger_id: UUID, fold: str, stream_refs: Collection[bytes], position: int
    ) -> Mapping[bytes, Snapshot]:
        """For each of these streams that has one: the newest at or before ``position``."""

        def select(connection: Connection) -> dict[bytes, Snapshot]:
            return {
                row.stream_ref: _snapshot_from(row)
                for chunk in in_chunks(stream_refs)
                for row in connection.execute(_select_nearest(ledger_id, fold, chunk, position))
            }

        return read(self._engine, select)

    def snapshots_of(self, ledger_id: UUID, fold: str, stream_ref: bytes, position: int) -> Sequence[Snapshot]:
        """All of one stream at or before ``position``, newest first, with empty ``sealed``."""
        columns = snapshots.c
        statement = (
            _select_with_leaf(sa.literal(b"").label("sealed"))
            .where(*_of_stream(ledger_id, fold, stream_ref), columns.position <= position)
            .order_by(columns.position.desc())
        )
        return [_snapshot_from(row) for row in read(self._engine, lambda connection: connection.execute(statement))]

    def snapshot(self, ledger_id: UUID, fold: str, stream_ref: bytes, stream_version: int) -> Snapshot | None:
        """One snapshot."""
        statement = _select_with_leaf(snapshots.c.sealed).where(
            *_of_stream(ledger_id, fold, stream_ref), snapshots.c.stream_version == stream_version
        )
        row = read(self._engine, lambda connection: connection.execute(statement).one_or_none())
        return _snapshot_from(row) if row is not None else None

    def add_snapshots(self, ledger_id: UUID, added: Sequence[Snapshot]) -> None:
        """Add snapshots; one of the same stream, fold and version is replaced."""
        if not added:
            return
        # In one order, so that two who write the same ones do not wait for each other.
        ordered = sorted(added, key=lambda snapshot: (snapshot.stream_ref, snapshot.fold, snapshot.stream_version))
        with writing(self._engine) as connection:
            for snapshot in ordered:
                _replace(connection, ledger_id, snapshot)

    def drop_snapshots(self, ledger_id: UUID, stream_refs: Collection[bytes], key_ids: Collection[bytes]) -> int:
        """Delete the snapshots of these streams into which one of these keys went."""
        columns = snapshots.c
        gone = frozenset(key_ids)
        dropped = 0
        for chunk in in_chunks(stream_refs):
            with writing(self._engine) as connection:
                statement = sa.select(columns.stream_ref, columns.fold, columns.stream_version, columns.key_ids).where(
                    columns.ledger_id == ledger_id, one_of(connection, columns.stream_ref, chunk)
                )
                dead = [row for row in connection.execute(statement) if not gone.isdisjoint(_keys(row.key_ids))]
                for row in dead:
                    place = (columns.stream_ref == row.stream_ref, columns.fold == row.fold)
                    version = columns.stream_version == row.stream_version
                    connection.execute(sa.delete(snapshots).where(columns.ledger_id == ledger_id, *place, version))
                dropped += len(dead)
        return dropped

    def drop_fold(self, ledger_id: UUID, fold: str) -> int:
        """Delete all snapshots of a fold that is used no more."""
        statement = sa.delete(snapshots).where(snapshots.c.ledger_id == ledger_id, snapshots.c.fold == fold)
        with writing(self._engine) as connection:
            return connection.execute(statement).rowcount


def _replace(connection: Connection, ledger_id: UUID, snapshot: Snapshot) -> None:
    same = (
        *_of_stream(ledger_id, snapshot.fold, snapshot.stream_ref),
        snapshots.c.stream_version == snapshot.stream_version,
    )
    values = {
        "position": snapshot.position,
        "key_ids": b"".join(snapshot.key_ids),
        "sealed": snapshot.sealed,
    }
    if connection.execute(sa.update(snapshots).where(*same).values(**values)).rowcount:
        return
    row = {
        "ledger_id": ledger_id,
        "stream_ref": snapshot.stream_ref,
        "fold": snapshot.fold,
        "stream_version": snapshot.stream_version,
        **values,
    }
    # Another may just have added it. The same events fold to the same state, so theirs is as good.
    insert_missing(connection, snapshots, row)


def _of_stream(ledger_id: UUID, fold: str, stream_ref: bytes) -> tuple[sa.ColumnElement[bool], ...]:
    columns = snapshots.c
    return columns.ledger_id == ledger_id, columns.stream_ref == stream_ref, columns.fold == fold


def _select_with_leaf(sealed: sa.ColumnElement[bytes]) -> sa.Select[Any]:
    """Snapshots with the leaf hash that the log has at their positions; one for which it has none fits no log."""
    columns = snapshots.c
    same_place = sa.and_(events.c.ledger_id == columns.ledger_id, events.c.position == columns.position)
    return sa.select(
        columns.stream_ref,
        columns.fold,
        columns.stream_version,
        columns.position,
        events.c.leaf_hash,
        columns.key_ids,
        sealed,
    ).select_from(snapshots.join(events, same_place))


def _select_nearest(ledger_id: UUID, fold: str, stream_refs: Sequence[bytes], position: int) -> sa.Select[Any]:
    columns = snapshots.c
    statement = _select_with_leaf(columns.sealed).where(columns.ledger_id == ledger_id, columns.fold == fold)
    if len(stream_refs) == 1:
        # Much the most frequent case, and a statement that SQLAlchemy need not compile anew each time.
        of_stream = statement.where(columns.stream_ref == stream_refs[0], columns.position <= position)
        return of_stream.order_by(columns.position.desc()).limit(1)
    wanted = sa.values(sa.column("stream_ref", sa.LargeBinary), name="wanted").data([(ref,) for ref in stream_refs])
    each = wanted.cte()
    earlier = snapshots.alias()
    # One step down the index ``snapshots_by_position`` for each stream, however many snapshots it has. (With max()
    # PostgreSQL would read them all as long as it has no statistics.)
    nearest = (
        sa.select(earlier.c.position)
        .where(
            earlier.c.ledger_id == ledger_id,
            earlier.c.stream_ref == each.c.stream_ref,
            earlier.c.fold == fold,
            earlier.c.position <= position,
        )
        .order_by(earlier.c.position.desc())
        .limit(1)
        .correlate(each)
        .scalar_subquery()
    )
    places = sa.select(each.c.stream_ref, nearest.label("position")).cte()
    at_place = sa.and_(places.c.stream_ref == columns.stream_ref, places.c.position == columns.position)
    return statement.join(places, at_place)


def _snapshot_from(row: sa.Row[Any]) -> Snapshot:
    return Snapshot(
        stream_ref=row.stream_ref,
        fold=row.fold,
        stream_version=row.stream_version,
        position=row.position,
        leaf_hash=row.leaf_hash,
        key_ids=_keys(row.key_ids),
        sealed=row.sealed,
    )


def _keys(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined[start : start + _KEY_BYTES] for start in range(0, len(joined), _KEY_BYTES))
