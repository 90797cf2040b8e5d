"""SQLite lets a hand put a value of any type into any column. One such row must not hide the others (I9, I10)."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ledger.domain.events import OPERATOR
from ledger.domain.query import EventQuery
from ledger.services.appending.append import append_events
from ledger.services.read import query_events
from ledger.services.verifying.running import verify_ledger
from ledger.storage.tables import events
from tests.support.service import event, new_ledger, open_service, set_up, sqlite_place

COLUMNS = [column.name for column in events.columns if column.name not in ("ledger_id", "position")]
WRONG = ["'text'", "x'ff00ff'", "CAST(x'ff00ff' AS TEXT)", "-1", "3.5"]
EDITED = 1


@pytest.mark.parametrize("column", COLUMNS)
def test_a_value_of_a_wrong_type_is_named_and_hides_no_other_event(tmp_path: Path, column: str) -> None:
    """Verify names the position; the event reads as unreadable; its neighbours read as ever."""
    place = sqlite_place(tmp_path / "home")
    service = set_up(place)
    ledger_id = new_ledger(service).ledger_id
    people = [
        event(f"case-{n}", subject=f"person:{n}", data={"n": n}, occurred_at="1970-01-01T00:00:00Z") for n in range(3)
    ]
    append_events(service.deps, ledger_id, people, OPERATOR)
    service.close()
    for wrong in WRONG:
        database = sqlite3.connect(place.home / "ledger.db")
        original = database.execute(f"SELECT {column} FROM events WHERE position = ?", (EDITED,)).fetchone()[0]
        database.execute("DROP TRIGGER IF EXISTS events_no_update")
        database.execute(f"UPDATE events SET {column} = {wrong} WHERE position = ?", (EDITED,))
        database.commit()

        service = open_service(place)
        report = verify_ledger(service.deps, ledger_id, lambda *_: None)
        page = query_events(service.deps, ledger_id, EventQuery(), cursor=None, limit=10)
        service.close()
        database.execute(f"UPDATE events SET {column} = ? WHERE position = ?", (original, EDITED))
        database.commit()
        database.close()

        assert EDITED in {finding.position for finding in report.findings}, wrong
        shown = [(opened.subject.data if opened.subject else None) for opened in page.events]
        assert shown == [{"n": 0}, None, {"n": 2}], wrong
        assert {redaction.reason for redaction in page.events[EDITED].redactions} == {"unreadable"}, wrong
