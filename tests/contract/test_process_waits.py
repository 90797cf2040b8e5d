"""What process managers come back to: timers, and the events of people who were restricted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from ledger.domain.events import JsonObject, OpenedEvent
from ledger.domain.process import Reaction, SetTimer, timer_of
from ledger.services.commanding import processes
from ledger.services.commanding.processes import TIMER_WAIT
from tests.support.accounts import (
    HOUR,
    IDLE,
    TRANSFER,
    Deposit,
    Transfer,
    balance,
    open_account,
    run,
    types_of,
    until_idle,
    with_react,
)
from tests.support.ledgers import Ledger

BOB = Transfer(30, "account-bob", "person:bob")


ONE = replace(TRANSFER, name="one", instance_of=lambda event: str(event.stream))
"""One instance for all transfers from an account."""


@pytest.fixture
def bank(ledger: Ledger) -> Ledger:
    """Ann has 100, Bob nothing."""
    open_account(ledger, "ann", 100)
    open_account(ledger, "bob")
    return ledger


def later(ledger: Ledger, microseconds: int) -> None:
    """Let time pass."""
    ledger.backend.clock.now += microseconds


def test_a_timer_fires_when_it_is_due_and_once(bank: Ledger) -> None:
    """If nothing happened by then."""
    run(bank, "account-ann", BOB)
    until_idle(bank)
    later(bank, HOUR - 1_000_000)
    assert until_idle(bank) == 0
    later(bank, 2_000_000)
    until_idle(bank)
    (fired,) = bank.query(types=("TimerFired",))
    assert timer_of(fired) == "deadline"
    recorded = types_of(bank)
    assert recorded[-2:] == ["TimerFired", "ProcessReacted"]
    later(bank, HOUR)
    assert until_idle(bank, holder=uuid4()) == 0
    assert types_of(bank) == recorded


def test_a_cancelled_timer_does_not_fire(bank: Ledger) -> None:
    """The refund has cancelled it: its row wakes nobody."""
    run(bank, "account-ann", Transfer(30, "account-nobody", "person:nobody"))
    until_idle(bank)
    later(bank, 2 * HOUR)
    until_idle(bank)
    assert bank.query(types=("TimerFired",)) == []
    assert bank.deps.derived.timers.due_timers(bank.ledger_id, "transfer", bank.deps.clock(), 10) == []


def test_a_timer_that_is_set_again_is_put_off(bank: Ledger) -> None:
    """Of one name the last counts, and one that fired can be set again."""
    until_idle(bank, IDLE)
    later(bank, HOUR - 5_000_000)
    run(bank, "account-ann", Deposit(1))
    until_idle(bank, IDLE)
    later(bank, 10_000_000)
    until_idle(bank, IDLE)
    fired = bank.query(types=("TimerFired",))
    assert [event.stream for event in fired] == ["process.idle-account-bob"]
    later(bank, 3 * HOUR)
    until_idle(bank, IDLE)
    fired = bank.query(types=("TimerFired",))
    assert (
        sorted(str(event.stream) for event in fired) == ["process.idle-account-ann"] + ["process.idle-account-bob"] * 2
    )
    later(bank, 3 * HOUR)
    until_idle(bank, IDLE)
    assert len(bank.query(types=("TimerFired",))) == 4


def test_what_was_recorded_before_a_timer_was_due_comes_before_it(bank: Ledger) -> None:
    """A worker that was away when both happened sees them in their order: nothing is overdue that came in time."""
    run(bank, "account-ann", Deposit(1))
    until_idle(bank, IDLE)
    later(bank, HOUR - 5_000_000)
    run(bank, "account-ann", Deposit(1))
    run(bank, "account-bob", Deposit(1))
    later(bank, HOUR - 2_000_000)
    until_idle(bank, IDLE)
    assert bank.query(types=("TimerFired",)) == []


def test_a_timer_of_somebody_restricted_waits(bank: Ledger) -> None:
    """And fires when the restriction is lifted; those of others fire meanwhile."""
    until_idle(bank, IDLE)
    ref = bank.subject_ref("person:ann")
    bank.deps.vault.restrict(bank.ledger_id, ref, 1)
    later(bank, 2 * HOUR)
    until_idle(bank, IDLE)
    assert [event.stream for event in bank.query(types=("TimerFired",))] == ["process.idle-account-bob"]
    bank.deps.vault.lift_restriction(bank.ledger_id, ref, 2)
    until_idle(bank, IDLE)
    later(bank, TIMER_WAIT)
    until_idle(bank, IDLE)
    assert len(bank.query(types=("TimerFired",))) == 2


def test_a_timer_of_somebody_erased_is_cleared_away(bank: Ledger) -> None:
    """Nothing fires for somebody who is gone."""
    until_idle(bank, IDLE)
    bank.erase("person:ann")
    bank.erase("person:bob")
    later(bank, 2 * HOUR)
    until_idle(bank, IDLE)
    assert bank.query(types=("TimerFired",)) == []
    assert until_idle(bank, IDLE) == 0
    assert bank.deps.derived.timers.due_timers(bank.ledger_id, "idle", bank.deps.clock(), 10) == []


def test_a_timer_that_is_set_twice_at_once_counts_once(bank: Ledger) -> None:
    """The last of one name counts, also among the reactions to one event."""

    def twice(_state: JsonObject, event: OpenedEvent) -> Sequence[Reaction]:
        at = event.recorded.recorded_at
        return [] if timer_of(event) else [SetTimer("due", at + 1), SetTimer("due", at + HOUR)]

    run(bank, "account-ann", BOB)
    until_idle(bank, with_react(twice))
    later(bank, HOUR - 5_000_000)
    until_idle(bank, with_react(twice))
    assert types_of(bank).count("TimerFired") == 0
    later(bank, HOUR)
    until_idle(bank, with_react(twice))
    assert types_of(bank).count("TimerFired") == 1


@pytest.mark.parametrize("readings", range(1, 6))
def test_a_clock_that_steps_back_stops_no_process(bank: Ledger, readings: int) -> None:
    """The time is read more than once in a step; the timer fires now or at the next."""
    run(bank, "account-ann", BOB)
    until_idle(bank)
    later(bank, HOUR)
    real, read = bank.backend.clock, 0

    def stepping() -> int:
        nonlocal read
        read += 1
        return real() - (HOUR if read > readings else 0)

    processes.step(replace(bank.deps, clock=stepping), bank.ledger_id, [TRANSFER], uuid4())
    (cursor,) = processes.standing(bank.deps, bank.ledger_id)
    assert (cursor.state, cursor.error) == ("running", None)
    later(bank, HOUR)
    until_idle(bank)
    assert types_of(bank).count("TimerFired") == 1


# Events of people who are restricted


def test_a_restricted_sender_waits_and_nobody_else_does(bank: Ledger) -> None:
    """An event that may not be read is not passed over: it waits, and goes on when the restriction is lifted."""
    open_account(bank, "eve", 5)
    run(bank, "account-ann", BOB)
    run(bank, "account-eve", Transfer(5, "account-bob", "person:bob"))
    ref = bank.subject_ref("person:ann")
    bank.deps.vault.restrict(bank.ledger_id, ref, 1)
    until_idle(bank)
    assert balance(bank, "bob") == 5
    bank.deps.vault.lift_restriction(bank.ledger_id, ref, 2)
    until_idle(bank)
    assert (balance(bank, "bob"), balance(bank, "ann")) == (35, 70)
    recorded = types_of(bank)
    until_idle(bank, holder=uuid4())
    assert types_of(bank) == recorded


def test_however_many_wait_nobody_else_does(bank: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """More streams with held events, and more timers of restricted people, than one step looks at."""
    monkeypatch.setattr(processes, "HELD_STREAMS", 3)
    monkeypatch.setattr(processes, "TIMERS", 3)
    for number in range(8):
        open_account(bank, f"p{number}", 100)
        run(bank, f"account-p{number}", BOB)
    until_idle(bank)
    for number in range(8):
        run(bank, f"account-p{number}", BOB)
        bank.deps.vault.restrict(bank.ledger_id, bank.subject_ref(f"person:p{number}"), 1)
    run(bank, "account-ann", BOB)
    until_idle(bank)
    assert balance(bank, "bob") == 9 * 30
    later(bank, 2 * HOUR)
    until_idle(bank)
    fired = [event.subject.subject for event in bank.query(types=("TimerFired",)) if event.subject]
    assert fired == ["person:ann"]
    for number in range(8):
        bank.deps.vault.lift_restriction(bank.ledger_id, bank.subject_ref(f"person:p{number}"), 2)
    later(bank, TIMER_WAIT)
    until_idle(bank)
    assert balance(bank, "bob") == 17 * 30
    assert types_of(bank).count("TimerFired") == 1 + 2 * 8


@pytest.mark.parametrize("begun", [False, True])
def test_a_restriction_that_begins_meanwhile_loses_nothing(bank: Ledger, begun: bool) -> None:
    """Between the look at the instance and the record of what is to be done: the event waits like any other."""
    if begun:
        run(bank, "account-ann", BOB)
        until_idle(bank, ONE)
    ref = bank.subject_ref("person:ann")

    def restrict_meanwhile(state: JsonObject, event: OpenedEvent) -> Sequence[Reaction]:
        if not lifted:
            bank.deps.vault.restrict(bank.ledger_id, ref, 1)
        return ONE.react(state, event)

    lifted = False
    run(bank, "account-ann", BOB)
    until_idle(bank, replace(ONE, react=restrict_meanwhile))
    lifted = True
    bank.deps.vault.lift_restriction(bank.ledger_id, ref, 2)
    until_idle(bank, ONE)
    assert balance(bank, "bob") == (60 if begun else 30)


def test_what_follows_an_event_that_waits_waits_behind_it(bank: Ledger) -> None:
    """The restriction is lifted between two events of a stream: the process sees them in their order."""
    seen: list[int] = []

    def note(_state: JsonObject, event: OpenedEvent) -> Sequence[Reaction]:
        seen.append(event.recorded.position)
        return []

    noting = with_react(note)
    ref = bank.subject_ref("person:ann")
    run(bank, "account-ann", BOB)
    bank.deps.vault.restrict(bank.ledger_id, ref, 1)
    until_idle(bank, noting)
    held = bank.deps.derived.held_events
    (position,) = held.held_events(bank.ledger_id, noting.name, bank.recorded()[0].envelope.stream_ref, 10)
    bank.deps.vault.lift_restriction(bank.ledger_id, ref, 2)
    run(bank, "account-ann", BOB)
    until_idle(bank, noting)
    assert seen == sorted(seen)
    assert seen[0] == position
    assert len(seen) == 2
