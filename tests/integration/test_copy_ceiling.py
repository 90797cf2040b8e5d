"""The ceiling that bulk appends are measured against takes the very same rows, into the very same tables."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from ledger.domain.events import OPERATOR
from ledger.services.appending.append import append_events
from scripts.benchmarks.support.copying import CopyCeiling
from tests.support.postgres import PostgresCluster
from tests.support.service import event, new_ledger, postgres_place, set_up

EVENTS = 20


def test_the_rows_that_are_copied_are_those_that_were_recorded(postgres: PostgresCluster, tmp_path: Path) -> None:
    """All of them, in two parts; and the copy is as append-only as the ledger."""
    place = postgres_place(postgres, tmp_path / "home")
    service = set_up(place)
    ledger_id = new_ledger(service).ledger_id
    batch = [event(f"patient-{number}", subject=f"p:{number}", data={"n": number}) for number in range(EVENTS)]
    append_events(service.deps, ledger_id, batch, OPERATOR)
    service.close()

    ceiling = CopyCeiling(postgres, place.ledger_url)
    assert ceiling.size() == EVENTS
    half = EVENTS // 2
    assert ceiling.load([ceiling.rows(0, half), ceiling.rows(half, EVENTS)], EVENTS).count == EVENTS

    statement = "SELECT * FROM events JOIN event_keys USING (ledger_id, position) ORDER BY position, part"
    with (
        postgres.connect(urlsplit(place.ledger_url).path.strip("/")) as recorded,
        postgres.connect(ceiling.database) as copied,
    ):
        rows = recorded.execute(statement).fetchall()
        assert len(rows) >= EVENTS
        assert copied.execute(statement).fetchall() == rows
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            copied.execute("DELETE FROM events")
