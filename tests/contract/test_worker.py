"""The worker: everything that follows a log gets its turns, whatever fails meanwhile, and stopping leaves no lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest
from typing_extensions import override

from ledger.domain.ids import format_ref
from ledger.errors import StoreUnavailableError
from ledger.ports import CursorKind
from ledger.services import worker as working
from ledger.services.projecting.read_models import key_of_stream
from ledger.services.projecting.shipped import CURRENT_STATE, SHIPPED
from ledger.services.worker import Silent, Step, Worker, run_worker
from tests.support.accounts import HOUR, TRANSFER, Transfer, balance, open_account, run, types_of
from tests.support.ledgers import (
    PRIVACY_OFFICER,
    Backend,
    Ledger,
    a_fact,
    a_visit,
    open_postgresql,
    open_sqlite,
    reasons,
    who,
)
from tests.support.projecting import folded_log, shown_of

PATIENCE_SECONDS = 20.0
KINDS: tuple[CursorKind, ...] = ("projection", "snapshots", "process")


@dataclass
class Told(Silent):
    """Keeps what a worker reports."""

    failures: list[tuple[str, str]] = field(default_factory=list)
    recoveries: list[str] = field(default_factory=list)
    erasures: list[UUID] = field(default_factory=list)

    @override
    def failed(self, duty: str, ledger_id: UUID | None, error: Exception) -> None:
        self.failures.append((duty, type(error).__name__))

    @override
    def recovered(self, duty: str) -> None:
        self.recoveries.append(duty)

    @override
    def resumed(self, erasure_id: UUID) -> None:
        self.erasures.append(erasure_id)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Databases of this suite's own: a worker that is told nothing else works on all ledgers that there are."""
    home = tmp_path_factory.mktemp("worker")
    if request.param == "sqlite":
        opened = open_sqlite(home)
    else:
        opened = open_postgresql(request.getfixturevalue("postgres"), home)
    yield opened
    opened.close()


@contextmanager
def in_a_thread(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Work until the block ends; then it must end within seconds, and without an error."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work(stop)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert errors == []


@contextmanager
def working_on(ledger: Ledger, **chosen: Any) -> Iterator[None]:
    """A worker for one ledger."""
    with in_a_thread(lambda stop: run_worker(ledger.deps, stop=stop, ledgers=[ledger.ledger_id], **chosen)):
        yield


@contextmanager
def doing(ledger: Ledger, report: Told, *others: Ledger, **duties: Step) -> Iterator[None]:
    """A worker with duties of the test's own."""
    worker = Worker(ledger.deps, duties, report, [one.ledger_id for one in (ledger, *others)])
    with in_a_thread(worker.run):
        yield


def eventually(holds: Callable[[], bool]) -> None:
    """Fails when it does not hold within the patience."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def caught_up(ledger: Ledger) -> bool:
    """Whether every projection and the snapshots have come to the head."""
    followers = [one for one in ledger.deps.store.followers() if one.ledger_id == ledger.ledger_id]
    return len(followers) == len(SHIPPED) + 1 and all(one.behind == 0 for one in followers)


def holders(ledger: Ledger) -> set[UUID | None]:
    """Who has leased something now."""
    now, cursors = ledger.backend.clock.now, ledger.deps.derived.cursors
    found = [cursor for kind in KINDS for cursor in cursors.cursors(ledger.ledger_id, kind)]
    return {cursor.holder for cursor in found if cursor.lease_until > now}


def test_what_is_appended_reaches_read_models_and_snapshots(ledger: Ledger) -> None:
    """Before the worker starts and while it runs; and when it has stopped, nobody holds a lease."""
    ledger.append(*(a_visit() for _ in range(100)))
    with working_on(ledger):
        eventually(lambda: caught_up(ledger))
        ledger.append(a_visit("B"), a_fact())
        eventually(lambda: caught_up(ledger))
    folded = folded_log(ledger.deps, ledger.ledger_id, ledger.size() - 1)
    for name, projection in SHIPPED.items():
        assert shown_of(ledger.deps, ledger.ledger_id, projection) == folded[name]
    ref = key_of_stream(ledger.deps, ledger.ledger_id, who("patient-A"))
    assert ledger.deps.derived.snapshots.nearest_snapshots(ledger.ledger_id, "merge-patch/1", [ref], 2**62)
    assert holders(ledger) == set()


def test_a_ledger_that_is_made_meanwhile_is_noticed(backend: Backend) -> None:
    """A worker that was given no list of ledgers works on all that there are."""
    first = backend.new_ledger()
    first.append(a_fact())
    with in_a_thread(lambda stop: run_worker(first.deps, stop=stop)):
        eventually(lambda: caught_up(first))
        second = backend.new_ledger()
        second.append(a_fact())
        eventually(lambda: caught_up(second))


def test_processes_and_their_timers_get_their_turns(ledger: Ledger) -> None:
    """The transfer is carried out at once; its timer fires when its time has come, without any new event."""
    open_account(ledger, "ann", 100)
    open_account(ledger, "bob")
    with working_on(ledger, processes=[TRANSFER]):
        run(ledger, "account-ann", Transfer(30, "account-bob", "person:bob"))
        eventually(lambda: balance(ledger, "bob") == 30)
        eventually(lambda: caught_up_with_processes(ledger))
        size = ledger.size()
        ledger.backend.clock.now += 2 * HOUR
        eventually(lambda: ledger.size() > size)
    assert (balance(ledger, "ann"), balance(ledger, "bob")) == (70, 30)
    assert types_of(ledger)[size:].count("TimerFired") == 1
    assert holders(ledger) == set()


def caught_up_with_processes(ledger: Ledger) -> bool:
    """Whether every follower has come to the head."""
    return all(one.behind == 0 for one in ledger.deps.store.followers() if one.ledger_id == ledger.ledger_id)


def test_an_erasure_that_a_crash_left_open_is_completed(ledger: Ledger) -> None:
    """I12: nobody has to ask again, and the worker says so."""
    ledger.append_one(a_visit())
    erasure_id = ledger.deps.new_id()
    ledger.deps.vault.begin_erasure(
        ledger.ledger_id,
        "patient:A",
        erasure_id=erasure_id,
        purposes=None,
        ground=None,
        reference=None,
        name_commitment=None,
        requested_at=ledger.deps.clock(),
        requested_by=PRIVACY_OFFICER,
        block_unknown=False,
    )
    told = Told()
    with working_on(ledger, report=told):
        eventually(lambda: erasure_id in told.erasures)
    done = ledger.deps.vault.erasure(ledger.ledger_id, erasure_id)
    assert done is not None
    assert done.done
    assert reasons(ledger.event_at(0)) == {"/data": "erased"}


def test_a_reinstatement_that_a_crash_left_open_is_completed(ledger: Ledger) -> None:
    """The name begins anew at once; the worker has the log and the journal say so."""
    ledger.append_one(a_visit())
    ledger.erase("patient:A")
    made = ledger.deps.vault.reinstate(
        ledger.ledger_id, "patient:A", reason=None, reinstated_at=ledger.deps.clock(), reinstated_by=PRIVACY_OFFICER
    )
    told = Told()
    with working_on(ledger, report=told):
        eventually(lambda: made not in ledger.deps.vault.open_reinstatements())
    assert [event.nonpersonal for event in ledger.query(types=("SubjectReinstated",))] == [
        {"subject_ref": format_ref("sub", made.subject_ref), "reason": None}
    ]
    assert told.failures == []


def test_several_workers_do_no_harm(ledger: Ledger) -> None:
    """They take turns by leases, and the read models equal the fold of the log."""
    with working_on(ledger), working_on(ledger), working_on(ledger):
        for number in range(20):
            ledger.append(a_visit(str(number % 3)), a_fact())
        eventually(lambda: caught_up(ledger))
    folded = folded_log(ledger.deps, ledger.ledger_id, ledger.size() - 1)
    for name, projection in SHIPPED.items():
        assert shown_of(ledger.deps, ledger.ledger_id, projection) == folded[name]
    assert ledger.alarms == []


def test_another_worker_goes_on_where_one_has_stopped(ledger: Ledger) -> None:
    """At once: the leases were given back, and the tests' clock would not let them run out."""
    ledger.append(a_visit())
    with working_on(ledger):
        eventually(lambda: caught_up(ledger))
    ledger.append(a_visit(data={"crp": 13}))
    with working_on(ledger):
        eventually(lambda: caught_up(ledger))
    ref = key_of_stream(ledger.deps, ledger.ledger_id, who("patient-A"))
    assert shown_of(ledger.deps, ledger.ledger_id, CURRENT_STATE) == {ref: ({"crp": 13}, True)}


def test_a_slow_ledger_does_not_keep_the_others_waiting(backend: Backend) -> None:
    """While a step of one hangs, another gets all its turns."""
    slow, quick = backend.new_ledger(), backend.new_ledger()
    release, turns = threading.Event(), 0

    def step(ledger_id: UUID) -> bool:
        nonlocal turns
        if ledger_id == slow.ledger_id:
            release.wait(PATIENCE_SECONDS)
            return False
        turns += 1
        return turns < 50

    with doing(slow, Told(), quick, duty=step):
        eventually(lambda: turns >= 50)
        release.set()


def test_a_ledger_far_behind_takes_turns_with_the_others(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one thread, two ledgers with much to do are never more than a turn apart."""
    # One of the threads is for erasures.
    monkeypatch.setattr(working, "THREADS", 0)
    both = backend.new_ledger(), backend.new_ledger()
    order: list[UUID] = []

    def step(ledger_id: UUID) -> bool:
        order.append(ledger_id)
        return len(order) < 100

    with doing(both[0], Told(), both[1], duty=step):
        eventually(lambda: len(order) >= 100)
    begun = max(order.index(ledger.ledger_id) for ledger in both)
    pairs = zip(order[begun:99], order[begun + 1 : 100], strict=True)
    assert all(one != other for one, other in pairs)


def test_a_duty_that_fails_is_told_once_and_keeps_no_other_waiting(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For two ledgers and many tries one line; and one more when it works again everywhere."""
    monkeypatch.setattr(working, "FIRST_REST", 0.01)
    monkeypatch.setattr(working, "LONGEST_REST", 0.02)
    monkeypatch.setattr(working, "LOOK_SECONDS", 0.01)
    one, other = backend.new_ledger(), backend.new_ledger()
    tries: dict[UUID, int] = {one.ledger_id: 0, other.ledger_id: 0}
    done: set[UUID] = set()
    healed = threading.Event()

    def failing(ledger_id: UUID) -> bool:
        tries[ledger_id] += 1
        if not healed.is_set():
            raise StoreUnavailableError("not there")
        return False

    def fine(ledger_id: UUID) -> bool:
        done.add(ledger_id)
        return False

    told = Told()
    with doing(one, told, other, failing=failing, fine=fine):
        eventually(lambda: min(tries.values()) >= 3)
        assert done == set(tries)
        assert told.failures == [("failing", "StoreUnavailableError")]
        assert told.recoveries == []
        healed.set()
        eventually(lambda: told.recoveries == ["failing"])


class FlakyStore:
    """A store whose list of ledgers cannot be had until ``heal``."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.asked = 0
        self.healed = False

    def sizes(self) -> Any:
        """The sizes, or an outage."""
        self.asked += 1
        if not self.healed:
            raise StoreUnavailableError("not there")
        return self._store.sizes()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_database_that_is_down_is_waited_for(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker says it once, asks again, and goes on when it is back."""
    monkeypatch.setattr(working, "FIRST_REST", 0.01)
    ledger.append(a_visit())
    store = FlakyStore(ledger.deps.store)
    told = Told()
    with working_on(replace(ledger, deps=replace(ledger.deps, store=store)), report=told):
        eventually(lambda: store.asked >= 3)
        assert told.failures == [("ledgers", "StoreUnavailableError")]
        store.healed = True
        eventually(lambda: caught_up(ledger))
    assert told.recoveries == ["ledgers"]


def test_rest_grows_up_to_a_bound(ledger: Ledger) -> None:
    """Doubled at each failure, and begun anew when it has worked."""
    troubles = working._Troubles(Told())
    error = StoreUnavailableError("not there")
    rests = [troubles.note("duty", ledger.ledger_id, error) for _ in range(7)]
    assert rests == [1.0, 2.0, 4.0, 8.0, 16.0, working.LONGEST_REST, working.LONGEST_REST]
    assert troubles.rests("duty", ledger.ledger_id)
    troubles.clear("duty", ledger.ledger_id)
    assert not troubles.rests("duty", ledger.ledger_id)
    assert troubles.note("duty", ledger.ledger_id, error) == 1.0


def test_an_idle_worker_stops_at_once(ledger: Ledger) -> None:
    """It waits for growth, but not for long."""
    ledger.append(a_visit())
    stop = threading.Event()
    thread = threading.Thread(target=lambda: run_worker(ledger.deps, stop=stop, ledgers=[ledger.ledger_id]))
    thread.start()
    eventually(lambda: caught_up(ledger))
    began = time.monotonic()
    stop.set()
    thread.join(PATIENCE_SECONDS)
    assert time.monotonic() - began < 5.0
