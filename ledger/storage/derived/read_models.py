"""The documents of projections, by projection and generation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from ledger.ports import Cursor, CursorKey, ReadModelPage, ReadModelRow
from ledger.storage.database import contains, one_of, read, see_one_moment, writing
from ledger.storage.derived.cursors import advance_cursor, cursor_from, lease_lost
from ledger.storage.statements import in_chunks
from ledger.storage.tables import cursors, event_keys, events, read_models

KEY_ID_BYTES: Final = 32
PAGE_ROWS: Final = 100
"""Documents that are fetched at once, so that a page of large ones does not hold a thousand in memory."""


class SqlReadModels:
    """Satisfies ``ledger.ports.ReadModels``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read_documents(self, ledger_id: UUID, name: str, keys: Collection[bytes]) -> ReadModelPage | None:
        """The documents of these keys that readers see."""

        def rows(connection: Connection, cursor: CursorKey) -> list[ReadModelRow]:
            return list(_select_by_key(connection, ledger_id, cursor, keys))

        return self._as_readers_see(ledger_id, name, rows)

    def list_documents(
        self, ledger_id: UUID, name: str, bucket: str | None, after: bytes | None, limit: int, most_bytes: int
    ) -> ReadModelPage | None:
        """Documents that readers see, in order of their keys."""

        def rows(connection: Connection, cursor: CursorKey) -> list[ReadModelRow]:
            found: list[ReadModelRow] = []
            size, last = 0, after
            while len(found) < limit and size < most_bytes:
                wanted = min(PAGE_ROWS, limit - len(found))
                chunk = _select_page(connection, ledger_id, cursor, bucket, last, wanted)
                found += chunk
                if len(chunk) < wanted:
                    break
                size += sum(len(row.body) for row in chunk)
                last = chunk[-1].key
            return _within(found, most_bytes)

        return self._as_readers_see(ledger_id, name, rows)

    def _as_readers_see(
        self, ledger_id: UUID, name: str, rows: Callable[[Connection, CursorKey], Sequence[ReadModelRow]]
    ) -> ReadModelPage | None:
        def look(connection: Connection) -> ReadModelPage | None:
            # Else the cursor could be of a moment before the documents, or its generation be dropped in between.
            see_one_moment(connection)
            cursor = _first_generation(connection, ledger_id, name)
            return ReadModelPage(cursor, rows(connection, cursor.key)) if cursor is not None else None

        return read(self._engine, look)

    def documents(self, ledger_id: UUID, cursor: CursorKey, keys: Collection[bytes]) -> Mapping[bytes, ReadModelRow]:
        """The documents of these keys in one generation."""
        return read(
            self._engine,
            lambda connection: {row.key: row for row in _select_by_key(connection, ledger_id, cursor, keys)},
        )

    def documents_under(
        self, ledger_id: UUID, cursor: CursorKey, key_ids: Collection[bytes], limit: int, *, by_stream: bool
    ) -> Sequence[bytes]:
        """The keys of documents into which one of these keys went."""

        def look(connection: Connection) -> Sequence[bytes]:
            columns = read_models.c
            under = [contains(connection, columns.key_ids, key_id) for key_id in key_ids]
            statement = sa.select(columns.document_key).where(*_of(ledger_id, cursor), sa.or_(*under)).limit(limit)
            if by_stream:
                statement = statement.where(columns.document_key.in_(_streams_under(connection, ledger_id, key_ids)))
            return connection.execute(statement).scalars().all()

        return read(self._engine, look) if key_ids else []

    def commit_documents(
        self,
        ledger_id: UUID,
        key: CursorKey,
        holder: UUID,
        old: int,
        new: int,
        now: int,
        lease_until: int,
        documents: Sequence[ReadModelRow],
    ) -> None:
        """Write documents and move the cursor, in one transaction."""
        with writing(self._engine) as connection:
            advance_cursor(connection, ledger_id, key, holder, old, new, now, lease_until)
            if documents:
                _delete(connection, ledger_id, key, [document.key for document in documents])
                connection.execute(sa.insert(read_models), [_row(ledger_id, key, document) for document in documents])

    def take_over(self, ledger_id: UUID, name: str, generation: int, holder: UUID) -> bool:
        """Building → running, and every earlier generation is retired."""
        columns = cursors.c
        of_projection = (columns.ledger_id == ledger_id, columns.kind == "projection", columns.name == name)
        up_to_it = sa.select(cursors).where(
            *of_projection, columns.number <= generation, columns.state.in_(("building", "running", "stopped"))
        )
        with writing(self._engine) as connection:
            locked = connection.execute(up_to_it.order_by(columns.number).with_for_update()).all()
            known = [cursor_from(row) for row in locked]
            if not known or (known[-1].key.number, known[-1].state, known[-1].holder) != (
                generation,
                "building",
                holder,
            ):
                raise lease_lost()
            if any(earlier.position > known[-1].position for earlier in known[:-1]):
                return False
            connection.execute(
                sa.update(cursors)
                .where(*of_projection, columns.number < generation)
                .values(state="retired", holder=None, lease_until=0)
            )
            connection.execute(
                sa.update(cursors).where(*of_projection, columns.number == generation).values(state="running")
            )
            return True

    def drop_documents(self, ledger_id: UUID, cursor: CursorKey, limit: int) -> int:
        """Delete documents of a retired generation, and its cursor with the last."""
        columns = cursors.c
        retired = (
            columns.ledger_id == ledger_id,
            columns.kind == cursor.kind,
            columns.name == cursor.name,
            columns.number == cursor.number,
            columns.state == "retired",
        )
        with writing(self._engine) as connection:
            # Locked, so that two who clear up do not delete the same documents and count them twice.
            if connection.execute(sa.select(columns.number).where(*retired).with_for_update()).one_or_none() is None:
                return 0
            some = sa.select(read_models.c.document_key).where(*_of(ledger_id, cursor)).limit(limit)
            keys = connection.execute(some).scalars().all()
            _delete(connection, ledger_id, cursor, keys)
            if len(keys) < limit:
                connection.execute(sa.delete(cursors).where(*retired))
            return len(keys)


def _first_generation(connection: Connection, ledger_id: UUID, name: str) -> Cursor | None:
    columns = cursors.c
    statement = (
        sa.select(cursors)
        .where(
            columns.ledger_id == ledger_id,
            columns.kind == "projection",
            columns.name == name,
            columns.state != "retired",
        )
        .order_by(columns.number)
        .limit(1)
    )
    row = connection.execute(statement).one_or_none()
    return cursor_from(row) if row is not None else None


def _select_rows(ledger_id: UUID, cursor: CursorKey) -> sa.Select[Any]:
    # The leaf is that of the log as it is now, whatever the document was made from.
    with_leaves = read_models.outerjoin(
        events,
        sa.and_(events.c.ledger_id == read_models.c.ledger_id, events.c.position == read_models.c.position),
    )
    return sa.select(read_models, events.c.leaf_hash).select_from(with_leaves).where(*_of(ledger_id, cursor))


def _select_by_key(
    connection: Connection, ledger_id: UUID, cursor: CursorKey, keys: Collection[bytes]
) -> Iterator[ReadModelRow]:
    statement = _select_rows(ledger_id, cursor)
    for chunk in in_chunks(keys):
        found = connection.execute(statement.where(one_of(connection, read_models.c.document_key, chunk)))
        yield from (_from_row(row) for row in found)


def _select_page(
    connection: Connection, ledger_id: UUID, cursor: CursorKey, bucket: str | None, after: bytes | None, limit: int
) -> list[ReadModelRow]:
    columns = read_models.c
    statement = _select_rows(ledger_id, cursor).order_by(columns.document_key).limit(limit)
    if bucket is not None:
        statement = statement.where(columns.bucket == bucket)
    if after is not None:
        statement = statement.where(columns.document_key > after)
    return [_from_row(row) for row in connection.execute(statement)]


def _within(found: Sequence[ReadModelRow], most_bytes: int) -> list[ReadModelRow]:
    """The first of these documents, up to the one that reaches so many bytes."""
    kept: list[ReadModelRow] = []
    size = 0
    for row in found:
        kept.append(row)
        size += len(row.body)
        if size >= most_bytes:
            break
    return kept


def _streams_under(connection: Connection, ledger_id: UUID, key_ids: Collection[bytes]) -> sa.Select[Any]:
    of_event = sa.and_(events.c.ledger_id == event_keys.c.ledger_id, events.c.position == event_keys.c.position)
    return (
        sa.select(events.c.stream_ref)
        .select_from(event_keys.join(events, of_event))
        .where(event_keys.c.ledger_id == ledger_id, one_of(connection, event_keys.c.key_id, list(key_ids)))
        .distinct()
    )


def _delete(connection: Connection, ledger_id: UUID, cursor: CursorKey, keys: Sequence[bytes]) -> None:
    for chunk in in_chunks(keys):
        connection.execute(
            sa.delete(read_models).where(*_of(ledger_id, cursor), one_of(connection, read_models.c.document_key, chunk))
        )


def _of(ledger_id: UUID, cursor: CursorKey) -> tuple[sa.ColumnElement[bool], ...]:
    columns = read_models.c
    return (
        columns.ledger_id == ledger_id,
        columns.projection == cursor.name,
        columns.generation == cursor.number,
    )


def _row(ledger_id: UUID, cursor: CursorKey, document: ReadModelRow) -> dict[str, Any]:
    return {
        "ledger_id": ledger_id,
        "projection": cursor.name,
        "generation": cursor.number,
        "document_key": document.key,
        "bucket": document.bucket,
        "position": document.position,
        "key_ids": b"".join(document.key_ids),
        "body": document.body,
        "clear": document.clear,
        "provisional": document.provisional,
    }


def _from_row(row: sa.Row[Any]) -> ReadModelRow:
    """A document of a row. What a hand has put there that no document has becomes one that does not open, and is
    computed again."""
    key_ids = row.key_ids if isinstance(row.key_ids, bytes) and len(row.key_ids) % KEY_ID_BYTES == 0 else b""
    return ReadModelRow(
        key=bytes(row.document_key),
        bucket=str(row.bucket),
        position=row.position if isinstance(row.position, int) and row.position >= 0 else 0,
        leaf_hash=row.leaf_hash if isinstance(row.leaf_hash, bytes) else b"",
        key_ids=tuple(key_ids[start : start + KEY_ID_BYTES] for start in range(0, len(key_ids), KEY_ID_BYTES)),
        body=row.body if isinstance(row.body, bytes) else b"",
        clear=bool(row.clear),
        provisional=bool(row.provisional),
    )
