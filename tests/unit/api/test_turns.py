"""Whoever waits has no place, and nobody takes more than a share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from uuid import UUID

import pytest

from api.problems import SlowDownError
from api.turns import MOST_READING, MOST_STAYING, SERVER_THREADS, Limits, Places, Turns, Visit

ANN, BOB = UUID(int=1), UUID(int=2)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def visit(limits: Limits, key: UUID | None = ANN) -> Visit:
    """A request of somebody's that is worked on."""
    one = Visit(limits)
    one.key = key
    one.work()
    return one


def test_places_are_taken_in_the_order_of_asking() -> None:
    """Whoever has waited longest is next, and nobody who comes later."""
    places, order = Places(1), []
    places.take()

    def wait(number: int) -> None:
        places.take()
        order.append(number)
        places.give()

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=wait, args=[number]))
        threads[-1].start()
        eventually(lambda: len(places._queue) == number + 1)  # noqa: B023 - used in this round
    places.give()
    for thread in threads:
        thread.join()

    assert order == [0, 1, 2, 3, 4]


def test_who_appends_gives_its_turn_back_and_one_key_never_has_all() -> None:
    """Whatever comes of the append; the next of that key is told to come again, and another key's is taken on."""
    limits = Limits(2)
    limits.appending = Turns(3, 2)
    for error in (ValueError, KeyError):
        with pytest.raises(error), visit(limits).appending():
            raise error
    limits = Limits(20)
    limits.appending = Turns(3, 2)
    with visit(limits).appending(), visit(limits).appending():
        with pytest.raises(SlowDownError, match="appends"), visit(limits).appending():
            raise AssertionError
        with visit(limits, BOB).appending():
            pass
    with visit(limits).appending():
        pass


def test_one_key_gets_its_share_and_the_others_theirs() -> None:
    """However much it asks for."""
    turns = Turns(3, 2)

    assert [turns.take(ANN) for _ in range(4)] == [True, True, False, False]
    assert [turns.take(BOB) for _ in range(2)] == [True, False]
    turns.give(ANN)
    assert turns.take(BOB)


def test_a_turn_is_waited_for() -> None:
    """For so many seconds."""
    turns = Turns(1, 1)
    assert turns.take(ANN)
    threading.Timer(0.05, turns.give, [ANN]).start()

    assert not turns.take(BOB, 0.001)
    assert turns.take(BOB, 10)


def test_who_reads_leaves_the_place_to_others() -> None:
    """A body that does not come costs no place, and is no obstacle to the next."""
    limits = Limits(1)
    slow = visit(limits)
    with slow.reading():
        visit(limits, BOB).close()
    # It has its place again.
    late = threading.Thread(target=visit, args=[limits, BOB], daemon=True)
    late.start()
    late.join(0.05)
    assert late.is_alive()
    slow.close()
    late.join()


@pytest.mark.parametrize("greedy", [ANN, None])
def test_a_client_whose_bodies_do_not_come_keeps_nobody_else_out(greedy: UUID | None) -> None:
    """Of one key only so many may wait; strangers count as one."""
    limits = Limits(1)
    while limits.reading.take(greedy):
        pass

    refused = visit(limits, greedy)
    with pytest.raises(SlowDownError), refused.reading():
        pass
    refused.close()
    with visit(limits, BOB).reading():
        pass


def test_threads_are_left_whatever_clients_do() -> None:
    """For requests that are there whole."""
    assert MOST_READING + MOST_STAYING <= SERVER_THREADS * 3 // 4


def test_who_waits_for_a_place_does_not_count_as_who_reads() -> None:
    """Else a burst of requests would be told to slow down for no fault of theirs."""
    limits = Limits(1)
    reader = visit(limits)

    def read() -> None:
        with reader.reading():
            blocker.work()
        reader.close()

    blocker = Visit(limits)
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    eventually(lambda: len(limits.places._queue) == 1)

    assert limits.reading._taken.total() == 0
    blocker.close()
    thread.join()


def test_everything_is_given_back_once() -> None:
    """Also when it is done twice, or when there was nothing."""
    limits = Limits(2)
    one = visit(limits)
    one.stay()
    one.hold(limits.uploads)
    one.hold(limits.uploads)
    one.close()
    one.close()
    Visit(limits).close()

    assert limits.staying._taken.total() == limits.uploads._taken.total() == 0
    assert limits.places._free == 2


def test_who_stays_may_read_without_asking_again() -> None:
    """An upload is not told to come again in its middle."""
    limits = Limits(1)
    one = visit(limits)
    one.stay()
    for _ in range(MOST_READING // 2):
        limits.reading.take(ANN)

    with one.reading():
        pass
