"""Each write of an erasure, and of the statement that it is final, is broken once: it fails, or it fails and is there
all the same. Then the service starts again, the erasure is completed, and I6 to I9 and I12 hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from keyvault import erasing, vault
from keyvault.errors import VaultUnavailableError
from keyvault.finality import Custody
from keyvault.journal import Journal
from ledger.domain.events import OPERATOR, OpenedEvent
from ledger.domain.query import EventQuery, NameOrRef
from ledger.errors import StoreUnavailableError, SubjectErasedError
from ledger.services.appending.append import append_events
from ledger.services.erase import ErasureOrder, erase_subject, resume_erasures
from ledger.services.finality import sign_final_erasures
from ledger.services.read import query_events
from ledger.services.receipts import get_receipt
from ledger.storage.store import SqlStore
from tests.support.breaking import BROKEN, BreakableDatabase, BreakingPoint, Mode
from tests.support.service import Place, Service, event, new_ledger, open_service, set_up, sqlite_place, verified

# What an erasure writes, in order; and how the person's parts read after the next start, before anybody has resumed it,
# when the write failed. None: as ever. When it persisted, they read as if the next one had failed.
ERASURE: dict[str, str | None] = {
    "the erasure and its subject's state": None,
    "the event and the dead keys": "restricted",
    "the fences, and the keys out": "erased",
    "the line in the journal": "erased",
    "the end": "erased",
}
READS = [*ERASURE.values(), "erased"]
STATEMENT = ("the event", "the statement")
MODES: tuple[Mode, ...] = ("failed", "failed but persisted")


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch) -> BreakingPoint:
    """Through which every write of an erasure and of a statement goes."""
    found = BreakingPoint()
    for module in (erasing, vault):
        monkeypatch.setattr(module, "database", BreakableDatabase(found))
    monkeypatch.setattr(SqlStore, "locked_head", found.around_block(SqlStore.locked_head, StoreUnavailableError))
    monkeypatch.setattr(Journal, "append", found.around(Journal.append))
    return found


@pytest.mark.parametrize("mode", MODES)
def test_every_write_of_an_erasure_may_break(place: Place, point: BreakingPoint, mode: Mode) -> None:
    """Before the resumption nothing is half there, after it the erasure is whole, and nobody else has noticed."""
    service = set_up(place)
    ledger_id = new_ledger(service).ledger_id
    for name in (*ERASURE, "somebody else"):
        record(service, ledger_id, name)
    for number, name in enumerate(ERASURE):
        before = rows_of(place)
        point.arm(number, mode)
        with pytest.raises((VaultUnavailableError, StoreUnavailableError), match=BROKEN):
            erase_subject(service.deps, ledger_id, order(name))
        point.arm(-1, mode)

        fresh = open_service(place)
        begun = (number, mode) != (0, "failed")
        reads = READS[number + (mode == "failed but persisted")]
        assert reasons(events_of(fresh, ledger_id, name)) == ({reads} if reads else set()), name
        done = (number, mode) == (len(ERASURE) - 1, "failed but persisted")
        assert list(resume_erasures(fresh.deps).values()) == ([None] if begun and not done else []), name
        assert erase_subject(fresh.deps, ledger_id, order(name)).repeated == begun, name
        is_erased(fresh, ledger_id, name)
        assert rows_of(place)[: len(before)] == before, "I6"
        fresh.close()
    assert reasons(events_of(service, ledger_id, "somebody else")) == set()
    verified(service, ledger_id)
    assert service.alarms == []
    service.close()


@pytest.mark.parametrize("number", range(len(STATEMENT)), ids=STATEMENT)
@pytest.mark.parametrize("mode", MODES)
def test_a_write_of_the_statement_may_break(place: Place, point: BreakingPoint, mode: Mode, number: int) -> None:
    """Signed again, it is the one that there is; what is there stays as it is, and the log says it once."""
    service = set_up(place)
    service.vault._custody = Custody()
    ledger_id = new_ledger(service).ledger_id
    record(service, ledger_id, "a")
    erasure_id = erase_subject(service.deps, ledger_id, order("a")).erasure.entry.erasure_id
    service.vault.epochs.rotate()
    service.vault.epochs.note_backup(service.deps.clock(), "made")
    service.vault.epochs.destroy(1)
    point.arm(number, mode)
    error = sign_final_erasures(service.deps)[erasure_id]
    assert isinstance(error, (VaultUnavailableError, StoreUnavailableError))
    assert BROKEN in str(error)
    point.arm(-1, mode)
    kept = get_receipt(service.deps, ledger_id, erasure_id).statements
    assert len(kept) == ((number, mode) == (len(STATEMENT) - 1, "failed but persisted"))
    assert sign_final_erasures(service.deps) == ({} if kept else {erasure_id: None})
    (statement,) = get_receipt(service.deps, ledger_id, erasure_id).statements
    assert [statement] == list(kept or [statement])
    own = query_events(service.deps, ledger_id, EventQuery(types=("ErasureFinal",)), cursor=None, limit=9).events
    assert [event.recorded.position for event in own] == [statement.payload["position"]]
    verified(service, ledger_id)
    service.close()


def test_the_table_names_every_write(tmp_path: Path, point: BreakingPoint) -> None:
    """A write that somebody adds has to be broken too."""
    service = set_up(sqlite_place(tmp_path / "home"))
    ledger_id = new_ledger(service).ledger_id
    record(service, ledger_id, "a")
    point.arm(-1, "failed")
    erase_subject(service.deps, ledger_id, order("a"))
    assert point.seen == len(ERASURE)
    service.close()


def record(service: Service, ledger_id: UUID, name: str) -> None:
    """Something is recorded of a person: as its subject, as its actor, and in an event of somebody else."""
    parts = [{"subject": name, "data": {"also": name}}]
    events = [
        event(f"case-{name}", subject=name, data={"of": name}, actor={"subject": name, "data": {}}),
        event(f"case-of-others-{name}", nonpersonal={}, parts=parts),
    ]
    append_events(service.deps, ledger_id, events, OPERATOR)


def order(name: str) -> ErasureOrder:
    """To erase somebody."""
    return ErasureOrder(NameOrRef(name, None), None, None, None, block_unknown=False, requested_by=OPERATOR)


def events_of(service: Service, ledger_id: UUID, name: str) -> Sequence[OpenedEvent]:
    """The events that a person is in."""
    query = EventQuery(involving=NameOrRef(name, None))
    return query_events(service.deps, ledger_id, query, cursor=None, limit=100).events


def reasons(opened: Sequence[OpenedEvent]) -> set[str]:
    """Why anything is hidden."""
    return {redaction.reason for one in opened for redaction in one.redactions}


def is_erased(service: Service, ledger_id: UUID, name: str) -> None:
    """The erasure is whole, once, for good (I7 to I9, I12)."""
    assert resume_erasures(service.deps) == {}
    opened = events_of(service, ledger_id, name)
    assert reasons(opened) == {"erased"}
    assert all(one.subject is None or one.subject.data is None for one in opened)
    assert all(part.data is None for one in opened for part in one.further)
    subject = service.vault.find_subjects(ledger_id, [name])[name]
    dead = [key_id for key_id, purpose in subject.key_ids if purpose != "actor"]
    assert [view.status for view in service.vault.look_up_keys(ledger_id, dead).values()] == ["fenced"]
    assert set(dead) <= service.store.shredded_keys(ledger_id).keys()
    with pytest.raises(SubjectErasedError):
        record(service, ledger_id, name)
    assert service.alarms == []


def rows_of(place: Place) -> list[Any]:
    """All events as they stand in the database."""
    engine = sa.create_engine(place.ledger_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text("SELECT * FROM events ORDER BY position"))]
