"""Is ``event_keys``, the way from a key to its events, complete, and is nothing beside?

Its rows come in order of keys, the parts in order of positions, and nobody holds either in memory. So their
fingerprints are compared, for each range of positions; only where these differ are the rows gone through, to name what
is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from heapq import nlargest
from typing import Final
from uuid import UUID

from ledger.domain.events import PARTS, event_key_rows
from ledger.domain.fingerprint import MODULUS
from ledger.domain.query import EventFilter
from ledger.domain.verdicts import MOST_LISTED, Findings, at
from ledger.services.dependencies import Dependencies

WRONG_KEYS: Final = "its rows in event_keys are not its parts' keys"
STRAY_KEY: Final = "event_keys has a row here that belongs to no part"

MOST_SHARES: Final = 256
_EVENTS_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class KeysResult:
    """``sums``: number of a range → the fingerprint of the rows at its positions. ``outside``: some of the positions
    that are none of the ledger's, the largest."""

    sums: Mapping[int, int]
    outside: Sequence[int]


@dataclass(frozen=True, slots=True)
class KeysJob:
    """Add up the rows whose key_id lies between two bounds. ``size``: of the ledger as it is checked; ``width``: of
    a range of positions, a power of two."""

    ledger_id: UUID
    first: bytes | None
    beyond: bytes | None
    size: int
    width: int
    key: bytes

    def work(self, deps: Dependencies) -> KeysResult:
        """Do it."""
        sums: dict[int, int] = defaultdict(int)
        outside: list[int] = []
        key, size, bits = self.key, self.size, self.width.bit_length() - 1
        for records in deps.store.key_records(self.ledger_id, self.first, self.beyond):
            for record in records:
                position = int.from_bytes(record[4:12], "big")
                if position < size:
                    sums[position >> bits] += int.from_bytes(sha256(key + record).digest(), "big")
                else:
                    # Negative ones are the largest.
                    outside.append(position)
            outside = nlargest(MOST_LISTED, outside)
        return KeysResult({number: one % MODULUS for number, one in sums.items()}, outside)


def key_jobs(ledger_id: UUID, size: int, width: int, key: bytes) -> Iterator[KeysJob]:
    """All of them."""
    for first, beyond in shares(size, width):
        yield KeysJob(ledger_id, first, beyond, size, width, key)


def shares(size: int, width: int) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Bounds of key ids, for pieces of work of about ``width`` events each: key ids are random, so equal shares of what
    they can be are equal shares of the rows."""
    number = min(MOST_SHARES, 1 << (size // width).bit_length())
    bounds = [bytes([share * 256 // number]) for share in range(1, number)]
    yield from zip([None, *bounds], [*bounds, None], strict=True)


@dataclass(frozen=True, slots=True)
class NamingJob:
    """Say which rows are wrong among those of the positions from ``first`` on and below ``beyond``."""

    ledger_id: UUID
    first: int
    beyond: int

    def work(self, deps: Dependencies) -> Findings:
        """Do it."""
        findings = Findings()
        rows: dict[int, set[tuple[int, int, bytes]]] = defaultdict(set)
        most = (self.beyond - self.first) * PARTS
        for position, part, role, key_id in deps.store.key_rows_in(self.ledger_id, self.first, self.beyond - 1, most):
            rows[position].add((part, role, key_id))
        for first in range(self.first, self.beyond, _EVENTS_AT_ONCE):
            last = min(first + _EVENTS_AT_ONCE, self.beyond) - 1
            events = deps.store.select_events(self.ledger_id, EventFilter(first, last), None, _EVENTS_AT_ONCE)
            expected = {event.position: set(event_key_rows(event)) for event in events}
            for position in range(first, last + 1):
                if rows.get(position, set()) != expected.get(position, set()):
                    findings.add(at(position, WRONG_KEYS if position in expected else STRAY_KEY))
        return findings
