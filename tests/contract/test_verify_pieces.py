"""A ledger that is verified in pieces, by several processes or in several runs, gets the verdict of one go."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from ledger.domain.events import OPERATOR
from ledger.domain.verdicts import MOST_LISTED, VerifyReport
from ledger.errors import StoreUnavailableError
from ledger.services.appending.append import append_events
from ledger.services.dependencies import Dependencies
from ledger.services.proving.publishing import publish
from ledger.services.verifying import ranges
from ledger.services.verifying.processes import Processes
from ledger.services.verifying.running import verify_ledger
from ledger.services.verifying.verification import Verified
from ledger.storage import tables
from ledger.storage.database import open_engine
from tests.support.ledgers import Ledger, a_fact, a_visit
from tests.support.service import Place, event, new_ledger, open_service, set_up

WIDTHS = [1, 2, 4, 8, 64]


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    """Seventeen events, two of them erasures, with checkpoints in between."""
    for number in range(5):
        ledger.append(a_visit("A"), a_fact(), a_visit(f"P{number}", actor="group:L"))
        if number in (1, 3):
            ledger.erase(f"patient:P{number}")
        ledger.backend.clock.now += 2_000_000
        publish(ledger.deps, ledger.ledger_id)
    assert ledger.size() == 17
    return ledger


def verified(ledger: Ledger, **options: Any) -> VerifyReport:
    """The report, in one go unless the options say otherwise."""
    return verify_ledger(ledger.deps, ledger.ledger_id, lambda *_: None, **options)


def breakages(ledger: Ledger) -> Iterator[Callable[[], None]]:
    """Some things that somebody could do."""
    columns, keys = tables.events.c, tables.event_keys.c
    own = columns.ledger_id == ledger.ledger_id
    yield lambda: ledger.edit(8, event_type="Other")
    yield lambda: ledger.edit(7, recorded_at=5)
    yield lambda: ledger.backend.tamper(sa.delete(tables.events).where(own, columns.position == 16))
    here = (keys.ledger_id == ledger.ledger_id, keys.position == 3)
    yield lambda: ledger.backend.tamper(sa.delete(tables.event_keys).where(*here))
    yield lambda: ledger.put(2, ledger.recorded()[2], new_leaf=True)
    yield lambda: ledger.backend.tamper(sa.update(tables.checkpoints).values(note="nothing"))


def test_the_width_of_the_pieces_changes_no_verdict(filled: Ledger) -> None:
    """Whatever is wrong, and wherever the pieces end."""
    whole = verified(filled)
    assert (whole.intact, whole.checkpoints, sum(whole.counts.values())) == (True, 5, 17)
    for width in WIDTHS:
        assert verified(filled, width=width) == whole
    for breakage in breakages(filled):
        breakage()
        whole = verified(filled)
        assert not whole.intact
        for width in WIDTHS:
            assert verified(filled, width=width) == whole


@pytest.mark.parametrize("width", [2, 8])
def test_going_on_from_every_size_of_an_earlier_run(filled: Ledger, width: int) -> None:
    """The root is the same, only what came since is counted, and what is wrong since is found."""
    whole = verified(filled)
    sizes: list[Verified] = []
    verified(filled, width=width, keep=sizes.append)
    assert [one.size for one in sizes] == [*range(width, 17, width), 17, 17]
    assert [one.compared for one in sizes[-2:]] == [0, 17]
    for since in sizes:
        report = verified(filled, width=width, since=since)
        assert (report.root, report.intact, report.first) == (whole.root, True, since.size)
        assert sum(report.counts.values()) == 17 - since.size
    filled.append(a_visit("A"), a_visit("Z"))
    filled.erase("patient:Z")
    assert all(verified(filled, width=width, since=since).intact for since in sizes)
    filled.edit(18, event_type="Other")
    for since in sizes:
        found = verified(filled, width=width, since=since).findings
        assert 18 in {finding.position for finding in found}


def test_a_log_that_was_built_anew_behind_an_earlier_run_is_found(filled: Ledger) -> None:
    """Its rows are not read again, but the head must go on from the tree of then."""
    kept: list[Verified] = []
    verified(filled, keep=kept.append)
    forged = dataclasses.replace(kept[-1], frontier=(b"x" * 32, *kept[-1].frontier[1:]))
    (finding,) = verified(filled, since=forged).findings
    assert (finding.position, finding.last, finding.verdict) == (0, 15, "tampered")


def test_only_some_findings_are_listed_and_all_are_counted(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger without a single good row needs no more memory than any other."""
    monkeypatch.setattr("ledger.domain.verdicts.MOST_LISTED", 3)
    filled.backend.tamper(
        sa.update(tables.events).where(tables.events.c.ledger_id == filled.ledger_id).values(category="other")
    )
    report = verified(filled, width=4)
    assert (len(report.findings), report.counts["tampered"]) == (3, 17)
    assert report.number >= 17
    assert MOST_LISTED == 1000


@contextmanager
def dependencies_of(place: Place) -> Iterator[Dependencies]:
    """For another process."""
    service = open_service(place)
    try:
        yield service.deps
    finally:
        service.close()


def test_several_processes_find_what_one_finds(place: Place) -> None:
    """Each has connections of its own; when a database goes away, the error arrives as what it is."""
    service = set_up(place)
    ledger_id = new_ledger(service).ledger_id
    people = [event(f"case-{n}", subject=f"person:{n % 7}", data={"n": n}) for n in range(150)]
    append_events(service.deps, ledger_id, people, OPERATOR)
    here = verify_ledger(service.deps, ledger_id, lambda *_: None)
    with Processes(partial(dependencies_of, place), 2) as processes:
        run = partial(verify_ledger, service.deps, ledger_id, lambda *_: None, workers=processes, width=16)
        assert run() == here
        tamper(place, ledger_id)
        report = run()
        assert [(one.position, one.verdict) for one in report.findings] == [(100, "tampered")]
        assert report == verify_ledger(service.deps, ledger_id, lambda *_: None)
    gone = dataclasses.replace(place, ledger_url=f"sqlite:///{place.home}/nowhere/ledger.db")
    with Processes(partial(dependencies_of, gone), 1) as processes, pytest.raises(StoreUnavailableError):
        verify_ledger(service.deps, ledger_id, lambda *_: None, workers=processes)
    service.close()


def tamper(place: Place, ledger_id: UUID) -> None:
    """Change a row by hand."""
    engine = open_engine(place.ledger_url)
    with engine.begin() as connection:
        sqlite = engine.dialect.name == "sqlite"
        connection.exec_driver_sql(f"DROP TRIGGER {'events_no_update' if sqlite else 'events_append_only ON events'}")
        here = (tables.events.c.ledger_id == ledger_id, tables.events.c.position == 100)
        connection.execute(sa.update(tables.events).where(*here).values(event_type="Other"))
    engine.dispose()


def test_a_range_is_read_in_chunks_that_fit_memory(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large events make small chunks, and the verdict stays."""
    whole = verified(filled)
    monkeypatch.setattr(ranges, "CHUNK_BYTES", 1)
    assert verified(filled) == whole
