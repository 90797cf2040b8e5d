"""The ledgers that benchmarks plant are real ones: what is measured on them holds for others."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest

from ledger.domain.query import EventQuery, NameOrRef
from ledger.services.read import export_events, query_events
from ledger.storage.database import open_engine
from scripts.benchmarks.support.planting import (
    EVENTS_OF_A_CORRELATION,
    MANY,
    SPECIAL,
    WRITERS,
    Planter,
    correlation,
    writer,
)
from tests.support.service import Place, Service, new_ledger, set_up, verified

SIZE = 400
LONG = 20
TOGETHER = 300


@pytest.fixture
def planted(place: Place) -> Iterator[tuple[Service, UUID]]:
    """A small ledger of either engine."""
    service = set_up(place)
    engine = open_engine(place.ledger_url)
    ledger_id = new_ledger(service).ledger_id
    Planter(service.deps, engine, ledger_id, people=10, long=LONG, many=TOGETHER).plant(SIZE)
    engine.dispose()
    yield service, ledger_id
    service.close()


def test_a_planted_ledger_is_intact_and_opens(planted: tuple[Service, UUID]) -> None:
    """Leaves, frontier and every sealed part; nothing of it is redacted."""
    service, ledger_id = planted
    assert verified(service, ledger_id).size == SIZE
    opened = [event for page in export_events(service.deps, ledger_id, EventQuery()) for event in page]
    assert len(opened) == SIZE
    assert not any(event.redactions for event in opened)


def test_questions_about_it_find_what_they_are_meant_to(planted: tuple[Service, UUID]) -> None:
    """A filter that matched nothing would be quick."""
    service, ledger_id = planted
    expected = {
        EventQuery(stream=NameOrRef("patient-long-0", None)): LONG,
        EventQuery(subject=NameOrRef(f"long-{SPECIAL - 1}", None)): LONG,
        EventQuery(subject=NameOrRef("once-0", None)): 1,
        EventQuery(subject=NameOrRef(f"once-{SPECIAL - 1}", None)): 1,
        EventQuery(involving=NameOrRef("many-0", None)): TOGETHER,
        EventQuery(involving=NameOrRef(f"many-{MANY - 1}", None)): TOGETHER,
        EventQuery(types=("Rare",)): 10,
        EventQuery(actor=NameOrRef("group:3", None)): SIZE // 80,
        EventQuery(correlation_id=correlation(SIZE // 2)): EVENTS_OF_A_CORRELATION,
        EventQuery(recorded_by=writer(3)): SIZE // WRITERS,
        EventQuery(category="nothing"): 0,
    }
    found = {
        query: len(query_events(service.deps, ledger_id, query, cursor=None, limit=1000).events) for query in expected
    }
    assert found == expected
