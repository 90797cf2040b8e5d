"""Rows come back equal, whichever of the ways they were written: few in a statement, many by COPY, or to SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.domain.events import Envelope, Head, RecordedEvent, Role, SealedPart
from ledger.storage import inserting
from ledger.storage.rows import event_from, event_values, key_values
from ledger.storage.tables import event_keys, events
from tests.support.ledgers import Backend

SMALLEST, LARGEST = -(2**63), 2**63 - 1
UUIDS = st.uuids()
TIMES = st.integers(SMALLEST, LARGEST) | st.sampled_from([SMALLEST, -1, 0, LARGEST])
WORDS = st.text(st.characters(codec="ascii", exclude_characters="\x00"), max_size=128)
PARTS = st.lists(
    st.builds(SealedPart, st.sampled_from(Role), st.binary(min_size=32, max_size=32), st.binary(max_size=200)),
    max_size=5,
).map(tuple)
ENVELOPES = st.builds(
    Envelope,
    ledger_id=UUIDS,
    event_id=UUIDS,
    stream_ref=st.binary(min_size=16, max_size=16),
    category=WORDS,
    event_type=WORDS,
    schema_version=st.integers(1, 2**31 - 1),
    occurred_at=st.none() | TIMES,
    correlation_id=st.none() | UUIDS,
    causation_id=st.none() | UUIDS,
)
EVENTS = st.builds(
    RecordedEvent,
    envelope=ENVELOPES,
    parts=PARTS,
    recorded_by=UUIDS,
    position=st.just(0),
    stream_version=st.integers(1, LARGEST),
    recorded_at=TIMES,
    leaf_hash=st.binary(min_size=32, max_size=32),
)
_firsts = count(0, 10_000)


def written(backend: Backend, few: int, made: Sequence[RecordedEvent]) -> None:
    """Write events behind all that were written before, and look whether they are there as they were."""
    ledger_id = backend.new_ledger().ledger_id
    first = next(_firsts)
    recorded = [
        replace(event, envelope=replace(event.envelope, ledger_id=ledger_id), position=first + number, stream_version=n)
        for number, (n, event) in enumerate(zip(count(first + 1), made, strict=False))
    ]
    with pytest.MonkeyPatch.context() as patch, backend.engine.begin() as connection:
        patch.setattr(inserting, "FEW", few)
        inserting.write_events(connection, ledger_id, recorded, Head(0, (), 0))
        rows = connection.execute(sa.select(events).where(events.c.ledger_id == ledger_id).order_by("position")).all()
        keys = connection.execute(sa.select(event_keys).where(event_keys.c.ledger_id == ledger_id)).all()
        connection.rollback()
    assert [event_from(row) for row in rows] == recorded
    assert [tuple(row) for row in rows] == [event_values(event) for event in recorded]
    assert {tuple(row) for row in keys} == {row for event in recorded for row in key_values(event)}


@pytest.mark.parametrize("few", [0, inserting.FEW], ids=["many", "few"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(EVENTS, max_size=6, unique_by=lambda event: event.envelope.event_id))
def test_rows_come_back_equal(backend: Backend, few: int, made: list[RecordedEvent]) -> None:
    """Every type at its ends, what is NULL, what is empty, and no event at all."""
    written(backend, few, made)


def test_large_and_many_rows_come_back_equal(backend: Backend) -> None:
    """A part of 1 MiB, and more rows than go into one piece."""
    large = tuple(SealedPart(Role.SUBJECT, bytes([number]) * 32, bytes(2**20)) for number in range(3))
    made = [an_event(number, large if number == 700 else ()) for number in range(1203)]
    written(backend, inserting.FEW, made)


def an_event(number: int, parts: tuple[SealedPart, ...]) -> RecordedEvent:
    """One of many."""
    envelope = Envelope(UUID(int=0), UUID(int=number), number.to_bytes(16), "note", "Noted", 1, None, None, None)
    return RecordedEvent(envelope, parts, UUID(int=1), number, 1, number, number.to_bytes(32))
