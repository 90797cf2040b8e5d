"""Ledgers of any size in little time: events sealed and placed as appends do it, put in by COPY."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Any, Final
from uuid import UUID

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy import Connection, Engine

from ledger.domain.events import Envelope, RecordedEvent, Role, SealedEvent
from ledger.domain.ids import uuid7
from ledger.domain.merkle import encode_frontier
from ledger.domain.names import ACTOR_PURPOSE
from ledger.domain.sequence import place_events
from ledger.ports import DataKey
from ledger.services.appending.recording import PlainPart, seal_event
from ledger.services.dependencies import Dependencies
from ledger.storage import tables
from scripts.benchmarks.support.payloads import visit
from tests.support import rows

PEOPLE: Final = 2_000
CATEGORIES: Final = ("patient", "order", "lab", "ward", "claim", "visit", "consent", "account")
TYPES: Final = 20
WRITERS: Final = 4
GROUPS: Final = 20
EVENTS_OF_A_CORRELATION: Final = 5
ACTED: Final = 4
"""Of so many events one has an actor."""

LONG: Final = 1_000
"""The events of the streams and people that have the same number of them in every ledger, spread over all of it."""

SPECIAL: Final = 6
"""How many streams have so many events; and how many people have one event only."""

STRETCH: Final = 20
"""A ledger must have as many times the events of its long streams."""

MANY: Final = 4
"""How many people take part in ``many`` events each, beside whoever these are about."""

BEGAN: Final = 1_700_000_000_000_000
STEP: Final = 1_000_000
"""Microseconds from one batch to the next."""

BATCH: Final = 5_000
_MINT: Final = 500
_OCCURRED_BEFORE: Final = 3 * 3_600 * 1_000_000


@dataclass(frozen=True, slots=True)
class _Person:
    name: str
    stream: str
    stream_ref: bytes
    key: DataKey


@dataclass
class Planter:
    """Fills one ledger. The streams ``patient-long-0`` and so on have ``long`` events each, of people of that name; the
    people ``once-0`` and so on have one event each; all others, ``people`` of them, share the rest evenly. ``many-0``
    and so on take part in ``many`` of these events, strewn over all of the ledger."""

    deps: Dependencies
    engine: Engine
    ledger_id: UUID
    people: int = PEOPLE
    long: int = LONG
    many: int = 0
    _people: dict[str, _Person] = field(default_factory=dict)
    _groups: list[tuple[str, DataKey]] = field(default_factory=list)
    _crowd: list[tuple[str, DataKey]] = field(default_factory=list)
    _crowded: frozenset[int] = frozenset()
    _versions: Counter[bytes] = field(default_factory=Counter)

    def plant(self, size: int) -> None:
        """Give the empty ledger so many events."""
        if size < STRETCH * self.long:
            raise ValueError(f"a ledger for this has at least {STRETCH * self.long} events")
        if self.many > size:
            raise ValueError(f"{size} events cannot have somebody in {self.many} of them")
        # At no steady beat: what is kept of where somebody occurs would be smaller than it ever is.
        self._crowded = frozenset(Random(size).sample(range(size), self.many))  # noqa: S311 - no secret
        self._mint()
        events = (self._event(number, size) for number in range(size))
        now = BEGAN
        while batch := list(islice(events, BATCH)):
            head = self.deps.store.head(self.ledger_id)
            recorded, head = place_events(batch, head, self._versions, now)
            self._versions.update(event.envelope.stream_ref for event in batch)
            moved = {
                "size": head.size,
                "frontier": encode_frontier(head.frontier),
                "last_recorded_at": head.last_recorded_at,
            }
            with self.engine.begin() as connection:
                _write(connection, recorded)
                condition = tables.heads.c.ledger_id == self.ledger_id
                connection.execute(sa.update(tables.heads).where(condition).values(**moved))
            now += STEP
        with self.engine.begin() as connection:
            # As the server does it by itself sooner or later.
            connection.execute(sa.text("ANALYZE"))

    def _mint(self) -> None:
        names = {
            f"{CATEGORIES[number % len(CATEGORIES)]}-{number}": f"person:{number}" for number in range(self.people)
        }
        names |= {f"patient-long-{number}": f"long-{number}" for number in range(SPECIAL)}
        names |= {f"patient-once-{number}": f"once-{number}" for number in range(SPECIAL)}
        everybody = iter(names.items())
        while some := dict(islice(everybody, _MINT)):
            made = self.deps.vault.reserve(self.ledger_id, some, [(name, "") for name in some.values()], mint=True)
            refs: Mapping[str, bytes] = made.subjects
            for stream, name in some.items():
                self._people[name] = _Person(name, stream, made.streams[stream].ref, made.keys[refs[name], ""])
        self._groups = self._mint_beside([f"group:{number}" for number in range(GROUPS)], ACTOR_PURPOSE)
        self._crowd = self._mint_beside([f"many-{number}" for number in range(MANY if self.many else 0)], "")

    def _mint_beside(self, names: list[str], purpose: str) -> list[tuple[str, DataKey]]:
        """Keys of people who own no stream."""
        made = self.deps.vault.reserve(self.ledger_id, {}, [(name, purpose) for name in names], mint=True)
        return [(name, made.keys[made.subjects[name], purpose]) for name in names]

    def _event(self, number: int, size: int) -> SealedEvent:
        person = self._people[self._who(number, size)]
        event_id = uuid7(BEGAN + number, os.urandom(10))
        envelope = Envelope(
            ledger_id=self.ledger_id,
            event_id=event_id,
            stream_ref=person.stream_ref,
            category=person.stream.partition("-")[0],
            event_type="Rare" if number % (size // 10) == 1 else f"Type{number * 31 % TYPES}",
            schema_version=1,
            occurred_at=None if number % 3 == 0 else BEGAN + number // BATCH * STEP - number * 7919 % _OCCURRED_BEFORE,
            correlation_id=correlation(number),
            causation_id=None,
        )
        parts = [
            PlainPart(
                Role.SUBJECT, person.key.key_id, person.key, subject=person.name, stream=person.stream,
                data=visit(number),
            )
        ]  # fmt: skip
        if number % ACTED == 0:
            name, key = self._groups[number // ACTED % GROUPS]
            parts.append(PlainPart(Role.ACTOR, key.key_id, key, subject=name, data={}))
        if number in self._crowded:
            parts += [PlainPart(Role.FURTHER, key.key_id, key, subject=name, data={}) for name, key in self._crowd]
        return seal_event(envelope, parts, writer(number))

    def _who(self, number: int, size: int) -> str:
        """Whose event this is: of those with ``long`` events each gets one in each stretch of the ledger."""
        length = size // self.long
        stretch, place = divmod(number, length)
        if stretch < self.long and place < SPECIAL:
            return f"long-{place}"
        # In the middle of the ledger, behind those of its stretch.
        if stretch == self.long // 2 and place < 2 * SPECIAL:
            return f"once-{place - SPECIAL}"
        return f"person:{number * 7919 % self.people}"


def correlation(number: int) -> UUID:
    """The correlation id of an event, by its position."""
    return uuid7(BEGAN, (number // EVENTS_OF_A_CORRELATION).to_bytes(10))


def writer(number: int) -> UUID:
    """Who recorded an event, by its position."""
    return UUID(int=1 + number % WRITERS)


def _write(connection: Connection, recorded: list[RecordedEvent]) -> None:
    found = [rows.event_row(event) for event in recorded]
    keys = [row for event in recorded for row in rows.key_rows(event)]
    if connection.dialect.name == "sqlite":
        connection.execute(sa.insert(tables.events), found)
        connection.execute(sa.insert(tables.event_keys), keys)
        return
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError("only psycopg copies")
    _copy(driver, "events", found)
    _copy(driver, "event_keys", keys)


def _copy(driver: psycopg.Connection[Any], table: str, values: list[Any]) -> None:
    names = list(values[0])
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, names))
    )
    with driver.cursor().copy(statement) as copy:
        for row in _rows(values, names):
            copy.write_row(row)


def _rows(values: list[Any], names: list[str]) -> Iterator[list[Any]]:
    return ([row[name] for name in names] for row in values)
