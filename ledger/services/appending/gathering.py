"""Work that those who wait for the same thing do together.

Whoever finds nobody at it begins at once, alone: nobody ever waits for company. Those who come meanwhile gather, and
when it is done one of them goes on, with all who have gathered. So the busier it is, the more is done at a time, and
a single one is as quick as if there were no others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_SOMEBODY: Final = -1
"""No thread has this id."""

Waiting = Callable[[], AbstractContextManager[object]]
"""What a thread does around the time in which it waits for others."""


class Gathering(Generic[T]):
    """One thread at a time works, for itself and for those who have gathered.

    ``weight``: what a piece counts for; one turn takes pieces of ``most`` together, and always at least one.
    ``together``: whether two pieces may share a turn.
    """

    def __init__(self, *, most: int, weight: Callable[[T], int], together: Callable[[T, T], bool]) -> None:
        self._most: Final = most
        self._weight = weight
        self._together = together
        self._lock = threading.Lock()
        self._queue: deque[_Ticket[T]] = deque()
        self._worker: int | None = None

    def do(
        self,
        piece: T,
        work: Callable[[Sequence[T]], None],
        then: Callable[[Sequence[T]], None] = lambda _: None,
        *,
        waiting: Waiting,
    ) -> None:
        """Have ``work`` done on ``piece``, by this thread or another, and ``then`` on the same pieces, while the next
        turn begins already. Returns when both are done.

        Both must not raise for one piece's sake, but note with each piece what has become of it. If they raise all the
        same, it is in the thread that did the work; the others' pieces are left as they are.
        """
        mine = _Ticket(piece)
        me = threading.get_ident()
        with self._lock:
            nested = self._worker == me
            first = self._worker is None
            if first:
                self._worker = me
            elif not nested:
                self._queue.append(mine)
        if nested:
            # Work that leads to more of its kind would wait for itself.
            work([piece])
            then([piece])
            return
        if not first:
            with waiting():
                mine.wait()
            if mine.done:
                return
            self._worker = me
        turn = [mine, *self._gather(mine)]
        pieces = [ticket.piece for ticket in turn]
        try:
            try:
                work(pieces)
            finally:
                self._hand_over()
            then(pieces)
        finally:
            for ticket in turn[1:]:
                ticket.done = True
                ticket.call()

    def _gather(self, first: _Ticket[T]) -> list[_Ticket[T]]:
        """Those who have come meanwhile, in their order, as many as fit."""
        found: list[_Ticket[T]] = []
        left = self._most - self._weight(first.piece)
        with self._lock:
            while self._queue:
                left -= self._weight(self._queue[0].piece)
                if left < 0 or not self._together(first.piece, self._queue[0].piece):
                    break
                found.append(self._queue.popleft())
        return found

    def _hand_over(self) -> None:
        with self._lock:
            if not self._queue:
                self._worker = None
                return
            ticket = self._queue.popleft()
            # Nobody in particular, until that thread is awake.
            self._worker = _SOMEBODY
        ticket.call()


class _Ticket(Generic[T]):
    """One who waits, until it is called: because it is done, or because it is its turn to work."""

    def __init__(self, piece: T) -> None:
        self.piece = piece
        self.done = False
        self._bell = threading.Lock()
        self._bell.acquire()

    def wait(self) -> None:
        self._bell.acquire()

    def call(self) -> None:
        self._bell.release()
