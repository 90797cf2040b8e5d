"""Rows of the name index from before link keys: their refs stand in clear, and are sealed once.

The migration sets them aside in ``clear_subject_names`` and ``clear_streams``, because sealing takes the KEK. Each
batch is one transaction: the sealed rows go in, the clear ones out. So a crash leaves some, for the next call; the
tables go when they are empty, and until then the service does not start.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Column, Connection, Engine, LargeBinary, MetaData, Table, delete, inspect, select, tuple_

from keyvault import database, link_store, linking, name_store
from keyvault.envelope import LinkKey, NameKind
from keyvault.epochs import held_epoch
from keyvault.keyring import Keyring
from keyvault.name_store import NameRow
from keyvault.store import chunks
from keyvault.tables import UuidBytes
from keyvault.values import StreamEntry

BATCH: Final = 500

_metadata: Final = MetaData()
_names: Final = Table(
    "clear_subject_names",
    _metadata,
    Column("ledger_id", UuidBytes),
    Column("name_hash", LargeBinary),
    Column("subject_ref", LargeBinary),
)
_streams: Final = Table(
    "clear_streams",
    _metadata,
    Column("ledger_id", UuidBytes),
    Column("name_hash", LargeBinary),
    Column("stream_ref", LargeBinary),
    Column("owner_ref", LargeBinary),
)


def are_left(engine: Engine) -> bool:
    """Whether there are rows to be sealed."""
    return bool(database.read(engine, _tables))


def seal(engine: Engine, keyring: Keyring, follower: Callable[[int], None]) -> int:
    """Seal what is left, and give how many rows that were. ``follower`` is told after each batch how many so far.

    Needs the rights of the tables' owner.
    """
    sealed = 0
    for table, seal_some in ((_names, _seal_names), (_streams, _seal_streams)):
        if table.name not in database.read(engine, _tables):
            continue
        for batch in _batches(engine, table):
            with database.writing(engine) as connection:
                database.take_long(connection)
                epoch = held_epoch(connection)
                for ledger_id, rows in itertools.groupby(batch, key=lambda row: row.ledger_id):
                    seal_some(connection, keyring, epoch, ledger_id, list(rows))
                _delete(connection, table, batch)
            sealed += len(batch)
            follower(sealed)
        with database.writing(engine) as connection:
            database.prepare_migration(connection)
            table.drop(connection, checkfirst=True)
    if sealed:
        # What stood there in clear must not linger in the log.
        database.scrub(engine)
    return sealed


def _seal_names(connection: Connection, keyring: Keyring, epoch: int, ledger_id: UUID, rows: Sequence[Any]) -> None:
    links = _links(connection, keyring, epoch, ledger_id, {row.subject_ref for row in rows})
    sealed = [
        NameRow(
            row.name_hash, link.link_id, link.seal(NameKind.SUBJECT, ledger_id, row.name_hash, row.subject_ref), None
        )
        for row in rows
        for link in (links[row.subject_ref],)
    ]
    name_store.insert_names(connection, ledger_id, sealed)


def _seal_streams(connection: Connection, keyring: Keyring, epoch: int, ledger_id: UUID, rows: Sequence[Any]) -> None:
    owners = {row.owner_ref for row in rows if row.owner_ref is not None}
    links = _links(connection, keyring, epoch, ledger_id, owners)
    sealed = [
        linking.stream_row(
            ledger_id, row.name_hash, StreamEntry(row.stream_ref, row.owner_ref), links.get(row.owner_ref)
        )
        for row in rows
    ]
    name_store.insert_streams(connection, ledger_id, sealed)


def _links(
    connection: Connection, keyring: Keyring, epoch: int, ledger_id: UUID, refs: set[bytes]
) -> dict[bytes, LinkKey]:
    """The link keys of these subjects, which get one if they have none."""
    found = {
        ref: keyring.open_link(row) for ref, row in link_store.links_of_subjects(connection, ledger_id, refs).items()
    }
    new = {ref: keyring.new_link(ledger_id, ref, epoch) for ref in refs - found.keys()}
    link_store.insert_links(connection, [row for _, *rows in new.values() for row in rows])
    return {**found, **{ref: link for ref, (link, *_) in new.items()}}


def _tables(connection: Connection) -> frozenset[str]:
    return frozenset(inspect(connection).get_table_names()) & frozenset(_metadata.tables)


def _batches(engine: Engine, table: Table) -> Iterator[Sequence[Any]]:
    """In order of name hash: the order of the new rows must not tell which subject a name leads to."""
    key = tuple_(table.c.ledger_id, table.c.name_hash, types=[table.c.ledger_id.type, table.c.name_hash.type])
    after: Any = None
    while True:
        statement = select(table).order_by(table.c.ledger_id, table.c.name_hash).limit(BATCH)
        with database.reading(engine) as connection:
            batch = connection.execute(statement if after is None else statement.where(key > after)).all()
        if not batch:
            return
        yield batch
        after = (batch[-1].ledger_id, batch[-1].name_hash)


def _delete(connection: Connection, table: Table, rows: Iterable[Any]) -> None:
    for ledger_id, some in itertools.groupby(rows, key=lambda row: row.ledger_id):
        for chunk in chunks([row.name_hash for row in some]):
            connection.execute(delete(table).where(table.c.ledger_id == ledger_id, table.c.name_hash.in_(chunk)))
