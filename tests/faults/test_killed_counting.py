"""Workers are killed with SIGKILL while they make the windows by which events are counted; the number is right each
time, and the next worker goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from ledger.domain.events import OPERATOR
from ledger.domain.key_windows import Shape
from ledger.domain.query import NameOrRef
from ledger.services.appending.append import append_events
from ledger.services.counting import filling
from ledger.services.counting.count import count_events
from ledger.services.counting.filling import step
from ledger.services.erase import ErasureOrder, erase_subject
from ledger.storage.derived import key_windows
from tests.support.processes import processes
from tests.support.service import Place, event, new_ledger, open_service, set_up, verified

SHAPE: Final = Shape(window=16, step=4, stretch=1, fewest=1)
EVENTS: Final = 64
LEASE: Final = 30_000
"""Microseconds: the next worker need not wait long for a dead one's lease."""


def die(*_: object, **__: object) -> None:
    """The process is gone, as in a power cut."""
    os.kill(os.getpid(), signal.SIGKILL)


def after(work: Callable[..., object]) -> Callable[..., object]:
    """Die when it is done."""

    def done(*arguments: object, **named: object) -> None:
        work(*arguments, **named)
        die()

    return done


MOMENTS: Final[dict[str, tuple[Any, str, Callable[[Any], Any]]]] = {
    "with a lease and nothing done": (filling, "_take", after),
    "with sealed windows": (filling, "seal_windows", after),
    "in the transaction, before the cursor": (key_windows, "advance_cursor", lambda work: die),
    "in the transaction, behind the cursor": (key_windows, "advance_cursor", after),
    "in the transaction, half of it done": (key_windows, "put", after),
    "behind the commit": (key_windows.SqlKeyWindows, "put_key_windows", after),
}


def work_and_die(place: Place, ledger_id: UUID, moment: str) -> None:
    """The victim: one step is done, and the next one kills it."""
    service = open_service(place)
    filling.LEASE = LEASE  # type: ignore[misc]
    holder = uuid4()
    step(service.deps, ledger_id, holder, SHAPE)
    owner, name, way = MOMENTS[moment]
    setattr(owner, name, way(getattr(owner, name)))
    while True:
        step(service.deps, ledger_id, holder, SHAPE)


def test_killed_workers_leave_the_number_right(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they die; and in the end all of it is in windows, and an erasure says how many events there are."""
    monkeypatch.setattr(filling, "LEASE", LEASE)
    service = set_up(place)
    ledger_id = new_ledger(service).ledger_id
    whose = [number % 3 // 2 for number in range(EVENTS)]
    events = [event(f"case-{number}", subject=f"person:{number}", data={}) for number in whose]
    append_events(service.deps, ledger_id, events, OPERATOR)
    people = service.vault.find_subjects(ledger_id, ["person:0", "person:1"])
    keys = [key_id for person in people.values() for key_id, _ in person.key_ids]
    for moment in MOMENTS:
        victim = processes.Process(target=work_and_die, args=(place, ledger_id, moment))
        victim.start()
        victim.join(60)
        assert victim.exitcode == -signal.SIGKILL, f"the worker was to die {moment}"
        for some in (keys[:1], keys[1:], keys):
            counted = count_events(service.deps, ledger_id, some)
            assert counted == service.store.key_usage(ledger_id, some).events > 0
        # Until its lease is over.
        time.sleep(2 * LEASE / 1e6)
    holder = uuid4()
    while step(service.deps, ledger_id, holder, SHAPE):
        pass
    windows = service.deps.derived.key_windows.key_windows_in(ledger_id, (None, None), None, 99)
    assert {(one.first, one.beyond) for one in windows} == {(first, first + 16) for first in range(0, EVENTS, 16)}
    order = ErasureOrder(NameOrRef("person:0", None), None, "17(1)(b)", "case 1", False, OPERATOR)
    assert erase_subject(service.deps, ledger_id, order).receipt.payload["events"] == whose.count(0)
    verified(service, ledger_id)
    assert service.alarms == []
    service.close()
