"""Do the windows of keys, from which events are counted, say what ``event_keys`` says?

Nobody who has only the database can make one. But a worker makes them of what it reads, which can have been altered
just then and put right again since.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.key_windows import Window, bits_of
from ledger.domain.verdicts import Finding, Findings
from ledger.ports import KeyWindow
from ledger.services.counting.windows import open_windows
from ledger.services.dependencies import Dependencies
from ledger.services.verifying.keys import shares

NOT_SEALED: Final = "key_windows has a row that this ledger did not seal for this place"
NOT_SO: Final = "a row of key_windows says that a key is used elsewhere than event_keys does"

_PAGE: Final = 64


@dataclass(frozen=True, slots=True)
class WindowsJob:
    """Check the windows of the keys between two bounds, one at a time. ``last``: position of the ledger as it is
    checked; nothing is said to be wrong behind it."""

    ledger_id: UUID
    first: bytes | None
    beyond: bytes | None
    last: int

    def work(self, deps: Dependencies) -> Findings:
        """Do it."""
        findings = Findings()
        for page in self._pages(deps):
            for stored, window in zip(page, open_windows(deps, self.ledger_id, page), strict=True):
                what = NOT_SEALED if window is None else self._compare(deps, window)
                if what is not None:
                    first, last = stored.first, stored.beyond - 1
                    where = (first, min(last, self.last)) if 0 <= first <= min(last, self.last) else (0, self.last)
                    findings.add(Finding(*where, what))
        return findings

    def _pages(self, deps: Dependencies) -> Iterator[Sequence[KeyWindow]]:
        after: tuple[bytes, int] | None = None
        bounds = (self.first, self.beyond)
        while page := deps.derived.key_windows.key_windows_in(self.ledger_id, bounds, after, _PAGE):
            yield page
            last = (page[-1].key_id, page[-1].first)
            # What a hand has put into a key has no order; it is told, and what stands behind it is checked without it.
            if after is not None and last <= after:
                return
            after = last

    def _compare(self, deps: Dependencies, window: Window) -> str | None:
        positions = deps.store.key_positions(self.ledger_id, window.key_id, window.first, window.beyond)
        return None if bits_of(positions, window.first, window.beyond) == window.bits else NOT_SO


def window_jobs(ledger_id: UUID, size: int, width: int) -> Iterator[WindowsJob]:
    """All of them."""
    for first, beyond in shares(size, width):
        yield WindowsJob(ledger_id, first, beyond, max(size - 1, 0))
