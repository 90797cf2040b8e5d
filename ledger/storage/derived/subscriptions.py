"""Durable subscriptions and what they have parked."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, exc

from ledger.errors import AlreadyExistsError, Fault
from ledger.ports import CursorKey, ParkedEvent, Subscription
from ledger.storage.database import one_of, read, writing
from ledger.storage.derived.cursors import advance_cursor, insert_cursor
from ledger.storage.selection import in_share, last_byte
from ledger.storage.statements import in_chunks
from ledger.storage.tables import cursors, parked_events, subscriptions


class SqlSubscriptions:
    """Satisfies ``ledger.ports.Subscriptions``.

    Whatever changes parked messages locks a cursor first, so that parking and marking for replay never miss each other.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_subscription(self, ledger_id: UUID, subscription: Subscription) -> None:
        """Add it and a cursor for each partition."""
        row = {
            "ledger_id": ledger_id,
            "name": subscription.name,
            "category": subscription.category,
            "types": json.dumps(subscription.types),
            "partitions": subscription.partitions,
            "max_tries": subscription.max_tries,
            "on_failure": subscription.on_failure,
            "after": subscription.after,
            "created_at": subscription.created_at,
            "created_by": subscription.created_by,
        }
        with writing(self._engine) as connection:
            try:
                connection.execute(sa.insert(subscriptions), row)
            except exc.IntegrityError:
                taken = [Fault("/name", "is taken")]
                raise AlreadyExistsError("there is a subscription of this name", taken) from None
            for number in range(subscription.partitions):
                key = CursorKey("subscription", subscription.name, number)
                insert_cursor(connection, ledger_id, key, 1, "running", subscription.after)

    def subscriptions(self, ledger_id: UUID) -> Sequence[Subscription]:
        """All, in order of their names."""
        columns = subscriptions.c
        statement = sa.select(subscriptions).where(columns.ledger_id == ledger_id).order_by(columns.name)
        return [_subscription_from(row) for row in self._all(statement)]

    def subscription(self, ledger_id: UUID, name: str) -> Subscription | None:
        """The subscription of this name."""
        columns = subscriptions.c
        statement = sa.select(subscriptions).where(columns.ledger_id == ledger_id, columns.name == name)
        return next((_subscription_from(row) for row in self._all(statement)), None)

    def remove_subscription(self, ledger_id: UUID, name: str) -> bool:
        """Remove it with its cursors and parked messages."""
        columns = subscriptions.c
        with writing(self._engine) as connection:
            # The cursors first: who holds one of them has lost it, and parks nothing behind our back.
            connection.execute(sa.delete(cursors).where(*_cursors_of(ledger_id, name)))
            connection.execute(sa.delete(parked_events).where(*_parked_of(ledger_id, name)))
            gone = sa.delete(subscriptions).where(columns.ledger_id == ledger_id, columns.name == name)
            return connection.execute(gone).rowcount == 1

    def pass_over(
        self,
        ledger_id: UUID,
        subscription: Subscription,
        consumer: UUID,
        moves: Sequence[tuple[int, int, int]],
        now: int,
    ) -> int:
        """Move cursors that nobody else holds."""
        columns = cursors.c
        # Another subscription of this name, made since, can want what this one does not.
        still_there = (
            sa.select(subscriptions.c.name)
            .where(
                subscriptions.c.ledger_id == ledger_id,
                subscriptions.c.name == subscription.name,
                subscriptions.c.created_at == subscription.created_at,
            )
            .exists()
        )
        moved = 0
        with writing(self._engine) as connection:
            # In one order, so that two who do the same never wait for each other.
            for partition, old, new in sorted(moves):
                moved += connection.execute(
                    sa.update(cursors)
                    .where(
                        *_cursors_of(ledger_id, subscription.name),
                        columns.number == partition,
                        columns.position == old,
                        columns.state == "running",
                        sa.or_(columns.holder.is_(None), columns.lease_until <= now, columns.holder == consumer),
                        still_there,
                    )
                    .values(position=new, moved_at=now)
                ).rowcount
        return moved

    def park(
        self,
        ledger_id: UUID,
        key: CursorKey,
        holder: UUID,
        old: int,
        events: Sequence[ParkedEvent],
        new: int,
        now: int,
        lease_until: int,
    ) -> None:
        """Put events aside and move the partition's cursor."""
        with writing(self._engine) as connection:
            advance_cursor(connection, ledger_id, key, holder, old, new, now, lease_until)
            if lease_until <= now:
                # What else was delivered with these is delivered again, and cannot be acknowledged past them.
                ended = sa.update(cursors).where(*_cursors_of(ledger_id, key.name), cursors.c.number == key.number)
                connection.execute(ended.values(leased_to=new))
            known = _known(connection, ledger_id, key.name, [event.position for event in events])
            marked = _marked(connection, ledger_id, key.name, {event.stream_ref for event in events})
            rows = [
                {
                    "ledger_id": ledger_id,
                    "subscription": key.name,
                    "position": event.position,
                    "stream_ref": event.stream_ref,
                    "tries": event.tries,
                    "error": event.error,
                    "parked_at": event.parked_at,
                    "replay": event.stream_ref in marked,
                }
                for event in events
                if event.position not in known
            ]
            if rows:
                connection.execute(sa.insert(parked_events), rows)

    def parked(self, ledger_id: UUID, name: str, after: int, limit: int) -> Sequence[ParkedEvent]:
        """What is parked, in order of positions."""
        position = parked_events.c.position
        statement = sa.select(parked_events).where(*_parked_of(ledger_id, name), position > after)
        return [_parked_from(row) for row in self._all(statement.order_by(position).limit(limit))]

    def parked_counts(self, ledger_id: UUID) -> Mapping[str, int]:
        """How many messages are parked, by subscription."""
        columns = parked_events.c
        statement = (
            sa.select(columns.subscription, sa.func.count().label("parked"))
            .where(columns.ledger_id == ledger_id)
            .group_by(columns.subscription)
        )
        return {row.subscription: row.parked for row in self._all(statement)}

    def parked_streams(self, ledger_id: UUID, name: str, stream_refs: Collection[bytes]) -> frozenset[bytes]:
        """Which of these streams have something parked."""
        return read(self._engine, lambda connection: _streams(connection, ledger_id, name, stream_refs))

    def replay(self, ledger_id: UUID, name: str, positions: Collection[int] | None) -> int:
        """Mark parked messages, and with them their streams, for replay."""
        columns = parked_events.c
        mark = sa.update(parked_events).where(*_parked_of(ledger_id, name), columns.replay.is_(False))
        mark = mark.values(replay=True)
        with writing(self._engine) as connection:
            locked = sa.select(cursors.c.number).where(*_cursors_of(ledger_id, name)).order_by(cursors.c.number)
            connection.execute(locked.with_for_update()).all()
            if positions is None:
                return connection.execute(mark).rowcount
            chosen = sa.select(columns.stream_ref).where(*_parked_of(ledger_id, name))
            refs = {
                ref
                for chunk in in_chunks(positions)
                for ref in connection.execute(chosen.where(one_of(connection, columns.position, chunk))).scalars()
            }
            return sum(
                connection.execute(mark.where(one_of(connection, columns.stream_ref, chunk))).rowcount
                for chunk in in_chunks(refs)
            )

    def replaying(self, ledger_id: UUID, name: str) -> frozenset[int]:
        """The last bytes of the refs of streams that wait for replay."""
        columns = parked_events.c
        byte = last_byte(columns.stream_ref).label("byte")
        statement = sa.select(byte).where(*_parked_of(ledger_id, name), columns.replay.is_(True)).distinct()
        return frozenset(row.byte[0] for row in self._all(statement))

    def next_replay(self, ledger_id: UUID, name: str, share: tuple[int, int], limit: int) -> Sequence[ParkedEvent]:
        """The first messages of one stream that waits for replay."""
        columns = parked_events.c
        all_parked = sa.select(parked_events).where(*_parked_of(ledger_id, name)).order_by(columns.position)

        def first_of_a_stream(connection: Connection) -> Sequence[sa.Row[Any]]:
            marked = all_parked.where(columns.replay.is_(True), in_share(columns.stream_ref, share)).limit(1)
            first = connection.execute(marked).one_or_none()
            if first is None:
                return ()
            return connection.execute(all_parked.where(columns.stream_ref == first.stream_ref).limit(limit)).all()

        return [_parked_from(row) for row in read(self._engine, first_of_a_stream)]

    def unpark(
        self,
        ledger_id: UUID,
        key: CursorKey,
        holder: UUID,
        old: int,
        parked: tuple[bytes, int],
        now: int,
        lease_until: int,
    ) -> None:
        """What is parked of a stream up to a position was handled."""
        columns = parked_events.c
        stream_ref, position = parked
        of_stream = (*_parked_of(ledger_id, key.name), columns.stream_ref == stream_ref, columns.replay.is_(True))
        with writing(self._engine) as connection:
            advance_cursor(connection, ledger_id, key, holder, old, old, now, lease_until)
            connection.execute(sa.delete(parked_events).where(*of_stream, columns.position <= position))

    def repark(
        self, ledger_id: UUID, key: CursorKey, holder: UUID, old: int, parked: tuple[bytes, int], error: str, now: int
    ) -> int:
        """A replay has failed at a message."""
        columns = parked_events.c
        stream_ref, position = parked
        of_stream = (*_parked_of(ledger_id, key.name), columns.stream_ref == stream_ref, columns.replay.is_(True))
        with writing(self._engine) as connection:
            advance_cursor(connection, ledger_id, key, holder, old, old, now, now)
            connection.execute(sa.delete(parked_events).where(*of_stream, columns.position < position))
            failed = sa.update(parked_events).where(*of_stream, columns.position == position)
            failed = failed.values(tries=columns.tries + 1, error=error)
            tries = connection.execute(failed.returning(columns.tries)).scalar_one_or_none()
            connection.execute(sa.update(parked_events).where(*of_stream).values(replay=False))
            return int(tries or 0)

    def _all(self, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
        return read(self._engine, lambda connection: connection.execute(statement).all())


def _known(connection: Connection, ledger_id: UUID, name: str, positions: Collection[int]) -> frozenset[int]:
    """Which of these positions are parked."""
    column = parked_events.c.position
    statement = sa.select(column).where(*_parked_of(ledger_id, name))
    return frozenset(
        position
        for chunk in in_chunks(positions)
        for position in connection.execute(statement.where(one_of(connection, column, chunk))).scalars()
    )


def _marked(connection: Connection, ledger_id: UUID, name: str, stream_refs: Collection[bytes]) -> frozenset[bytes]:
    """Which of these streams wait for replay."""
    return _streams(connection, ledger_id, name, stream_refs, parked_events.c.replay.is_(True))


def _streams(
    connection: Connection,
    ledger_id: UUID,
    name: str,
    stream_refs: Collection[bytes],
    *conditions: sa.ColumnElement[bool],
) -> frozenset[bytes]:
    column = parked_events.c.stream_ref
    statement = sa.select(column).where(*_parked_of(ledger_id, name), *conditions).distinct()
    return frozenset(
        ref
        for chunk in in_chunks(stream_refs)
        for ref in connection.execute(statement.where(one_of(connection, column, chunk))).scalars()
    )


def _cursors_of(ledger_id: UUID, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    columns = cursors.c
    return columns.ledger_id == ledger_id, columns.kind == "subscription", columns.name == name


def _parked_of(ledger_id: UUID, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    return parked_events.c.ledger_id == ledger_id, parked_events.c.subscription == name


def _subscription_from(row: sa.Row[Any]) -> Subscription:
    return Subscription(
        name=row.name,
        category=row.category,
        types=tuple(json.loads(row.types)),
        partitions=row.partitions,
        max_tries=row.max_tries,
        on_failure=row.on_failure,
        after=row.after,
        created_at=row.created_at,
        created_by=row.created_by,
    )


def _parked_from(row: sa.Row[Any]) -> ParkedEvent:
    return ParkedEvent(row.position, row.stream_ref, row.tries, row.error, row.parked_at, row.replay)
