"""The rows that save looking through the log for timers."""

from __future__ import annotations

from uuid import uuid4

from ledger.ports import Timer
from tests.support.ledgers import NOW, Ledger

STREAM = b"s" * 16


def a_timer(name: str = "deadline", due_at: int = NOW, stream_ref: bytes = STREAM, process: str = "transfer") -> Timer:
    """A timer of its own id."""
    return Timer(uuid4(), process, stream_ref, name, due_at, uuid4())


def test_due_timers_come_earliest_first_and_only_when_they_are_due(ledger: Ledger) -> None:
    """Of one process, up to the time given, as many as asked for."""
    timers, ledger_id = ledger.deps.derived.timers, ledger.ledger_id
    late, early, other = a_timer("late", NOW + 2), a_timer("early", NOW + 1), a_timer(process="other")
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
    ledger.deps.derived.timers.set_timer(ledger.ledger_id, timer)
    other.deps.derived.timers.clear_timer(other.ledger_id, "transfer", STREAM, "deadline")
    assert other.deps.derived.timers.due_timers(other.ledger_id, "transfer", NOW, 10) == []
    assert ledger.deps.derived.timers.due_timers(ledger.ledger_id, "transfer", NOW, 10) == [timer]


def test_a_timer_is_set_and_cleared_once(ledger: Ledger) -> None:
    """Doing either again changes nothing, and touches no other timer."""
    timers, ledger_id = ledger.deps.derived.timers, ledger.ledger_id
    timer, elsewhere, other = a_timer(), a_timer(due_at=NOW + 1, stream_ref=b"t" * 16), a_timer("other", NOW + 2)
    for one in (timer, timer, elsewhere, other):
        timers.set_timer(ledger_id, one)
    assert timers.due_timers(ledger_id, "transfer", NOW + 2, 10) == [timer, elsewhere, other]
    for _ in range(2):
        timers.clear_timer(ledger_id, "transfer", STREAM, "deadline")
        assert timers.due_timers(ledger_id, "transfer", NOW + 2, 10) == [elsewhere, other]
