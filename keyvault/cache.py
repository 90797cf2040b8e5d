"""A short memory of unwrapped keys, so that a page of one person's events asks the provider once.

It never answers whether a key exists (I7): the wrapped blob comes from the database each time, and the memory only
saves undoing that very wrap again. What has run out leaves at the next use, so an idle process can hold it for longer.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Final

LIFETIME_SECONDS: Final = 60.0
MOST_ENTRIES: Final = 20_000


class UnwrapCache:
    """Key → plaintext of one wrap, bound to the hash of the blob and its AAD: another blob, or the same in another row,
    is another entry."""

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
        self._entries: OrderedDict[Hashable, tuple[float, bytes, bytes]] = OrderedDict()

    def unwrap(self, name: Hashable, blob: bytes, aad: bytes, undo: Callable[[], bytes]) -> bytes:
        """The plaintext of ``blob``: remembered, or from ``undo``, whose exceptions pass through unremembered."""
        digest = hashlib.sha256(aad + blob).digest()
        now = self._clock()
        with self._lock:
            self._drop_expired(now)
            found = self._entries.get(name)
        remembered = found is not None and found[1] == digest
        self._note(remembered)
        if found is not None and remembered:
            return found[2]
        plaintext = undo()
        with self._lock:
            self._entries.pop(name, None)
            self._entries[name] = (now + self._lifetime, digest, plaintext)
            if len(self._entries) > self._most:
                self._entries.popitem(last=False)
        return plaintext

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
