"""Workers are killed with SIGKILL while they project and rebuild; each time the read models equal the fold of the log.

``AUDIT_LEDGER_TEST_KILLS`` sets the number of kills on each engine; ``scripts/torture`` runs the full number.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event as EventOfProcesses
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from ledger.domain.events import OPERATOR
from ledger.domain.query import NameOrRef
from ledger.services.appending.append import append_events
from ledger.services.erase import ErasureOrder, erase_subject
from ledger.services.projecting import runner, stored
from ledger.services.projecting.generations import rebuild
from ledger.services.projecting.runner import step
from ledger.services.projecting.shipped import SHIPPED
from ledger.services.projecting.status import projection_statuses
from ledger.storage.derived import read_models
from tests.support.processes import processes
from tests.support.projecting import assert_is_the_fold_of_the_log
from tests.support.service import Place, Service, event, new_ledger, open_service, set_up, verified

KILLS: Final = int(os.environ.get("AUDIT_LEDGER_TEST_KILLS", "3"))
SEED: Final = 20261123
LEASE: Final = 30_000
"""Microseconds: the next worker need not wait long for a dead one's lease."""
PROJECTIONS: Final = tuple(SHIPPED.values())
TYPES: Final = ("Noted", "Moved")


def die(*_: object, **__: object) -> None:
    """The process is gone, as in a power cut."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_before(owner: Any, name: str, calls: int) -> None:
    """Die instead of a later call of this function."""
    _at_call(owner, name, calls, lambda work: die)


def die_after(owner: Any, name: str, calls: int) -> None:
    """Die when a later call of this function has done its work."""

    def and_die(work: Callable[..., object]) -> Callable[..., object]:
        def done(*arguments: object, **named: object) -> None:
            work(*arguments, **named)
            die()

        return done

    _at_call(owner, name, calls, and_die)


def _at_call(owner: Any, name: str, calls: int, instead: Callable[[Any], Callable[..., object]]) -> None:
    work, left = getattr(owner, name), iter(range(calls - 1))

    def counted(*arguments: object, **named: object) -> object:
        return work(*arguments, **named) if next(left, None) is not None else instead(work)(*arguments, **named)

    setattr(owner, name, counted)


# Every place where a process can die: between the steps' reads and writes, and inside of their transactions.
CRASHES: Final[dict[str, Callable[[int], None]]] = {
    "with a lease and nothing done": lambda calls: die_after(runner._Run, "_take", calls),
    "with opened events": lambda calls: die_after(runner, "open_current", calls),
    "with folded documents": lambda calls: die_before(runner, "seal_folds", calls),
    "with sealed documents": lambda calls: die_after(stored, "seal", calls),
    "in the transaction, before the cursor": lambda calls: die_before(read_models, "advance_cursor", calls),
    "in the transaction, behind the cursor": lambda calls: die_after(read_models, "advance_cursor", calls),
    "in the transaction, half of it done": lambda calls: die_after(read_models, "_delete", calls),
    "behind the commit": lambda calls: die_after(read_models.SqlReadModels, "commit_documents", calls),
    "before the take-over": lambda _: die_before(read_models.SqlReadModels, "take_over", 1),
    "behind the take-over": lambda _: die_after(read_models.SqlReadModels, "take_over", 1),
    "before the old generation goes": lambda _: die_before(read_models.SqlReadModels, "drop_documents", 1),
    "while the old generation goes": lambda _: die_after(read_models.SqlReadModels, "drop_documents", 1),
    "with a document of an erased person made again": lambda _: die_after(runner, "make_document", 1),
}
ANY_MOMENT: Final = "at any moment"


def test_killed_workers_leave_read_models_that_are_the_fold_of_the_log(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers die while they project, rebuild, and make documents of erased people again. Each time readers see the
    fold of the log: at once as far as the projections have come, and all of it when the next worker is done."""
    monkeypatch.setattr(runner, "LEASE", LEASE)
    chance = random.Random(SEED)
    service = set_up(place)
    ledger_id = new_ledger(service).ledger_id
    moments = [*CRASHES, *[ANY_MOMENT] * (len(CRASHES) // 2)]
    chance.shuffle(moments)
    killed = 0
    while killed < KILLS:
        write(service, ledger_id, chance, killed)
        finish(service, ledger_id)
        assert_is_the_fold_of_the_log(service.deps, ledger_id)
        erase(service, ledger_id, f"person:{killed}")
        write(service, ledger_id, chance, killed + 1)
        rebuild(service.deps, ledger_id, chance.choice(sorted(SHIPPED)))
        # Now and then a second one dies over what the first has left.
        for moment in [moments[killed % len(moments)], *[ANY_MOMENT] * chance.randint(0, 1)]:
            kill_a_worker(place, ledger_id, moment, chance)
            killed += 1
            assert_is_the_fold_of_the_log(service.deps, ledger_id)
    finish(service, ledger_id)
    assert_is_the_fold_of_the_log(service.deps, ledger_id)
    verified(service, ledger_id)
    assert service.alarms == []
    service.close()


def write(service: Service, ledger_id: UUID, chance: random.Random, number: int) -> None:
    """Record events of a few people, one of whom is new."""
    people = [f"person:{chance.randint(number, number + 3)}" for _ in range(20)]
    for n, person in enumerate([f"person:{number}", *people]):
        about = {"subject": person, "data": {"n": n}, "actor": "nurse:L"}
        append_events(service.deps, ledger_id, [event(f"case-{person[7:]}", chance.choice(TYPES), **about)], OPERATOR)


def erase(service: Service, ledger_id: UUID, person: str) -> None:
    """Erase somebody who is in the read models."""
    who = NameOrRef(person, None)
    order = ErasureOrder(who, None, "17(1)(b)", "case 1", block_unknown=False, requested_by=OPERATOR)
    erase_subject(service.deps, ledger_id, order)


def finish(service: Service, ledger_id: UUID) -> None:
    """What the next worker does, when the dead one's lease is over: everything that is left."""
    holder, deadline = uuid4(), time.monotonic() + 60
    while True:
        worked = step(service.deps, ledger_id, PROJECTIONS, holder)
        statuses = projection_statuses(service.deps, ledger_id)
        if not worked and [one.behind for one in statuses] == [0] * len(PROJECTIONS):
            return
        assert time.monotonic() < deadline
        assert all(one.cursor.state in ("running", "building") for one in statuses)


def kill_a_worker(place: Place, ledger_id: UUID, moment: str, chance: random.Random) -> None:
    """Let a worker work until it dies."""
    begun = processes.Event()
    victim = processes.Process(target=work_and_die, args=(place, ledger_id, moment, chance.randint(1, 3), begun))
    victim.start()
    assert begun.wait(60)
    if moment == ANY_MOMENT:
        time.sleep(chance.random() / 4)
        os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join(60)
    assert victim.exitcode == -signal.SIGKILL, f"the worker was to die {moment}"


def work_and_die(place: Place, ledger_id: UUID, moment: str, calls: int, begun: EventOfProcesses) -> None:
    """The victim: a worker in small steps, so that there are many moments."""
    service = open_service(place)
    runner.LEASE = LEASE  # type: ignore[misc]
    runner.BATCH_EVENTS = 7  # type: ignore[misc]
    if moment != ANY_MOMENT:
        CRASHES[moment](calls)
    holder = uuid4()
    begun.set()
    while True:
        step(service.deps, ledger_id, PROJECTIONS, holder)
