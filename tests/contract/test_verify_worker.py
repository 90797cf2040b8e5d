"""A worker verifies behind the log, a piece at a time, and says once what it finds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from uuid import UUID

import pytest
import sqlalchemy as sa

from keyvault.errors import VaultUnavailableError
from keyvault.vault import Vault
from ledger.ports import Cursor
from ledger.services.verifying import background
from ledger.services.verifying.background import CURSOR, DAY, Background
from ledger.services.worker import run_worker
from ledger.storage import tables
from tests.support.ledgers import Ledger, a_fact, a_visit
from tests.support.worker import eventually

HOLDER, OTHER = UUID(int=11), UUID(int=12)
DAYS = 7


class Hours:
    """A clock that runs on by itself, so that nothing has to be waited for."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 3600.0
        return self.now


@pytest.fixture
def filled(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Ten events, of which a step reads four."""
    monkeypatch.setattr(background, "WIDTH", 4)
    for _ in range(3):
        ledger.append(a_visit("A"), a_fact(), a_visit("B"))
    ledger.erase("patient:B")
    return ledger


def cursor_of(ledger: Ledger) -> Cursor:
    """How far it says that it is."""
    (cursor,) = ledger.deps.derived.cursors.cursors(ledger.ledger_id, CURSOR.kind)
    return cursor


def go_on(ledger: Ledger, worker: Background, steps: int = 200) -> None:
    """As many steps as a round can take, most of them while it rests."""
    for _ in range(steps):
        worker.step(ledger.ledger_id)


def test_it_verifies_everything_and_then_what_comes(filled: Ledger) -> None:
    """The cursor tells up to where, and nobody is alarmed."""
    worker = Background(filled.deps, HOLDER, DAYS, Hours())
    worker.step(filled.ledger_id)
    assert cursor_of(filled).position == -1
    go_on(filled, worker)
    assert cursor_of(filled).position == 9
    filled.append(a_visit("C"))
    go_on(filled, worker)
    assert (cursor_of(filled).position, cursor_of(filled).error) == (10, None)
    assert filled.alarms == []


def test_it_takes_no_more_than_its_share_of_the_time(filled: Ledger) -> None:
    """After a step that took an hour by this clock, nine pass before the next."""
    clock = Hours()
    worker = Background(filled.deps, HOLDER, DAYS, clock)
    worker.step(filled.ledger_id)
    began = clock.now
    reads = 0
    while reads == 0:
        before = clock.now
        worker.step(filled.ledger_id)
        reads = int(clock.now - before > 3600.0)
    assert clock.now - began >= 9 * 3600.0


def test_what_it_finds_it_says_once(filled: Ledger) -> None:
    """However often it finds it; the cursor stays until a whole round is good again."""
    worker = Background(filled.deps, HOLDER, DAYS, Hours())
    go_on(filled, worker)
    original = filled.recorded()[2]
    filled.edit(2, event_type="Other")
    for _ in range(2):
        filled.backend.clock.now += (DAYS + 1) * DAY
        go_on(filled, worker)
    assert filled.alarms == [(2, None, "the row is not what its leaf says")]
    filled.append(a_visit("C"))
    go_on(filled, worker)
    assert (cursor_of(filled).position, cursor_of(filled).error) == (9, "IntegrityError")
    filled.put(2, original, new_leaf=False)
    filled.backend.clock.now += (DAYS + 1) * DAY
    go_on(filled, worker)
    assert (cursor_of(filled).position, cursor_of(filled).error) == (10, None)


def test_a_whole_round_finds_what_no_event_shows(filled: Ledger) -> None:
    """A row of ``event_keys`` that is gone."""
    keys = tables.event_keys.c
    here = (keys.ledger_id == filled.ledger_id, keys.position == 5)
    filled.backend.tamper(sa.delete(tables.event_keys).where(*here))
    go_on(filled, Background(filled.deps, HOLDER, DAYS, Hours()))
    assert [position for position, _, _ in filled.alarms] == [5]


def test_two_workers_do_not_do_the_same(filled: Ledger) -> None:
    """The other one has nothing to do while the first one holds the lease; then it begins with a round of its own."""
    first, second = (Background(filled.deps, holder, DAYS, Hours()) for holder in (HOLDER, OTHER))
    first.step(filled.ledger_id)
    go_on(filled, second)
    assert (cursor_of(filled).holder, cursor_of(filled).position) == (HOLDER, -1)
    filled.backend.clock.now += 10 * background.LEASE
    go_on(filled, second)
    assert (cursor_of(filled).holder, cursor_of(filled).position) == (OTHER, 9)
    filled.backend.clock.now += 10 * background.LEASE
    go_on(filled, first)
    assert cursor_of(filled).position == 9


def test_a_piece_that_fails_is_tried_again(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vault that is away for a moment is no finding, and the round goes on where it was."""
    worker = Background(filled.deps, HOLDER, DAYS, Hours())
    worker.step(filled.ledger_id)
    with monkeypatch.context() as broken:
        broken.setattr(Vault, "look_up_keys", raising(VaultUnavailableError("away")))
        with pytest.raises(VaultUnavailableError):
            go_on(filled, worker)
    go_on(filled, worker)
    assert (cursor_of(filled).position, filled.alarms) == (9, [])


def raising(error: Exception) -> Callable[..., object]:
    """What fails whenever it is called."""

    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


def test_the_worker_does_it_among_its_other_duties(filled: Ledger) -> None:
    """With the days that the settings say; without any, never."""

    def cursors() -> int:
        return len(filled.deps.derived.cursors.cursors(filled.ledger_id, CURSOR.kind))

    for days in (0, DAYS):
        stop = threading.Event()
        options = {"stop": stop, "ledgers": [filled.ledger_id], "projections": (), "verify_days": days}
        thread = threading.Thread(target=run_worker, args=(filled.deps,), kwargs=options)
        thread.start()
        if days:
            eventually(lambda: cursors() == 1)
        stop.set()
        thread.join()
        assert cursors() == (1 if days else 0)
