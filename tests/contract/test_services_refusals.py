"""What is refused is refused in one go, and costs the others nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ledger.domain.events import OPERATOR
from ledger.domain.query import EventQuery, NameOrRef
from ledger.errors import InvalidError, SubjectErasedError
from ledger.ports import KeyVault
from ledger.services import read
from ledger.services.appending.append import append_events
from ledger.services.appending.ingest import BATCH_LINES, Source, ingest_lines
from ledger.services.erase import ErasureOrder, erase_subject
from tests.support.service import Service, event, new_ledger, set_up, sqlite_place


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service on files."""
    return set_up(sqlite_place(tmp_path / "home"))


class CountedVault:
    """Counts how often keys are asked for."""

    def __init__(self, vault: KeyVault) -> None:
        self._vault = vault
        self.reservations = 0

    def __getattr__(self, name: str) -> Any:
        if name == "reserve":
            self.reservations += 1
        return getattr(self._vault, name)


def test_all_erased_subjects_of_a_batch_are_named_at_once(service: Service) -> None:
    """I8: one fault for each event that is refused; nothing is recorded."""
    ledger_id = new_ledger(service).ledger_id
    for name in ("a", "b"):
        append_events(service.deps, ledger_id, [event(f"case-{name}", subject=f"person:{name}", data={})], OPERATOR)
        erase(service, ledger_id, f"person:{name}")
    size = service.store.head(ledger_id).size
    batch = [event(f"new-{name}", subject=f"person:{name}", data={}) for name in ("a", "c", "b")]
    with pytest.raises(SubjectErasedError) as refused:
        append_events(service.deps, ledger_id, batch, OPERATOR)
    assert [fault.index for fault in refused.value.faults] == [0, 2]
    assert service.store.head(ledger_id).size == size


def test_many_refused_lines_take_few_attempts(service: Service) -> None:
    """A file full of events of somebody who was erased is refused about as fast as it would be recorded."""
    ledger_id = new_ledger(service).ledger_id
    append_events(service.deps, ledger_id, [event("case-a", subject="person:a", data={})], OPERATOR)
    erase(service, ledger_id, "person:a")
    lines = [
        json.dumps(
            {"stream": f"case-{n}", "type": "Noted", "subject": f"person:{'a' if n % 2 else n}", "data": {}}
        ).encode()
        for n in range(BATCH_LINES)
    ]
    vault = CountedVault(service.deps.vault)
    deps = service.wrapped(vault=lambda _: as_vault(vault))
    results = list(ingest_lines(deps, ledger_id, lines, Source(OPERATOR, None)))
    assert [result.error is None for result in results] == [n % 2 == 0 for n in range(BATCH_LINES)]
    assert vault.reservations <= 6


def test_the_sixty_first_purpose_of_a_subject_is_refused_alone(service: Service) -> None:
    """Every key of a subject must fit one SubjectErased; other lines go on."""
    ledger_id = new_ledger(service).ledger_id
    parts = [{"subject": "person:a", "purpose": f"p{n}", "data": {}} for n in range(59)]
    append_events(service.deps, ledger_id, [event("case-a", subject="person:a", data={}, parts=parts)], OPERATOR)
    one_more = event("case-a", subject="person:a", purpose="one-more", data={})
    with pytest.raises(InvalidError) as refused:
        append_events(service.deps, ledger_id, [event("case-b"), one_more], OPERATOR)
    assert [(fault.index, fault.pointer) for fault in refused.value.faults] == [(1, "/subject")]
    outcome = erase(service, ledger_id, "person:a")
    assert len(outcome.erasure.entry.key_ids) == 60


def test_a_page_of_large_events_ends_before_its_limit(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one answer holds in memory is bounded by bytes too; the pages join to all events, in order."""
    monkeypatch.setattr(read, "PAGE_BYTES", 100_000)
    monkeypatch.setattr(read, "EXPORT_BYTES", 50_000)
    monkeypatch.setattr(read, "_FIRST_PAGE", 2)
    ledger_id = new_ledger(service).ledger_id
    large = [event("case-a", nonpersonal={"text": "x" * 10_000, "n": n}) for n in range(25)]
    append_events(service.deps, ledger_id, large, OPERATOR)
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        query = EventQuery() if cursor is None else None
        page = read.query_events(service.deps, ledger_id, query, cursor=cursor, limit=1000)
        assert len(page.events) <= 16
        found += [opened.nonpersonal["n"] for opened in page.events if opened.nonpersonal]
        cursor, pages = page.next, pages + 1
    assert found == list(range(25))
    assert pages >= 2


def erase(service: Service, ledger_id: Any, name: str) -> Any:
    """Erase everything of a subject."""
    order = ErasureOrder(NameOrRef(name, None), None, None, None, block_unknown=False, requested_by=OPERATOR)
    return erase_subject(service.deps, ledger_id, order)


def as_vault(vault: Any) -> KeyVault:
    """A wrapper in the vault's place."""
    wrapped: KeyVault = vault
    return wrapped
