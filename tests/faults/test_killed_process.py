"""A worker dies in the middle of a process, at every single step: no command is lost, none is doubled (I12).

The crash is simulated behind (or in place of) the n-th call of the store, the vault, the cursors or the timers, for
every n that there is; then another worker takes over. ``AUDIT_LEDGER_TEST_ROUNDS`` sets how many races of two workers
there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from ledger.services.commanding.processes import LEASE, standing, step
from tests.contract.conftest import backend, ledger
from tests.support.accounts import HOUR, TRANSFER, Transfer, balance, open_account, run, types_of, until_idle
from tests.support.ledgers import Ledger

__all__ = ["backend", "ledger"]

ROUNDS = int(os.environ.get("AUDIT_LEDGER_TEST_ROUNDS", "12"))
EVERY = 1 if "AUDIT_LEDGER_TEST_ROUNDS" in os.environ else 30
"""Of the steps that a worker can die at, each so many-th is tried, others on each engine; all of them in long runs."""


class Dead(BaseException):
    """The worker is gone. Nothing that it does can catch this."""


class Mortal:
    """Counts the calls of several things behind one another, and dies at one of them."""

    def __init__(self, at: int, *, persisted: bool) -> None:
        self.calls = 0
        self._at = at
        self._persisted = persisted

    def wrap(self, thing: Any) -> Any:
        """The thing, whose calls count."""
        return _Counted(thing, self)

    def call(self, work: Callable[[], Any]) -> Any:
        """Do it, unless this is where it ends."""
        self.calls += 1
        if self.calls != self._at:
            return work()
        if self._persisted:
            work()
        raise Dead


class _Counted:
    def __init__(self, thing: Any, mortal: Mortal) -> None:
        self._thing, self._mortal = thing, mortal

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._thing, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            if name == "locked_head":
                return _CountedBlock(real(*arguments, **options), self._mortal)
            return self._mortal.call(lambda: real(*arguments, **options))

        return counted


class _CountedBlock:
    """A head lock: the call that counts is its commit."""

    def __init__(self, inner: Any, mortal: Mortal) -> None:
        self._inner, self._mortal = inner, mortal

    def __enter__(self) -> Any:
        return self._inner.__enter__()

    def __exit__(self, *error: Any) -> None:
        committed: list[bool] = []

        def commit() -> None:
            committed.append(True)
            self._inner.__exit__(*error)

        try:
            self._mortal.call(commit)
        except Dead as dead:
            if not committed:
                self._inner.__exit__(Dead, dead, None)
            raise


def through(ledger: Ledger, mortal: Mortal) -> Ledger:
    """The ledger as a worker sees it that dies."""
    deps = ledger.deps
    derived = replace(deps.derived, cursors=mortal.wrap(deps.derived.cursors), timers=mortal.wrap(deps.derived.timers))
    return replace(
        ledger,
        deps=replace(deps, store=mortal.wrap(deps.store), vault=mortal.wrap(deps.vault), derived=derived),
    )


def a_bank(ledger: Ledger) -> Ledger:
    """A ledger of its own, where one transfer is to be paid in, one to be paid back, and one timer to fire."""
    bank = ledger.backend.new_ledger()
    open_account(bank, "ann", 100)
    open_account(bank, "bob")
    run(bank, "account-ann", Transfer(30, "account-bob", "person:bob"))
    run(bank, "account-ann", Transfer(20, "account-nobody", "person:nobody"))
    return bank


def work(bank: Ledger) -> None:
    """All that there is to do, the timer included."""
    until_idle(bank)
    bank.backend.clock.now += HOUR + 1
    until_idle(bank)


WHOLE = sorted(
    [
        *("Opened", "Deposited", "Opened"),
        *("Withdrawn", "TransferBegun") * 2,
        # Paid in, and in the end overdue; refused, and paid back.
        *("ProcessReacted", "Deposited", "TimerFired", "ProcessReacted"),
        *("ProcessReacted", "CommandRefused", "ProcessReacted", "Deposited"),
    ]
)


def assert_whole(bank: Ledger) -> None:
    """Everything has happened, and everything once."""
    assert sorted(types_of(bank)) == WHOLE
    assert (balance(bank, "ann"), balance(bank, "bob")) == (70, 30)
    assert [(cursor.state, cursor.error) for cursor in standing(bank.deps, bank.ledger_id)] == [("running", None)]
    bank.assert_intact()


@pytest.mark.parametrize("persisted", [False, True], ids=["failed", "failed but persisted"])
def test_a_worker_can_die_at_any_step(ledger: Ledger, *, persisted: bool) -> None:
    """Whatever it was doing, the next one finds what is done and does the rest."""
    counting = Mortal(-1, persisted=False)
    first = a_bank(ledger)
    work(through(first, counting))
    assert_whole(first)
    assert counting.calls > 100
    first_step = 1 + ((15 if ledger.backend.name == "sqlite" else 0) + (7 if persisted else 0)) % EVERY
    for at in range(first_step, counting.calls + 1, EVERY):
        bank = a_bank(ledger)
        with pytest.raises(Dead):
            work(through(bank, Mortal(at, persisted=persisted)))
        bank.backend.clock.now += LEASE
        work(bank)
        assert_whole(bank)


def test_workers_that_race_do_no_harm(ledger: Ledger) -> None:
    """Two workers step at the same time, with leases that are over at once: every event is handled by whoever comes,
    and by both."""
    for _ in range(max(ROUNDS // 5, 3)):
        bank = a_bank(ledger)
        failures: list[BaseException] = []

        def worker(bank: Ledger = bank, failures: list[BaseException] = failures) -> None:
            # A lease that ends with each reading of the clock: only the ids keep the two apart.
            hasty = replace(bank.deps, clock=lambda: bank.backend.clock() + 2 * LEASE * next(_readings))
            try:
                holder = uuid4()
                for _ in range(30):
                    step(hasty, bank.ledger_id, [TRANSFER], holder)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test is to fail of it
                failures.append(error)

        threads = [threading.Thread(target=worker) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        work(bank)
        assert_whole(bank)


_readings = iter(range(1, 2**31))
