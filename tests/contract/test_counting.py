"""How many events somebody has is the same number however it is counted: by windows, event by event, or by some of
both; and nobody who has only the database can make it another one."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from ledger.domain.events import JsonObject, RecordedEvent, Role
from ledger.domain.key_windows import SHAPE, Shape, Window
from ledger.errors import IntegrityError
from ledger.ports import KeyWindow
from ledger.services.counting import count, filling, windows
from ledger.services.counting.count import count_events, usage_of
from ledger.services.counting.filling import CURSOR, LEASE, step
from ledger.services.counting.windows import open_windows
from ledger.services.verifying.running import verify_ledger
from ledger.services.verifying.windows import NOT_SEALED, NOT_SO
from ledger.services.worker import run_worker
from ledger.storage import database, tables
from ledger.storage.derived import key_windows as stored_windows
from tests.support.ledgers import Ledger, a_fact, a_visit
from tests.support.worker import eventually

SMALL = Shape(window=16, step=4, stretch=1, fewest=2)
HOLDER, OTHER = UUID(int=11), UUID(int=12)
EVENTS = 90

MENU: Sequence[Callable[[], JsonObject]] = (
    lambda: a_visit("A"),
    lambda: a_visit("A", purpose="billing"),
    lambda: a_visit("B", parts=[part("A"), part("A", "billing")]),
    lambda: a_visit("B", actor="patient:A"),
    lambda: a_visit("C"),
    a_fact,
)


def part(patient: str, purpose: str = "") -> JsonObject:
    """A further part of an event."""
    return {"subject": f"patient:{patient}", "purpose": purpose, "data": {"n": 1}}


def grow(ledger: Ledger, number: int, seed: int = 1) -> None:
    """Events of a few people, often of one for a while, some of them of two at once."""
    chance = random.Random(seed)
    events: list[JsonObject] = []
    while len(events) < number:
        events += [chance.choice(MENU)() for _ in range(3)]
        often = MENU[seed % len(MENU)]
        events += [often() for _ in range(chance.randrange(6))]
    ledger.append(*events[:number])


def keys_of(ledger: Ledger) -> list[bytes]:
    """All keys of the people here, and one that nobody has."""
    people = [("A", ""), ("A", "billing"), ("A", "actor"), ("B", ""), ("C", "")]
    return [*(ledger.key_of(f"patient:{name}", purpose) for name, purpose in people), b"9" * 32]


def truth(ledger: Ledger, key_ids: Sequence[bytes]) -> int:
    """As the log itself says."""
    return of_events(ledger.recorded(), key_ids)


def of_events(events: Sequence[RecordedEvent], key_ids: Sequence[bytes]) -> int:
    """How many of these have something sealed under one of these keys."""
    return sum(any(one.key_id in key_ids and one.role is not Role.SHREDDED for one in event.parts) for event in events)


def assert_counts(ledger: Ledger) -> None:
    """For every mix of keys."""
    keys, events = keys_of(ledger), ledger.recorded()
    for many in range(len(keys) + 1):
        for some in combinations(keys, many):
            expected = of_events(events, some)
            assert count_events(ledger.deps, ledger.ledger_id, some) == expected
            assert ledger.deps.store.key_usage(ledger.ledger_id, some).events == expected


def fill(ledger: Ledger, shape: Shape = SMALL, holder: UUID = HOLDER) -> int:
    """As far as it goes; gives how many steps that took."""
    steps = 0
    while step(ledger.deps, ledger.ledger_id, holder, shape):
        steps += 1
    return steps


def stored(ledger: Ledger) -> Sequence[KeyWindow]:
    """All windows."""
    return ledger.deps.derived.key_windows.key_windows_in(ledger.ledger_id, (None, None), None, 1000)


def opened(ledger: Ledger) -> Sequence[Window | None]:
    """What they say."""
    return open_windows(ledger.deps, ledger.ledger_id, stored(ledger))


def of(make: Callable[[sa.Table], Any], ledger: Ledger, *conditions: Any) -> Any:
    """An update or delete of windows of this ledger."""
    return make(tables.key_windows).where(tables.key_windows.c.ledger_id == ledger.ledger_id, *conditions)


def position_of_cursor(ledger: Ledger) -> int:
    """How far the log was looked through."""
    (cursor,) = ledger.deps.derived.cursors.cursors(ledger.ledger_id, CURSOR.kind)
    return cursor.position


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    """A ledger with windows, and a few events behind them."""
    grow(ledger, EVENTS)
    fill(ledger)
    assert len(stored(ledger)) > 10
    return ledger


@pytest.mark.parametrize("seed", range(3))
def test_the_number_is_the_same_however_far_the_windows_are(ledger: Ledger, seed: int) -> None:
    """Without any, after each step, and when all is filled; for every mix of keys, and never with an alarm."""
    grow(ledger, EVENTS, seed)
    assert_counts(ledger)
    chance = random.Random(seed)
    steps = 0
    while step(ledger.deps, ledger.ledger_id, HOLDER, SMALL):
        steps += 1
        some = chance.sample(keys_of(ledger), 3)
        assert count_events(ledger.deps, ledger.ledger_id, some) == truth(ledger, some)
    assert steps == EVENTS // SMALL.step
    assert stored(ledger) != []
    assert_counts(ledger)
    grow(ledger, 3, seed)
    assert_counts(ledger)
    ledger.assert_intact()


def test_many_pages_of_windows_give_the_same_number(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large ledger has more than are read at once, and more positions beside them than are held at once."""
    monkeypatch.setattr(count, "_WINDOWS_AT_ONCE", 1)
    monkeypatch.setattr(count, "_MOST_POSITIONS", 1)
    assert_counts(filled)


def test_windows_that_are_gone_cost_nothing_but_time(filled: Ledger) -> None:
    """Some of them, then all; and without the cursor they are made again."""
    before = opened(filled)
    for one in stored(filled)[::3]:
        columns = tables.key_windows.c
        filled.backend.execute(of(sa.delete, filled, columns.key_id == one.key_id, columns.first == one.first))
    assert_counts(filled)
    filled.backend.execute(of(sa.delete, filled))
    assert_counts(filled)
    assert stored(filled) == []
    filled.backend.execute(sa.delete(tables.cursors).where(tables.cursors.c.ledger_id == filled.ledger_id))
    fill(filled)
    assert opened(filled) == before
    filled.assert_intact()


def test_what_the_windows_cover_is_not_counted_again(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of somebody who is in every event, only those behind the last step are; and then the erasure counts once."""
    filled.append(*(a_visit("D") for _ in range(200)))
    fill(filled)
    asked: list[Any] = []
    store = type(filled.deps.store)
    before = store.count_events_between

    def noting(self: Any, ledger_id: UUID, key_ids: Any, ranges: Any) -> int:
        asked.append((ranges, before(self, ledger_id, key_ids, ranges)))
        return int(asked[-1][1])

    monkeypatch.setattr(store, "count_events_between", noting)
    outcome = filled.erase("patient:D")
    assert (outcome.erasure.events, outcome.receipt.payload["events"]) == (200, 200)
    ((ranges, events),) = asked
    covered = filled.size() - 1 - (filled.size() - 1) % SMALL.step
    assert ranges[-1] == (covered, None)
    assert events <= SMALL.step


def test_an_erasure_and_its_receipt_say_what_the_log_says(filled: Ledger) -> None:
    """Several purposes at once; and the same number when it is asked for later."""
    keys = keys_of(filled)[:2]
    expected = truth(filled, keys)
    outcome = filled.erase("patient:A")
    assert {key_id for key_id, _ in outcome.erasure.entry.key_ids} == set(keys)
    assert (outcome.erasure.events, outcome.receipt.payload["events"]) == (expected, expected)
    assert filled.erase("patient:A").erasure.events == expected
    fill(filled)
    assert_counts(filled)
    filled.assert_intact()


def test_the_ends_of_what_somebody_has(filled: Ledger) -> None:
    """The first and last position beside the number, as going through all of them finds them."""
    keys = keys_of(filled)
    for some in ([], keys[:1], keys[:3], keys[5:], keys):
        assert usage_of(filled.deps, filled.ledger_id, some) == filled.deps.store.key_usage(filled.ledger_id, some)
    ends = filled.deps.store.key_ends(filled.ledger_id, [filled.key_of("patient:A", "actor")], [Role.SUBJECT])
    assert ends is None


def test_windows_wait_for_whole_steps(ledger: Ledger) -> None:
    """Before that there is nothing to do, and not so much as a cursor."""
    grow(ledger, SMALL.step - 1)
    assert fill(ledger) == 0
    assert ledger.deps.derived.cursors.cursors(ledger.ledger_id, CURSOR.kind) == []
    grow(ledger, 1)
    assert (fill(ledger), position_of_cursor(ledger)) == (1, SMALL.step - 1)


def test_of_two_workers_one_does_each_step(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one has the lease the other does nothing. One that wakes up late, in the middle of a step, changes
    nothing; and what is there in the end is what one alone would have made."""
    grow(filled, 40)
    before = windows.seal_windows
    seen: list[object] = []

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(filling, "seal_windows", before)
        seen.append(step(filled.deps, filled.ledger_id, OTHER, SMALL))
        filled.backend.clock.now += 2 * LEASE
        seen.append(fill(filled, holder=OTHER))
        seen.append(opened(filled))
        return before(*arguments)

    monkeypatch.setattr(filling, "seal_windows", overtaken)
    assert not step(filled.deps, filled.ledger_id, HOLDER, SMALL)
    assert seen[:2] == [False, (EVENTS + 40) // SMALL.step - EVENTS // SMALL.step]
    assert opened(filled) == seen[2]
    assert_counts(filled)
    filled.assert_intact()


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_worker_that_dies_in_a_step_has_done_none_of_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """I12: windows and cursor move together; the next worker does the step, and the number is right meanwhile."""
    grow(ledger, EVENTS)
    assert step(ledger.deps, ledger.ledger_id, HOLDER, SMALL)
    before, position, put, left = opened(ledger), position_of_cursor(ledger), database.put, iter(range(calls))

    def dying(*arguments: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        put(*arguments)

    monkeypatch.setattr(stored_windows, "put", dying)
    with pytest.raises(KeyboardInterrupt):
        fill(ledger)
    done = (position_of_cursor(ledger) - position) // SMALL.step
    assert done <= calls
    if done == 0:
        assert opened(ledger) == before
    assert_counts(ledger)
    monkeypatch.setattr(stored_windows, "put", put)
    ledger.backend.clock.now += 2 * LEASE
    assert fill(ledger, holder=OTHER) == EVENTS // SMALL.step - 1 - done
    assert_counts(ledger)
    ledger.assert_intact()


def test_a_worker_makes_windows(ledger: Ledger) -> None:
    """Beside its other duties, as soon as a step of the log is whole."""
    ledger.append(*(a_visit("A") for _ in range(SHAPE.step + 5)))
    stop = threading.Event()
    worker = threading.Thread(
        target=run_worker, args=(ledger.deps,), kwargs={"stop": stop, "ledgers": [ledger.ledger_id]}
    )
    worker.start()
    try:
        eventually(lambda: stored(ledger) != [])
    finally:
        stop.set()
        worker.join(60)
    (window,) = opened(ledger)
    assert window == Window(ledger.key_of("patient:A"), 0, SHAPE.step, (1 << SHAPE.step) - 1)
    assert ledger.erase("patient:A").erasure.events == SHAPE.step + 5


def test_a_log_with_a_hole_is_not_gone_over(ledger: Ledger) -> None:
    """The worker says so, tries again later, and claims nothing meanwhile."""
    grow(ledger, SMALL.step)
    ledger.backend.tamper(ledger.row(sa.delete(tables.events), SMALL.step - 1))
    with pytest.raises(IntegrityError):
        step(ledger.deps, ledger.ledger_id, HOLDER, SMALL)
    assert (stored(ledger), position_of_cursor(ledger)) == ([], -1)


def test_a_window_that_was_put_back_from_earlier_is_as_true_as_it_was(ledger: Ledger) -> None:
    """It covers less; nobody is alarmed."""
    grow(ledger, EVENTS)
    step(ledger.deps, ledger.ledger_id, HOLDER, SMALL)
    early = stored(ledger)
    assert early != []
    fill(ledger)
    columns = tables.key_windows.c
    for one in early:
        here = (columns.key_id == one.key_id, columns.first == one.first)
        ledger.backend.execute(of(sa.update, ledger, *here).values(beyond=one.beyond, sealed=one.sealed))
    assert_counts(ledger)
    ledger.assert_intact()


def _first(ledger: Ledger) -> KeyWindow:
    return next(one for one in stored(ledger) if one.key_id == ledger.key_of("patient:A"))


def _alter(**columns: Any) -> Callable[[Ledger], None]:
    def alter(ledger: Ledger) -> None:
        one = _first(ledger)
        here = (tables.key_windows.c.key_id == one.key_id, tables.key_windows.c.first == one.first)
        ledger.backend.execute(of(sa.update, ledger, *here).values(**columns))

    return alter


def _another_s(ledger: Ledger) -> None:
    other = next(one for one in stored(ledger) if one.key_id != ledger.key_of("patient:A"))
    _alter(beyond=other.beyond, sealed=other.sealed)(ledger)


def _of_another_ledger(ledger: Ledger) -> None:
    other = ledger.backend.new_ledger()
    grow(other, EVENTS)
    fill(other)
    _alter(sealed=_first(other).sealed)(ledger)


def _further(ledger: Ledger) -> None:
    _alter(beyond=_first(ledger).beyond + 1)(ledger)


def _elsewhere(ledger: Ledger) -> None:
    _alter(first=_first(ledger).first + 1)(ledger)


def _made_up(ledger: Ledger) -> None:
    row = {"key_id": ledger.key_of("patient:A"), "first": 1000, "beyond": 1016, "sealed": b"\x01" + bytes(60)}
    ledger.backend.execute(sa.insert(tables.key_windows).values(ledger_id=ledger.ledger_id, **row))


FORGERIES: dict[str, Callable[[Ledger], None]] = {
    "other bits": _alter(sealed=b"\x01" + bytes(60)),
    "no bits": _alter(sealed=b""),
    "another person's": _another_s,
    "another ledger's": _of_another_ledger,
    "said to go further": _further,
    "said to go beyond the log": _alter(beyond=2**40),
    "said to end before it begins": _alter(beyond=-5),
    "said to begin elsewhere": _elsewhere,
    "made up": _made_up,
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_window_is_not_counted_by_and_is_found(filled: Ledger, name: str) -> None:
    """I10: the number stays right, whoever counts raises an alarm, and ``verify`` names it and accuses no event."""
    FORGERIES[name](filled)
    assert_counts(filled)
    assert {what for _, _, what in filled.alarms} == {"a window of a key was not sealed by this ledger"}
    report = filled.verify()
    assert not report.intact
    assert {(finding.what, finding.verdict) for finding in report.findings} == {(NOT_SEALED, None)}
    assert all(0 <= finding.position <= finding.last < EVENTS for finding in report.findings)


def test_what_a_hand_put_into_sqlite_is_found_and_stops_nobody(ledger: Ledger) -> None:
    """Text, halves and nothing where numbers and bytes belong."""
    if ledger.backend.name != "sqlite":
        ledger.backend.execute(sa.text("SELECT 1"))
        return
    grow(ledger, EVENTS)
    fill(ledger)
    strange = [("first", "'x'"), ("first", "3.5"), ("first", "-7"), ("beyond", "'y'"), ("beyond", "7.5")]
    for column, value in [*strange, ("sealed", "'z'"), ("sealed", "3"), ("key_id", "'w'")]:
        _alter(**{column: sa.literal_column(value)})(ledger)
        assert_counts(ledger)
        assert NOT_SEALED in {finding.what for finding in ledger.verify().findings}
        ledger.backend.execute(of(sa.delete, ledger))
        ledger.backend.execute(sa.delete(tables.cursors).where(tables.cursors.c.ledger_id == ledger.ledger_id))
        fill(ledger)
    ledger.alarms.clear()
    ledger.assert_intact()


def test_a_window_made_of_altered_rows_is_found_when_they_are_put_right(ledger: Ledger) -> None:
    """Whoever deceives the worker and leaves no other trace; and the receipt that came of it is found too, even when
    the window is gone."""
    grow(ledger, EVENTS)
    key_id = ledger.key_of("patient:A")
    columns = tables.event_keys.c
    position = next(event.position for event in ledger.recorded() if event.parts[0].key_id == key_id)
    row = (columns.ledger_id == ledger.ledger_id, columns.key_id == key_id, columns.position == position)
    with ledger.backend.engine.connect() as connection:
        kept = [dict(one) for one in connection.execute(sa.select(tables.event_keys).where(*row)).mappings()]
    ledger.backend.tamper(sa.delete(tables.event_keys).where(*row))
    fill(ledger)
    ledger.backend.tamper(*(sa.insert(tables.event_keys).values(one) for one in kept))
    report = ledger.verify()
    assert {(finding.what, finding.verdict) for finding in report.findings} == {(NOT_SO, None)}
    expected = truth(ledger, [key_id])
    assert ledger.erase("patient:A", [""]).receipt.payload["events"] == expected - 1
    ledger.backend.execute(of(sa.delete, ledger))
    (finding,) = ledger.verify().findings
    assert (finding.position, "another number of events" in finding.what) == (EVENTS, True)


def test_by_ref_nobody_goes_through_all_events_either(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name for the receipt's commitment is read from one event."""
    asked: list[Any] = []
    store = type(filled.deps.store)
    before = store.select_events

    def noting(self: Any, ledger_id: UUID, which: Any, *rest: Any) -> Any:
        asked.append(which)
        return before(self, ledger_id, which, *rest)

    monkeypatch.setattr(store, "select_events", noting)
    monkeypatch.setattr(store, "key_usage", None)
    outcome = filled.erase(filled.subject_ref("patient:A"))
    assert outcome.name_salt is not None
    assert all(which.first_position == which.last_position for which in asked)


def test_without_keys_of_its_own_a_check_leaves_windows_alone(filled: Ledger) -> None:
    """``--no-open`` needs no KEK, and cannot see into them; nothing is counted by a forged one anyway."""
    _alter(sealed=b"")(filled)
    report = verify_ledger(filled.deps, filled.ledger_id, lambda *_: None, opening=False)
    assert report.intact


def test_the_shape_fits_together() -> None:
    """Each length is a multiple of the next; what is looked at can make a key worth a window."""
    assert SHAPE.window % SHAPE.step == SHAPE.step % SHAPE.stretch == 0
    assert 0 < SHAPE.fewest <= SHAPE.step // SHAPE.stretch
