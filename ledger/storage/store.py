"""The ledger database behind ``ledger.ports.Store``, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, exc

from ledger.domain.access import ApiKey, LedgerInfo
from ledger.domain.events import Head, RecordedEvent, Role, StreamVersions
from ledger.domain.query import EventFilter, Place
from ledger.errors import AlreadyExistsError, Fault, IntegrityError, StoreUnavailableError
from ledger.ports import ErasureRoots, KeyUsage, Shredding
from ledger.storage import rows, selection, statements
from ledger.storage.database import Question, look, one_of, read, reading, writing
from ledger.storage.evidence import SqlEvidence
from ledger.storage.head_lock import SqlHeadLock
from ledger.storage.migrate import pending_migrations
from ledger.storage.overview import SqlOverview
from ledger.storage.streams import SqlStreams
from ledger.storage.tables import (
    Id,
    api_keys,
    closed_streams,
    erasure_roots,
    event_keys,
    events,
    heads,
    ledgers,
    shredded_keys,
)
from ledger.storage.wakeups import wakeups_of

# What every request asks for is made once: to make a statement takes as long as to run it.
_LEDGER: Final = sa.select(ledgers).where(ledgers.c.name == sa.bindparam("name", type_=sa.Text))
_API_KEY: Final = sa.select(api_keys).where(api_keys.c.key_id == sa.bindparam("key", type_=Id))
_ENTRANCE: Final = Question(
    sa.select(
        api_keys,
        ledgers.c.ledger_id.label("found_id"),
        ledgers.c.name.label("found_name"),
        ledgers.c.created_at.label("found_since"),
    )
    .select_from(api_keys.outerjoin(ledgers, ledgers.c.name == sa.bindparam("name", type_=sa.Text)))
    .where(api_keys.c.key_id == sa.bindparam("key", type_=Id))
)
_HEAD: Final = Question(sa.select(heads).where(heads.c.ledger_id == sa.bindparam("ledger", type_=Id)))

_RANGES_AT_ONCE: Final = 50


class SqlStore(SqlStreams, SqlOverview, SqlEvidence):
    """One engine, shared by threads; every method is one short transaction."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @contextmanager
    def locked_head(self, ledger_id: UUID) -> Iterator[SqlHeadLock]:
        """One transaction that holds the head lock."""
        with writing(self._engine) as connection:
            lock = SqlHeadLock(connection, ledger_id)
            yield lock
        if lock.has_grown:
            wakeups_of(self._engine).announce(self._engine, ledger_id)

    def add_ledger(self, ledger: LedgerInfo) -> None:
        """Add a ledger and its empty head."""
        with writing(self._engine) as connection:
            if self._find_ledger(connection, ledger.name) is not None:
                raise AlreadyExistsError("there is a ledger of this name", [Fault("/name", "is taken")])
            values = {"ledger_id": ledger.ledger_id, "name": ledger.name, "created_at": ledger.created_at}
            try:
                connection.execute(sa.insert(ledgers), {**values, "policy": "{}"})
            except exc.IntegrityError:
                # PostgreSQL lets two get this far; the second waits for the first to commit and is then refused.
                raise AlreadyExistsError("there is a ledger of this name", [Fault("/name", "is taken")]) from None
            head = {"ledger_id": ledger.ledger_id, "size": 0, "frontier": b"", "last_recorded_at": 0}
            connection.execute(sa.insert(heads), head)

    def ledgers(self) -> Sequence[LedgerInfo]:
        """All ledgers in order of their names."""
        statement = sa.select(ledgers).order_by(ledgers.c.name)
        return [rows.ledger_from(row) for row in self._all(statement)]

    def ledger(self, name: str) -> LedgerInfo | None:
        """The ledger of this name."""
        return look(self._engine, lambda connection: self._find_ledger(connection, name))

    def ledger_name(self, ledger_id: UUID) -> str:
        """The name of a ledger."""
        row = self._one(sa.select(ledgers.c.name).where(ledgers.c.ledger_id == ledger_id))
        if row is None:
            raise IntegrityError("a ledger has no row")
        return str(row.name)

    @staticmethod
    def _find_ledger(connection: Connection, name: str) -> LedgerInfo | None:
        row = connection.execute(_LEDGER, {"name": name}).one_or_none()
        return rows.ledger_from(row) if row is not None else None

    def head(self, ledger_id: UUID, *, settled: bool = False) -> Head:
        """The committed head."""
        if settled:
            with self.locked_head(ledger_id) as lock:
                return lock.head
        found = _HEAD.look(self._engine, ledger=ledger_id)
        if not found:
            raise IntegrityError("a ledger has no head")
        return rows.head_from(found[0])

    def wait_for_growth(self, ledger_id: UUID, size: int, seconds: float) -> int:
        """Wait until a ledger has more than ``size`` events, or the time is up; gives its size."""
        wakeups = wakeups_of(self._engine)
        return wakeups.wait(self._engine, ledger_id, size, seconds, lambda: self.head(ledger_id).size)

    def find_events(self, ledger_id: UUID, event_ids: Collection[UUID]) -> Mapping[UUID, RecordedEvent]:
        """The recorded events of these ids."""
        found = look(self._engine, lambda connection: statements.select_events_by_id(connection, ledger_id, event_ids))
        return {row.event_id: rows.event_from(row) for row in found}

    def select_events(
        self, ledger_id: UUID, which: EventFilter, after: Place | None, limit: int
    ) -> Sequence[RecordedEvent]:
        """The next events that match."""
        few_occurred = self._engine.dialect.name == "sqlite" and self._are_few_occurred(ledger_id, which)
        statement = selection.select_events(ledger_id, which, after, limit, few_occurred=few_occurred)
        return [rows.event_from(row) for row in self._all(statement)]

    def _are_few_occurred(self, ledger_id: UUID, which: EventFilter) -> bool:
        """Whether a range of times is so narrow that it is to be gone by. SQLite has no statistics and takes each for
        a wide one; PostgreSQL knows."""
        probe = selection.select_few_occurred(ledger_id, which)
        return probe is not None and self._all(probe)[0][0] < selection.FEW_OCCURRED

    def events_at(self, ledger_id: UUID, positions: Collection[int]) -> Sequence[RecordedEvent]:
        """The events at these positions."""
        statement = sa.select(events).where(events.c.ledger_id == ledger_id)
        return [rows.event_from(row) for row in self._matching(statement, events.c.position, positions)]

    def position_at(self, ledger_id: UUID, time: int, size: int) -> int:
        """The last position below ``size`` that was recorded at or before ``time``."""

        def search(connection: Connection) -> int:
            # Recorded-at never decreases with position (I2), so a binary search down the primary key finds it without
            # an index on time.
            first, beyond = 0, size
            while first < beyond:
                middle = (first + beyond) // 2
                recorded_at = _recorded_at(connection, ledger_id, middle)
                first, beyond = (middle + 1, beyond) if recorded_at <= time else (first, middle)
            return first - 1

        return read(self._engine, search)

    def recorded_at(self, ledger_id: UUID, position: int) -> int:
        """The recorded-at of one event."""
        return read(self._engine, lambda connection: _recorded_at(connection, ledger_id, position))

    def versions(self, ledger_id: UUID, stream_refs: Collection[bytes]) -> StreamVersions:
        """The versions of these streams."""
        return read(self._engine, lambda connection: statements.select_versions(connection, ledger_id, stream_refs))

    def shreddings(self, ledger_id: UUID, key_ids: Collection[bytes]) -> Mapping[bytes, Shredding]:
        """For those of these keys that are dead: since when and by which erasure."""
        dead = look(self._engine, lambda connection: statements.select_dead(connection, ledger_id, key_ids))
        found = self._matching(_select_shreddings(ledger_id), shredded_keys.c.key_id, dead) if dead else iter(())
        return {row.key_id: Shredding(row.position, row.recorded_at, row.erasure_id) for row in found}

    def shredded_keys(self, ledger_id: UUID) -> Mapping[bytes, Shredding]:
        """Every dead key of a ledger."""
        found = self._all(_select_shreddings(ledger_id))
        return {row.key_id: Shredding(row.position, row.recorded_at, row.erasure_id) for row in found}

    def key_usage(self, ledger_id: UUID, key_ids: Collection[bytes], *, beyond: int | None = None) -> KeyUsage:
        """How many events have a part under one of these keys."""
        if not key_ids:
            return KeyUsage(0, None, None)
        position = event_keys.c.position
        counted = (
            sa.func.count(sa.distinct(position)).label("events"),
            sa.func.min(position).label("first"),
            sa.func.max(position).label("last"),
        )
        statement = _used(ledger_id, key_ids, *counted)
        found = self._long(statement if beyond is None else statement.where(position < beyond))[0]
        return KeyUsage(found.events, found.first, found.last)

    def key_ends(
        self, ledger_id: UUID, key_ids: Collection[bytes], roles: Collection[Role] | None = None
    ) -> tuple[int, int] | None:
        """The first and last position of the events that have a part under one of these keys."""
        position = event_keys.c.position
        of_roles = [event_keys.c.role.in_([int(role) for role in roles])] if roles is not None else []

        def search(connection: Connection) -> list[int]:
            # Not min() and max(): for several keys they would read all rows. So it is a step down the index for each.
            return [
                found
                for key_id in key_ids
                for order in (position, position.desc())
                for found in connection.execute(
                    _used(ledger_id, [key_id], position).where(*of_roles).order_by(order).limit(1)
                ).scalars()
            ]

        ends = look(self._engine, search)
        return (min(ends), max(ends)) if ends else None

    def count_events_between(
        self, ledger_id: UUID, key_ids: Collection[bytes], ranges: Sequence[tuple[int, int | None]]
    ) -> int:
        """How many events in these ranges have a part under one of these keys."""
        position = event_keys.c.position
        total = 0
        for start in range(0, len(ranges), _RANGES_AT_ONCE):
            counts = [
                _used(ledger_id, key_ids, sa.func.count(sa.distinct(position)))
                .where(position >= first, *([position < beyond] if beyond is not None else []))
                .scalar_subquery()
                for first, beyond in ranges[start : start + _RANGES_AT_ONCE]
            ]
            total += sum(self._all(sa.select(*[count.label(f"n{number}") for number, count in enumerate(counts)]))[0])
        return total

    def key_positions(self, ledger_id: UUID, key_id: bytes, first: int, beyond: int) -> Sequence[int]:
        """Where a key is used in a range."""
        position = event_keys.c.position
        statement = _used(ledger_id, [key_id], position).where(position >= first, position < beyond)
        found = look(self._engine, lambda connection: connection.execute(statement.order_by(position)).scalars().all())
        # An event can have several parts under one key; and SQLite takes anything from a hand.
        return list(dict.fromkeys(one for one in found if isinstance(one, int)))

    def keys_used_since(
        self, ledger_id: UUID, position: int, after: bytes | None, limit: int
    ) -> Sequence[tuple[bytes, KeyUsage]]:
        """The next keys that parts from this position on are sealed under."""
        columns = event_keys.c
        statement = (
            sa.select(
                columns.key_id,
                sa.func.count(sa.distinct(columns.position)).label("events"),
                sa.func.min(columns.position).label("first"),
                sa.func.max(columns.position).label("last"),
            )
            .where(columns.ledger_id == ledger_id, columns.position >= position, columns.role != int(Role.SHREDDED))
            .group_by(columns.key_id)
            .order_by(columns.key_id)
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(columns.key_id > after)
        return [(row.key_id, KeyUsage(row.events, row.first, row.last)) for row in self._all(statement)]

    def count_event_keys(self, ledger_id: UUID) -> int:
        """How many rows of ``event_keys`` a ledger has."""
        statement = sa.select(sa.func.count()).select_from(event_keys).where(event_keys.c.ledger_id == ledger_id)
        return int(self._all(statement)[0][0])

    def closed_streams(self, ledger_id: UUID) -> Mapping[bytes, int]:
        """The streams that have ended."""
        statement = sa.select(closed_streams).where(closed_streams.c.ledger_id == ledger_id)
        # SQLite lets a hand put anything there; verify must name it and not stumble.
        return {row.stream_ref: row.position if isinstance(row.position, int) else -1 for row in self._all(statement)}

    def roots_of_erasure(self, ledger_id: UUID, erasure_id: UUID) -> ErasureRoots:
        """The roots that were kept with this erasure's ``SubjectErased``."""
        row = self._one(
            sa.select(erasure_roots).where(
                erasure_roots.c.ledger_id == ledger_id, erasure_roots.c.erasure_id == erasure_id
            )
        )
        if row is None:
            raise IntegrityError("the root of an erasure is missing")
        return ErasureRoots(row.root, row.root_before)

    def add_api_key(self, key: ApiKey) -> None:
        """Add an API key."""
        with writing(self._engine) as connection:
            connection.execute(sa.insert(api_keys), rows.api_key_row(key))

    def api_keys(self) -> Sequence[ApiKey]:
        """All API keys, oldest first."""
        statement = sa.select(api_keys).order_by(api_keys.c.created_at, api_keys.c.key_id)
        return [rows.api_key_from(row) for row in self._all(statement)]

    def api_key(self, key_id: UUID) -> ApiKey | None:
        """The API key of this id."""
        row = self._one(_API_KEY, {"key": key_id})
        return rows.api_key_from(row) if row is not None else None

    def entrance(self, key_id: UUID, ledger_name: str | None) -> tuple[ApiKey | None, LedgerInfo | None]:
        """The API key of this id, and the ledger of this name."""
        answer = _ENTRANCE.look(self._engine, key=key_id, name=ledger_name)
        if not answer:
            return None, None
        (row,) = answer
        found = LedgerInfo(row.found_id, row.found_name, row.found_since) if row.found_id is not None else None
        return rows.api_key_from(row), found

    def revoke_api_key(self, key_id: UUID, now: int) -> bool:
        """Revoke an API key."""
        with writing(self._engine) as connection:
            first_time = sa.func.coalesce(api_keys.c.revoked_at, now)
            statement = sa.update(api_keys).where(api_keys.c.key_id == key_id).values(revoked_at=first_time)
            return connection.execute(statement).rowcount == 1

    def touch_api_key(self, key_id: UUID, now: int) -> None:
        """Note that an API key was used."""
        with writing(self._engine) as connection:
            connection.execute(sa.update(api_keys).where(api_keys.c.key_id == key_id).values(last_used_at=now))

    def check(self) -> None:
        """Raise ``StoreUnavailableError`` unless the database answers and has this version's tables."""
        with reading(self._engine) as connection:
            connection.execute(sa.select(ledgers.c.ledger_id).limit(1))
        if pending_migrations(self._engine):
            raise StoreUnavailableError("the ledger database has pending migrations; run `audit-ledger migrate`")

    def _all(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        return look(self._engine, lambda connection: connection.execute(statement).all())

    def _matching(
        self, statement: sa.Select[Any], column: sa.Column[Any], values: Collection[Any]
    ) -> Iterator[sa.Row[Any]]:
        """The rows of a statement whose column has one of many values, in any order."""
        for chunk in statements.in_chunks(values):
            yield from look(self._engine, partial(self._execute_matching, statement, column, chunk))

    @staticmethod
    def _execute_matching(
        statement: sa.Select[Any], column: sa.Column[Any], values: Sequence[Any], connection: Connection
    ) -> Sequence[sa.Row[Any]]:
        return connection.execute(statement.where(one_of(connection, column, values))).all()

    def _one(self, statement: sa.Executable, values: Mapping[str, Any] | None = None) -> sa.Row[Any] | None:
        return look(self._engine, lambda connection: connection.execute(statement, values).one_or_none())


def _used(ledger_id: UUID, key_ids: Collection[bytes], *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Of the rows of ``event_keys`` of what is sealed under these keys."""
    return sa.select(*columns).where(
        event_keys.c.ledger_id == ledger_id,
        event_keys.c.key_id.in_(key_ids),
        event_keys.c.role != int(Role.SHREDDED),
    )


def _recorded_at(connection: Connection, ledger_id: UUID, position: int) -> int:
    statement = sa.select(events.c.recorded_at).where(events.c.ledger_id == ledger_id, events.c.position == position)
    recorded_at = connection.execute(statement).scalar_one_or_none()
    if recorded_at is None:
        raise IntegrityError(f"the event at position {position} is missing; run `audit-ledger verify`")
    return int(recorded_at)


def _select_shreddings(ledger_id: UUID) -> sa.Select[Any]:
    # An outer join: a key stays dead even where somebody has removed its SubjectErased.
    return (
        sa.select(
            shredded_keys.c.key_id,
            shredded_keys.c.position,
            shredded_keys.c.erasure_id,
            sa.func.coalesce(events.c.recorded_at, 0).label("recorded_at"),
        )
        .select_from(
            shredded_keys.outerjoin(
                events,
                sa.and_(events.c.ledger_id == shredded_keys.c.ledger_id, events.c.position == shredded_keys.c.position),
            )
        )
        .where(shredded_keys.c.ledger_id == ledger_id)
    )
