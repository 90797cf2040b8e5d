"""A short memory of unwrapped keys, so that a page of one person's events asks the provider once.

It never answers whether a key exists (I7): the wrapped blob comes from the database each time, and the memory only
saves undoing that very wrap again. What has run out leaves at the next use, so an idle process can hold it for longer.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final, TypeVar

Row = TypeVar("Row", bound=Hashable)
T = TypeVar("T")

LIFETIME_SECONDS: Final = 60.0
MOST_ENTRIES: Final = 20_000


class UnwrapCache:
    """Name → what one wrap held, bound to the row that it stands in (or to the hash of the blob and its AAD): another
    blob, or the same in another row, is another entry."""

    def __init__(
        self,
        *,
        lifetime: float = LIFETIME_SECONDS,
        most: int = MOST_ENTRIES,
        clock: Callable[[], float] = time.monotonic,
        note: Callable[[bool], None] = lambda remembered: None,
    ) -> None:
        """``note`` is told of each use whether the key was remembered."""
        self._lifetime = lifetime
        self._most = most
        self._clock = clock
        self._note = note
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, tuple[float, Hashable, Any]] = OrderedDict()

    def unwrap(self, name: Hashable, blob: bytes, aad: bytes, undo: Callable[[], bytes]) -> bytes:
        """The plaintext of ``blob``: remembered, or from ``undo``, whose exceptions pass through unremembered."""
        return self.opened([(name, hashlib.sha256(aad + blob).digest())], lambda _: undo())[0]

    def opened(self, rows: Sequence[tuple[Hashable, Row]], undo: Callable[[Row], T]) -> list[T]:
        """What each of these (name, row) holds: remembered for the very same row, or from ``undo``, whose exceptions
        pass through unremembered. A row has all that its wrap and AAD are made of."""
        with self._lock:
            self._drop_expired(self._clock())
            entries = [self._entries.get(name) for name, _ in rows]
        found = []
        for (name, row), entry in zip(rows, entries, strict=True):
            remembered = entry is not None and entry[1] == row
            self._note(remembered)
            found.append(entry[2] if entry is not None and remembered else self._undone(name, row, undo))
        return found

    def _undone(self, name: Hashable, row: Row, undo: Callable[[Row], T]) -> T:
        now = self._clock()
        opened = undo(row)
        with self._lock:
            self._entries.pop(name, None)
            self._entries[name] = (now + self._lifetime, row, opened)
            if len(self._entries) > self._most:
                self._entries.popitem(last=False)
        return opened

    def recent(self, names: Sequence[Hashable]) -> list[tuple[Any, Any]]:
        """The (row, what it held) of these names, as far as they are remembered. Whether the database has these very
        rows still, only the database can tell."""
        with self._lock:
            self._drop_expired(self._clock())
            return [self._entries[name][1:] for name in names if name in self._entries]

    def forget(self, names: Iterable[Hashable]) -> None:
        """Drop these entries now."""
        with self._lock:
            for name in names:
                self._entries.pop(name, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def _drop_expired(self, now: float) -> None:
        # All live equally long, so the oldest stand first.
        while self._entries:
            expires, _, _ = next(iter(self._entries.values()))
            if expires > now:
                return
            self._entries.popitem(last=False)
