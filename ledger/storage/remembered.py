"""Hashes of the tree that were read before, for a while: they never change, and every proof needs those at the edge."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Hashable, Mapping
from typing import Final, Generic, TypeVar
from uuid import UUID

MOST: Final = 256
"""Tiles, of 8 KiB at most."""

Place = TypeVar("Place", bound=Hashable)


class Remembered(Generic[Place]):
    """The last ``MOST`` that were used. Shared by threads. Of use for proofs only, which whoever gets them checks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hashes: OrderedDict[tuple[UUID, Place], bytes] = OrderedDict()

    def known(self, ledger_id: UUID, places: Collection[Place]) -> dict[Place, bytes]:
        """Those of these places that are remembered."""
        with self._lock:
            found = {place: self._hashes.get((ledger_id, place)) for place in places}
            for place, hashes in found.items():
                if hashes is not None:
                    self._hashes.move_to_end((ledger_id, place))
        return {place: hashes for place, hashes in found.items() if hashes is not None}

    def remember(self, ledger_id: UUID, found: Mapping[Place, bytes]) -> None:
        """Keep these, and forget what was not used for longest."""
        with self._lock:
            self._hashes.update({(ledger_id, place): hashes for place, hashes in found.items()})
            while len(self._hashes) > MOST:
                self._hashes.popitem(last=False)
