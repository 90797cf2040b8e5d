"""Those who wait for the same thing are served together, each once, and nobody waits for company."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import pytest

from ledger.services.appending.gathering import Gathering

MOST = 10


def gathering(together: Callable[[int, int], bool] = lambda *_: True) -> Gathering[int]:
    """Of numbers, each of which weighs what it says."""
    return Gathering(most=MOST, weight=lambda piece: piece, together=together)


class Scene:
    """Pieces that come in this order while the first turn is held up; and which turns there were."""

    def __init__(self, where: Gathering[int]) -> None:
        self.where = where
        self.turns: list[list[int]] = []
        self.finished: list[list[int]] = []
        self.errors: list[BaseException] = []
        self.waited: list[int] = []
        self._threads: list[threading.Thread] = []
        self._free = threading.Event()
        self._begun = threading.Event()

    def work(self, pieces: Sequence[int]) -> None:
        """The first turn is held up."""
        self.turns.append(list(pieces))
        if not self._begun.is_set():
            self._begun.set()
            assert self._free.wait(10)
        if 7 in pieces:
            raise ValueError("seven")

    def come(self, piece: int) -> None:
        """Somebody comes with a piece, and stands behind those who came before."""
        thread = threading.Thread(target=self._do, args=(piece,))
        thread.start()
        self._threads.append(thread)
        if len(self._threads) == 1:
            assert self._begun.wait(10)
        while len(self.where._queue) < len(self._threads) - 1:
            pass

    def _do(self, piece: int) -> None:
        try:
            self.where.do(piece, self.work, lambda pieces: self.finished.append(list(pieces)), waiting=nullcontext)
        except ValueError as error:
            self.errors.append(error)

    def end(self) -> None:
        """Let the first turn go on, and wait for all."""
        self._free.set()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


def test_one_by_itself_is_served_at_once() -> None:
    """By its own thread, without waiting."""
    threads = []

    def never() -> nullcontext[None]:
        raise AssertionError("waited")

    gathering().do(1, lambda _: threads.append(threading.get_ident()), waiting=never)
    assert threads == [threading.get_ident()]


def test_who_comes_meanwhile_gathers() -> None:
    """In their order, in one turn."""
    scene = Scene(gathering())
    for piece in (1, 2, 3, 4):
        scene.come(piece)
    scene.end()
    assert scene.turns == [[1], [2, 3, 4]]
    assert scene.finished == scene.turns


def test_a_turn_takes_as_much_as_fits_and_one_at_least() -> None:
    """What is too heavy for one turn has one to itself, and nobody overtakes it."""
    scene = Scene(gathering())
    for piece in (1, 6, 4, 1, 99, 2):
        scene.come(piece)
    scene.end()
    assert scene.turns == [[1], [6, 4], [1], [99], [2]]


def test_what_does_not_go_together_takes_turns() -> None:
    """Pieces that must not share one do not."""
    scene = Scene(gathering(lambda one, other: one % 2 == other % 2))
    for piece in (1, 2, 4, 3, 2):
        scene.come(piece)
    scene.end()
    assert scene.turns == [[1], [2, 4], [3], [2]]


def test_an_error_is_raised_to_who_worked_and_holds_nobody_up() -> None:
    """Those who shared the turn return; the next turn begins."""
    scene = Scene(gathering())
    for piece in (1, 7, 2, 3):
        scene.come(piece)
    scene.end()
    assert scene.turns == [[1], [7, 2], [3]]
    assert len(scene.errors) == 1
    assert scene.finished == [[1], [3]]


def test_the_next_turn_begins_while_the_last_is_finished() -> None:
    """Only the work is one at a time, what comes after it is not."""
    where, met = gathering(), threading.Barrier(2)

    def finish(_: Sequence[int]) -> None:
        met.wait(10)

    def do() -> None:
        where.do(1, lambda _: None, finish, waiting=nullcontext)

    other = threading.Thread(target=do)
    other.start()
    do()
    other.join(10)
    assert not met.broken


def test_work_that_leads_to_more_of_its_kind_does_not_wait_for_itself() -> None:
    """It is done within."""
    where = gathering()
    done: list[int] = []

    def work(pieces: Sequence[int]) -> None:
        done.extend(pieces)
        if pieces == [1]:
            where.do(2, work, waiting=nullcontext)

    where.do(1, work, waiting=nullcontext)
    assert done == [1, 2]


@pytest.mark.parametrize("people", [2, 16])
def test_everybody_is_served_exactly_once(people: int) -> None:
    """However they come."""
    where, lock = gathering(), threading.Lock()
    done: list[int] = []
    busy: list[int] = []

    def work(pieces: Sequence[int]) -> None:
        busy.append(1)
        assert len(busy) == 1
        with lock:
            done.extend(pieces)
        busy.pop()

    def come(number: int) -> None:
        for _ in range(200):
            where.do(number % 5 + 1, work, waiting=nullcontext)

    threads = [threading.Thread(target=come, args=(number,)) for number in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(done) == sorted(number % 5 + 1 for number in range(people) for _ in range(200))
