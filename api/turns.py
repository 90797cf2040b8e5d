"""Who takes up what, so that slow clients cost little: nobody who waits for a client keeps others from being served.

The server has many threads (``SERVER_THREADS``), one for each request that is under way, and works on few of them at a
time (``Settings.threads``, the places). Whoever waits gives up its place meanwhile: for bytes of a body, for a reader
to take what is streamed, for events to come. What is left to bound is how many may wait, of one API key above all, and
how many may hold much memory (docs/adr/0007-slow-clients.md).
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from api.problems import SlowDownError

SERVER_THREADS: Final = 256
"""Requests that may be under way in one process. A thread that waits takes some 70 KiB."""

MOST_READING: Final = SERVER_THREADS * 3 // 8
"""Those of them that may wait for the rest of a body."""

MOST_STAYING: Final = SERVER_THREADS * 3 // 8
"""Those of them that may wait for longer: for lines, for a reader, for events, or for a turn to do so. The quarter that
is left is for requests that are there whole."""

MOST_APPENDING: Final = SERVER_THREADS * 5 // 8
"""Those of them that may append at a time: each waits until what it brings is on the disk. More are told to come again,
rather than to let all threads wait for one database."""

PATIENCE_SECONDS: Final = 10.0
"""How long a large upload or a stream waits for its turn before it is told to come again."""


class Places:
    """So many requests are worked on at a time; the next is the one that has waited longest."""

    def __init__(self, number: int) -> None:
        self._lock = threading.Lock()
        self._free = number
        self._queue: deque[threading.Lock] = deque()

    def take(self) -> None:
        """Wait for a place and take it."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            ticket = threading.Lock()
            ticket.acquire()
            self._queue.append(ticket)
        # The place is handed over: nobody who comes later can be quicker.
        ticket.acquire()

    def give(self) -> None:
        """Give a place to whoever is next."""
        with self._lock:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._free += 1


class Turns:
    """Something that so many requests may do at a time, and so many of one API key (None: all strangers together)."""

    def __init__(self, most: int, most_per_key: int) -> None:
        self._most = max(1, most)
        self._most_per_key = max(1, most_per_key)
        self._changed = threading.Condition()
        self._taken: Counter[UUID | None] = Counter()

    def take(self, key: UUID | None, seconds: float = 0.0) -> bool:
        """Take a turn within so many seconds; False when there was none."""
        with self._changed:
            granted = self._changed.wait_for(lambda: self._free_for(key), seconds)
            if granted:
                self._taken[key] += 1
            return granted

    def give(self, key: UUID | None) -> None:
        """Give a turn back."""
        with self._changed:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]
            self._changed.notify_all()

    def _free_for(self, key: UUID | None) -> bool:
        return self._taken[key] < self._most_per_key and self._taken.total() < self._most


class Limits:
    """What the requests of one process share. ``threads``: how many of them are worked on at a time."""

    def __init__(self, threads: int) -> None:
        half = threads // 2
        self.places = Places(threads)
        # Of one key half, so that no key can keep the others out. Clients without a key count as one.
        self.reading = Turns(MOST_READING, MOST_READING // 2)
        self.staying = Turns(MOST_STAYING, MOST_STAYING // 2)
        # Most services write with one key: it may have nearly all.
        self.appending = Turns(MOST_APPENDING, MOST_APPENDING * 7 // 8)
        # These two hold much in memory.
        self.uploads = Turns(threads, half)
        self.downloads = Turns(threads, half)
        # The others look at a database now and then.
        self.followers = Turns(half, half)
        self.polls = Turns(threads * 2, threads)
        # Apart, so that who polls does not keep others from reading their own writes.
        self.own_writes = Turns(threads * 2, threads)


class Visit:
    """What one request has taken of the limits. Used by one thread at a time; ``close`` gives everything back."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.key: UUID | None = None
        self._works = False
        self._held: list[tuple[Turns, UUID | None]] = []
        self._stays = False

    def work(self) -> None:
        """Take a place."""
        if not self._works:
            self.limits.places.take()
            self._works = True

    def rest(self) -> None:
        """Give the place up."""
        if self._works:
            self._works = False
            self.limits.places.give()

    @contextmanager
    def working(self) -> Iterator[None]:
        """With a place, for a piece of a stream, whose request has none while its client reads."""
        self.work()
        try:
            yield
        finally:
            self.rest()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Without the place that this request has, if it has one."""
        worked = self._works
        self.rest()
        try:
            yield
        finally:
            if worked:
                self.work()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Wait for the client to send, without a place. Raises ``SlowDownError`` when too many requests do."""
        turns, key, worked = None if self._stays else self.limits.reading, self.key, self._works
        if turns is not None and not turns.take(key):
            raise too_many()
        self.rest()
        try:
            yield
        finally:
            # First, so that who waits for a place does not count as who waits for a client.
            if turns is not None:
                turns.give(key)
            if worked:
                self.work()

    @contextmanager
    def appending(self) -> Iterator[None]:
        """Append. Raises ``SlowDownError`` when too many do."""
        turns, key = self.limits.appending, self.key
        if not turns.take(key):
            raise too_many("appends")
        try:
            yield
        finally:
            turns.give(key)

    def stay(self) -> None:
        """Be one of those who wait for long, until the request is answered and sent: nobody is told to come again in
        the middle. Raises ``SlowDownError`` when too many do."""
        if not self._stays:
            if not self.try_hold(self.limits.staying):
                raise too_many()
            self._stays = True

    def hold(self, turns: Turns) -> None:
        """Take a turn until the request is answered and sent. Raises ``SlowDownError`` when none comes free in time."""
        if all(held is not turns for held, _ in self._held):
            with self.resting():
                if not self.try_hold(turns, PATIENCE_SECONDS):
                    raise too_many()

    def try_hold(self, turns: Turns, seconds: float = 0.0) -> bool:
        """Take a turn until the request is answered and sent; False when none comes free in time."""
        key = self.key
        granted = turns.take(key, seconds)
        if granted:
            self._held.append((turns, key))
        return granted

    def close(self) -> None:
        """Give everything back. Doing so again changes nothing."""
        self.rest()
        while self._held:
            turns, key = self._held.pop()
            turns.give(key)
        self._stays = False


def too_many(what: str = "long requests") -> SlowDownError:
    """What a request is told that finds no turn."""
    return SlowDownError(f"too many {what} are under way, of this API key or of all; come again")
