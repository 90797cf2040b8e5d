"""Read the events of streams, many streams at a time, in pieces that are bounded by events and by bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final
from uuid import UUID

from ledger.domain.events import RecordedEvent
from ledger.domain.snapshot import EVERY
from ledger.ports import Occurrence, StreamRange
from ledger.services.dependencies import Dependencies

PIECE_EVENTS: Final = 1000
"""Events that are in memory at a time, at most; keys are looked at anew for each such piece (I7)."""

PIECE_BYTES: Final = 8 * 2**20
"""Sealed bytes that a piece aims at, so that large events make small pieces."""

STREAMS_AT_ONCE: Final = 1000


def read_onward(
    deps: Dependencies, ledger_id: UUID, behind: Mapping[bytes, int], position: int
) -> Iterator[Sequence[RecordedEvent]]:
    """The events of each of these streams behind a version, up to a position; of one stream in order of versions.

    Events that are recorded while this is running may be left out.
    """
    newest = deps.store.versions(ledger_id, behind)
    left = {ref: version for ref, version in sorted(behind.items()) if newest.get(ref, 0) > version}
    # Nobody knows yet how large they are; and what lies behind a snapshot is at most so many, and of what lies behind
    # the moment not more should be read.
    most = most_of_one = EVERY
    while left:
        ranges = _next_ranges(left, newest, most, most_of_one)
        rows = deps.store.stream_events(ledger_id, ranges, position)
        last = {row.envelope.stream_ref: row.stream_version for row in rows}
        for wanted in ranges:
            ref = wanted.stream_ref
            left[ref] = wanted.last_version
            if last.get(ref) != wanted.last_version or wanted.last_version >= newest[ref]:
                # The rest stands behind the moment, or there is none.
                del left[ref]
        if rows:
            yield rows
            most = piece_after(rows)
        most_of_one = most


def _next_ranges(
    left: Mapping[bytes, int], newest: Mapping[bytes, int], most: int, most_of_one: int
) -> list[StreamRange]:
    ranges = []
    for ref, version in left.items():
        count = min(newest[ref] - version, most_of_one, most)
        ranges.append(StreamRange(ref, version + 1, version + count))
        most -= count
        if most == 0 or len(ranges) == STREAMS_AT_ONCE:
            break
    return ranges


def piece_after(rows: Sequence[RecordedEvent]) -> int:
    """How many events to read next, going by the size of these."""
    size = sum(len(part.sealed) for row in rows for part in row.parts)
    return max(1, min(PIECE_EVENTS, PIECE_BYTES * len(rows) // max(size, 1)))


def occurrences(
    deps: Dependencies, ledger_id: UUID, stream_refs: Collection[bytes], position: int, occurred_at: int
) -> Sequence[Occurrence]:
    """Which events of these streams had occurred by then, as far as they were recorded up to a position, in the order
    in which they occurred."""
    return deps.store.occurrences(ledger_id, stream_refs, position, occurred_at)


def read_in_order(deps: Dependencies, ledger_id: UUID, positions: Sequence[int]) -> Iterator[Sequence[RecordedEvent]]:
    """The events at these positions, in this order."""
    start, most = 0, EVERY
    while start < len(positions):
        wanted = positions[start : start + most]
        found = {row.position: row for row in deps.store.events_at(ledger_id, wanted)}
        rows = [found[position] for position in wanted if position in found]
        if rows:
            yield rows
            most = piece_after(rows)
        start += len(wanted)
