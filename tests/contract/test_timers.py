"""The rows that save process managers looking through the log: timers, and events that wait."""

from __future__ import annotations

from uuid import uuid4

from ledger.ports import Timer
from tests.support.ledgers import NOW, Ledger

S, T, U = b"s" * 16, b"t" * 16, b"u" * 16


def a_timer(due_at: int = NOW, process: str = "transfer") -> Timer:
    """A timer of its own id."""
    return Timer(uuid4(), process, due_at, uuid4(), 0)


def test_due_timers_come_earliest_first_and_only_when_they_are_due(ledger: Ledger) -> None:
    """Of one process, up to the time given, as many as asked for."""
    timers, ledger_id = ledger.deps.derived.timers, ledger.ledger_id
    late, early, other = a_timer(NOW + 2), a_timer(NOW + 1), a_timer(process="other")
    for timer in (late, early, other):
        timers.set_timer(ledger_id, timer)
    assert timers.due_timers(ledger_id, "transfer", NOW, 10) == []
    assert timers.due_timers(ledger_id, "transfer", NOW + 1, 10) == [early]
    assert timers.due_timers(ledger_id, "transfer", NOW + 2, 10) == [early, late]
    assert timers.due_timers(ledger_id, "transfer", NOW + 2, 1) == [early]
    assert timers.due_timers(ledger_id, "other", NOW, 10) == [other]


def test_timers_of_one_ledger_are_not_those_of_another(ledger: Ledger) -> None:
    """``ledger_id`` stands in every statement."""
    other = ledger.backend.new_ledger()
    timer = a_timer()
    timers = ledger.deps.derived.timers
    timers.set_timer(ledger.ledger_id, timer)
    timers.put_off_timer(other.ledger_id, "transfer", timer.timer_id, NOW + 1)
    timers.clear_timer(other.ledger_id, "transfer", timer.timer_id)
    assert timers.due_timers(other.ledger_id, "transfer", NOW, 10) == []
    assert timers.due_timers(ledger.ledger_id, "transfer", NOW, 10) == [timer]


def test_a_timer_is_set_put_off_and_cleared_once(ledger: Ledger) -> None:
    """Doing any of it again changes nothing, and touches no other timer."""
    timers, ledger_id = ledger.deps.derived.timers, ledger.ledger_id
    timer, other = a_timer(), a_timer(NOW + 1)
    for one in (timer, timer, other):
        timers.set_timer(ledger_id, one)
    assert timers.due_timers(ledger_id, "transfer", NOW + 2, 10) == [timer, other]
    for _ in range(2):
        timers.put_off_timer(ledger_id, "transfer", timer.timer_id, NOW + 5)
        assert timers.due_timers(ledger_id, "transfer", NOW + 2, 10) == [other]
    for _ in range(2):
        timers.clear_timer(ledger_id, "transfer", other.timer_id)
        assert [one.timer_id for one in timers.due_timers(ledger_id, "transfer", NOW + 5, 10)] == [timer.timer_id]
    timers.put_off_timer(ledger_id, "transfer", other.timer_id, NOW)
    assert len(timers.due_timers(ledger_id, "transfer", NOW + 5, 10)) == 1


def test_held_events_stand_in_order_within_their_streams(ledger: Ledger) -> None:
    """Held once, however often; streams by ref behind any place; of one process and one ledger."""
    held, ledger_id = ledger.deps.derived.held_events, ledger.ledger_id
    for ref, position in ((T, 7), (S, 5), (S, 3), (S, 5), (U, 1)):
        held.hold_event(ledger_id, "transfer", ref, position)
    held.hold_event(ledger_id, "other", S, 9)
    held.hold_event(ledger.backend.new_ledger().ledger_id, "transfer", S, 9)
    assert held.held_streams(ledger_id, "transfer", b"", 10) == [S, T, U]
    assert held.held_streams(ledger_id, "transfer", S, 1) == [T]
    assert held.holding(ledger_id, "transfer", [S, U, b"v" * 16]) == {S, U}
    assert held.held_events(ledger_id, "transfer", S, 10) == [3, 5]
    assert held.held_events(ledger_id, "transfer", S, 1) == [3]
    for _ in range(2):
        held.release_event(ledger_id, "transfer", S, 3)
        assert held.held_events(ledger_id, "transfer", S, 10) == [5]
    held.release_event(ledger_id, "transfer", U, 1)
    assert held.held_streams(ledger_id, "transfer", b"", 10) == [S, T]
