"""An erasure is killed with SIGKILL at each of its steps; the next start completes it (I6 to I9, I11, I12)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keyvault import erasure_store, journal
from keyvault import store as vault_store
from ledger.domain.events import OPERATOR, OpenedEvent
from ledger.domain.query import EventQuery, NameOrRef
from ledger.errors import SubjectErasedError
from ledger.services import erase
from ledger.services.appending.append import append_events
from ledger.services.erase import ErasureOrder, erase_subject, resume_erasures
from ledger.services.read import query_events
from ledger.storage import head_lock
from tests.support.processes import processes
from tests.support.service import (
    Place,
    Service,
    event,
    new_ledger,
    open_service,
    set_up,
    sqlite_place,
    verified,
)

ORDER = ErasureOrder(
    NameOrRef("person:a", None), None, "17(1)(b)", "case 1", block_unknown=False, requested_by=OPERATOR
)


def die(*_: object, **__: object) -> NoReturn:
    """The process is gone, as in a power cut: nothing is flushed, nothing is rolled back in order."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def die_after(owner: Any, name: str) -> None:
    """Die when this function has done its work."""
    work = getattr(owner, name)

    def and_die(*arguments: object, **named: object) -> NoReturn:
        work(*arguments, **named)
        die()

    setattr(owner, name, and_die)


def die_before(owner: Any, name: str) -> None:
    """Die instead of calling this function."""
    setattr(owner, name, die)


# Where the process dies, and how the parts read before anybody has resumed: None = as ever.
CRASHES: list[tuple[str, Callable[[], None], str | None]] = [
    ("step 1, before the commit", lambda: die_after(erasure_store, "insert_erasure"), None),
    ("behind step 1", lambda: die_before(erase, "_record_shredding"), "restricted"),
    ("step 2, under the head lock", lambda: die_before(head_lock.SqlHeadLock, "shred"), "restricted"),
    ("step 2, before the commit", lambda: die_after(head_lock.SqlHeadLock, "shred"), "restricted"),
    ("behind step 2", lambda: die_after(erase, "_record_shredding"), "erased"),
    ("step 3, before the commit", lambda: die_after(vault_store, "delete_keys"), "erased"),
    ("behind step 3", lambda: die_before(journal.Journal, "append"), "erased"),
    ("step 4, before it is noted", lambda: die_before(erasure_store, "mark_done"), "erased"),
    ("step 4, noted and not committed", lambda: die_after(erasure_store, "mark_done"), "erased"),
    ("behind step 5", lambda: die_after(erase, "receipt_of"), "erased"),
]


@pytest.mark.parametrize(
    ("number", "reads"), [(n, crash[2]) for n, crash in enumerate(CRASHES)], ids=[c[0] for c in CRASHES]
)
def test_killed_erasure_is_completed_at_the_next_start(place: Place, number: int, reads: str | None) -> None:
    """Whatever the step: before the resumption nothing is half there, after it the erasure is whole."""
    service = set_up(place)
    ledger_id = new_ledger(service).ledger_id
    append_events(
        service.deps, ledger_id, [event("case-1", subject="person:a", data={"n": n}) for n in range(3)], OPERATOR
    )
    service.close()
    victim = processes.Process(target=erase_and_die, args=(place, ledger_id, number))
    victim.start()
    victim.join(60)
    assert victim.exitcode == -signal.SIGKILL

    service = open_service(place)
    assert reasons(events_of(service, ledger_id)) == ({reads} if reads else set())
    outcomes = resume_erasures(service.deps)
    assert all(error is None for error in outcomes.values())
    # A crash before the first commit leaves no erasure to resume: nobody was told that there is one.
    assert len(outcomes) == (0 if reads is None or number == len(CRASHES) - 1 else 1)
    outcome = erase_subject(service.deps, ledger_id, ORDER)
    assert outcome.repeated == (reads is not None)
    assert_erased(service, ledger_id)
    assert resume_erasures(service.deps) == {}
    service.close()


def test_torn_journal_line_does_not_stop_the_resumption(tmp_path: Path) -> None:
    """A line that was cut short by the crash is replaced by a whole one."""
    place = sqlite_place(tmp_path / "home")
    service = set_up(place)
    ledger_id = new_ledger(service).ledger_id
    append_events(service.deps, ledger_id, [event("case-1", subject="person:a", data={})], OPERATOR)
    service.close()
    victim = processes.Process(target=erase_and_die, args=(place, ledger_id, 6))
    victim.start()
    victim.join(60)
    with (place.home / "erasures.journal").open("ab") as file:
        file.write(b'{"n":1,"at":17')

    service = open_service(place)
    assert list(resume_erasures(service.deps).values()) == [None]
    assert_erased(service, ledger_id)
    key = Ed25519PublicKey.from_public_bytes(service.vault.journal_verifying_key())
    lines = journal.read(service.vault.journal.path, key)
    assert [line.kind for line in lines].count("shred") == 1
    service.close()


def erase_and_die(place: Place, ledger_id: UUID, number: int) -> None:
    """The victim."""
    service = open_service(place)
    CRASHES[number][1]()
    erase_subject(service.deps, ledger_id, ORDER)


def assert_erased(service: Service, ledger_id: UUID) -> None:
    """The erasure is whole, once, and the log is unchanged."""
    opened = events_of(service, ledger_id)
    assert len(opened) == service.store.head(ledger_id).size - 1
    assert reasons(opened) == {"erased"}
    assert all(one.subject is not None and one.subject.data is None and one.stream is None for one in opened)
    shreddings = query_events(
        service.deps, ledger_id, EventQuery(types=("SubjectErased",)), cursor=None, limit=10
    ).events
    assert len(shreddings) == 1
    dead = service.store.shredded_keys(ledger_id)
    views = service.vault.look_up_keys(ledger_id, dead.keys())
    assert [view.status for view in views.values()] == ["fenced"]
    with pytest.raises(SubjectErasedError):
        append_events(service.deps, ledger_id, [event("case-1", subject="person:a", data={})], OPERATOR)
    verified(service, ledger_id)
    assert service.alarms == []


def events_of(service: Service, ledger_id: UUID) -> list[OpenedEvent]:
    """The person's events."""
    query = EventQuery(subject=NameOrRef("person:a", None))
    return list(query_events(service.deps, ledger_id, query, cursor=None, limit=100).events)


def reasons(opened: list[OpenedEvent]) -> set[str]:
    """Why anything is hidden."""
    return {redaction.reason for one in opened for redaction in one.redactions}
