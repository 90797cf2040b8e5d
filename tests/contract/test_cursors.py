"""What every store of cursors promises: one holder at a time, and no change by one who was overtaken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar
from uuid import UUID, uuid4

import pytest

from ledger.errors import LeaseLostError
from ledger.ports import Cursor, CursorKey, Cursors, CursorState
from ledger.storage.database import open_engine
from ledger.storage.derived import open_derived
from tests.support.ledgers import Ledger
from tests.support.processes import processes

T = TypeVar("T")


KEY = CursorKey("projection", "activity", 1)
OURS, THEIRS = UUID(int=1), UUID(int=2)
LEASE = 5_000_000
"""Microseconds."""


class Place:
    """The cursors of one ledger, with one of them made."""

    def __init__(self, ledger: Ledger, key: CursorKey = KEY, state: CursorState = "running") -> None:
        self.ledger_id = ledger.ledger_id
        self.cursors: Cursors = ledger.deps.derived.cursors
        self.key = key
        self.cursors.add_cursor(self.ledger_id, key, 1, state, -1)

    def take(self, holder: UUID = OURS, now: int = 0) -> Cursor | None:
        """Take the lease."""
        return self.cursors.take_cursor(self.ledger_id, self.key, holder, now, now + LEASE)

    def move(self, old: int, new: int, *, holder: UUID = OURS, now: int = 0) -> None:
        """Move the cursor."""
        self.cursors.move_cursor(self.ledger_id, self.key, holder, old, new, now, now + LEASE)

    def fail(self, position: int, *, holder: UUID = OURS, retry_at: int = 0, stop: bool = False) -> Cursor:
        """Note a failure."""
        return self.cursors.note_failure(
            self.ledger_id, self.key, holder, position, "KeyError", retry_at=retry_at, stop=stop
        )

    def seen(self) -> Cursor:
        """The cursor as it is."""
        return next(found for found in self.cursors.cursors(self.ledger_id, self.key.kind) if found.key == self.key)


@pytest.fixture
def place(ledger: Ledger) -> Place:
    """A running cursor that has done nothing yet."""
    return Place(ledger)


def test_cursor_is_made_once(ledger: Ledger) -> None:
    """Adding a cursor that is there gives it as it is, and changes nothing."""
    place = Place(ledger)
    assert place.seen() == Cursor(KEY, 1, "running", -1, None, 0, 0, 0, None, 0)
    place.take()
    place.move(-1, 7)
    again = place.cursors.add_cursor(ledger.ledger_id, KEY, 2, "building", 99)
    assert again == place.seen()
    assert (again.version, again.state, again.position) == (1, "running", 7)


def test_many_that_add_a_cursor_at_once_get_the_same(ledger: Ledger) -> None:
    """Of twenty that make a cursor one does, and nobody is refused."""
    cursors = ledger.deps.derived.cursors
    made = at_once(20, lambda number: cursors.add_cursor(ledger.ledger_id, KEY, number + 1, "running", -1))
    assert len({cursor.version for cursor in made}) == 1


def test_cursors_are_listed_by_kind_name_and_number(ledger: Ledger) -> None:
    """A list holds the cursors of one kind, in order, and those of one ledger only."""
    cursors = ledger.deps.derived.cursors
    keys = [
        CursorKey("subscription", "b", 0),
        CursorKey("subscription", "a", 9),
        CursorKey("subscription", "a", 10),
        CursorKey("process", "a", 0),
    ]
    for key in keys:
        cursors.add_cursor(ledger.ledger_id, key, 1, "running", -1)
    other = ledger.backend.new_ledger()
    cursors.add_cursor(other.ledger_id, keys[0], 1, "running", -1)
    found = [cursor.key for cursor in cursors.cursors(ledger.ledger_id, "subscription")]
    assert found == [keys[1], keys[2], keys[0]]
    assert [cursor.key for cursor in cursors.cursors(ledger.ledger_id, "subscription", "b")] == [keys[0]]
    assert cursors.cursors(ledger.ledger_id, "snapshots") == []


def test_a_number_that_is_gone_does_not_come_back(ledger: Ledger) -> None:
    """Whoever slept while generations came and went gets the newest."""
    cursors = ledger.deps.derived.cursors
    second = cursors.add_cursor(ledger.ledger_id, CursorKey("projection", "a", 2), 1, "running", 7)
    assert cursors.add_cursor(ledger.ledger_id, CursorKey("projection", "a", 1), 1, "running", -1) == second
    assert cursors.add_cursor(ledger.ledger_id, CursorKey("projection", "a", 2), 1, "running", -1) == second
    assert cursors.cursors(ledger.ledger_id, "projection") == [second]


def test_lease_keeps_others_away_until_it_is_over(place: Place) -> None:
    """Nobody else gets a leased cursor; its holder gets it again; whoever comes after the end gets it."""
    taken = place.take(OURS, now=100)
    assert taken is not None
    assert (taken.holder, taken.lease_until) == (OURS, 100 + LEASE)
    assert place.take(THEIRS, now=100 + LEASE - 1) is None
    assert place.take(OURS, now=200) is not None
    assert place.take(THEIRS, now=200 + LEASE - 1) is None
    stolen = place.take(THEIRS, now=200 + LEASE)
    assert stolen is not None
    assert stolen.holder == THEIRS


def test_released_lease_is_free_at_once(place: Place) -> None:
    """Who gives a lease back lets others in; who does not have it releases nothing."""
    place.take(OURS)
    place.cursors.release_cursor(place.ledger_id, KEY, THEIRS)
    assert place.seen().holder == OURS
    place.cursors.release_cursor(place.ledger_id, KEY, OURS)
    assert place.seen().holder is None
    assert place.take(THEIRS) is not None


def test_twenty_threads_that_ask_at_once_get_one_lease(place: Place) -> None:
    """Exactly one of twenty threads has the lease, round after round."""
    for now in range(0, 10 * LEASE, LEASE):
        taken = at_once(20, lambda number, now=now: place.take(UUID(int=number + 1), now))  # type: ignore[misc]
        winners = [cursor for cursor in taken if cursor is not None]
        assert len(winners) == 1
        assert place.seen() == winners[0]


def test_several_processes_that_ask_at_once_get_one_lease(ledger: Ledger) -> None:
    """Exactly one of several processes has each of twenty cursors."""
    keys = [CursorKey("subscription", "shared", number) for number in range(20)]
    for key in keys:
        ledger.deps.derived.cursors.add_cursor(ledger.ledger_id, key, 1, "running", -1)
    start = processes.Barrier(4)
    won = processes.Queue()
    workers = [
        processes.Process(target=take_all, args=(ledger.backend.urls[0], ledger.ledger_id, keys, start, won))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    gains: dict[CursorKey, UUID] = {}
    for _ in workers:
        holder, mine = won.get(timeout=60)
        assert not gains.keys() & set(mine)
        gains.update(dict.fromkeys(mine, holder))
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    held = {
        cursor.key: cursor.holder for cursor in ledger.deps.derived.cursors.cursors(ledger.ledger_id, "subscription")
    }
    assert gains == held
    assert gains.keys() == set(keys)


def test_moving_prolongs_the_lease(place: Place) -> None:
    """A move is a sign of life; moving nowhere prolongs the lease and leaves the time of the last move."""
    place.take(OURS, now=100)
    place.move(-1, 4, now=200)
    assert (place.seen().position, place.seen().moved_at, place.seen().lease_until) == (4, 200, 200 + LEASE)
    place.move(4, 4, now=300)
    assert (place.seen().position, place.seen().moved_at, place.seen().lease_until) == (4, 200, 300 + LEASE)


def test_holder_who_was_overtaken_changes_nothing(place: Place) -> None:
    """However late it wakes up: whoever has lost the lease can neither move nor fail the cursor."""
    place.take(OURS, now=0)
    place.take(THEIRS, now=LEASE)
    place.move(-1, 3, holder=THEIRS, now=LEASE)
    before = place.seen()
    for position in (-1, 3):
        with pytest.raises(LeaseLostError):
            place.move(position, 9, holder=OURS, now=LEASE + 1)
        with pytest.raises(LeaseLostError):
            place.fail(position, holder=OURS)
    assert place.seen() == before


def test_holder_moves_only_from_where_the_cursor_is(place: Place) -> None:
    """The position is compared too: a holder who repeats an old move changes nothing."""
    place.take(OURS)
    place.move(-1, 3)
    before = place.seen()
    with pytest.raises(LeaseLostError):
        place.move(-1, 3)
    with pytest.raises(LeaseLostError):
        place.fail(-1)
    assert place.seen() == before


def test_late_holder_may_go_on_while_nobody_has_taken_over(place: Place) -> None:
    """A lease that is over and was not taken up is still its holder's: no work is lost by being slow."""
    place.take(OURS, now=0)
    place.move(-1, 3, now=10 * LEASE)
    assert place.seen().position == 3


def test_failures_are_counted_and_put_off(place: Place) -> None:
    """A failure frees the lease, counts, and keeps everybody away until it is time to try again."""
    place.take(OURS)
    failed = place.fail(-1, retry_at=500)
    assert (failed.tries, failed.error, failed.retry_at, failed.state) == (1, "KeyError", 500, "running")
    assert (failed.holder, failed.position) == (None, -1)
    assert failed == place.seen()
    assert place.take(THEIRS, now=499) is None
    assert place.take(THEIRS, now=500) is not None
    assert place.fail(-1, holder=THEIRS, retry_at=900).tries == 2
    place.take(OURS, now=900)
    place.move(-1, 0, now=900)
    assert (place.seen().tries, place.seen().error, place.seen().retry_at) == (0, None, 0)


def test_stopped_cursor_waits_for_its_restart(place: Place) -> None:
    """Nobody takes up what has stopped before it is restarted; then it goes on where it was."""
    place.take(OURS)
    place.move(-1, 5)
    assert place.fail(5, stop=True).state == "stopped"
    assert place.take(THEIRS, now=99 * LEASE) is None
    with pytest.raises(LeaseLostError):
        place.move(5, 6)
    assert place.cursors.restart_cursor(place.ledger_id, KEY)
    assert place.seen() == replace(
        place.seen(), state="running", position=5, tries=0, retry_at=0, error=None, holder=None
    )
    assert place.take(THEIRS) is not None


def test_only_what_is_stopped_is_restarted(ledger: Ledger) -> None:
    """Restarting says whether there was something to restart."""
    place = Place(ledger)
    place.take(OURS)
    before = place.seen()
    assert not place.cursors.restart_cursor(ledger.ledger_id, KEY)
    assert not place.cursors.restart_cursor(ledger.ledger_id, CursorKey("process", "none"))
    assert place.seen() == before


def test_generation_that_stopped_while_building_builds_on(ledger: Ledger) -> None:
    """A restart makes nobody the read model that readers see: that takes a take-over."""
    old = Place(ledger)
    new = Place(ledger, CursorKey("projection", "activity", 2), "building")
    for place in (old, new):
        place.take(OURS)
        place.fail(-1, stop=True)
        assert place.cursors.restart_cursor(ledger.ledger_id, place.key)
    assert (old.seen().state, new.seen().state) == ("running", "building")


def at_once(count: int, work: Callable[[int], T]) -> list[T]:
    """Run ``work`` in so many threads that all begin at the same moment."""
    start = threading.Barrier(count)

    def wait_and_work(number: int) -> T:
        start.wait(30)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(wait_and_work, range(count)))


def take_all(url: str, ledger_id: UUID, keys: list[CursorKey], start: threading.Barrier, won: object) -> None:
    """Another process: try to get each cursor, and tell which it got."""
    engine = open_engine(url)
    cursors, holder = open_derived(engine).cursors, uuid4()
    cursors.cursors(ledger_id, "subscription")
    start.wait(60)
    mine = [key for key in keys if cursors.take_cursor(ledger_id, key, holder, 0, LEASE) is not None]
    won.put((holder, mine))  # type: ignore[attr-defined]
    engine.dispose()
