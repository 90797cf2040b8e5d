"""Check a ledger against itself: every row against its leaf, all leaves against the head (I10).

Proves that the rows are those that the head's tree was built from. It cannot show that the head itself was not built
anew from other rows; that takes a checkpoint which somebody else has kept.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.encoding import leaf_of
from ledger.domain.events import Head, RecordedEvent, Role, event_key_rows
from ledger.domain.merkle import HASH_BYTES, check_frontier, extend_frontier, hash_leaf, root_of
from ledger.domain.names import STREAM_SUPERSEDED, SUBJECT_ERASED
from ledger.domain.query import EventFilter
from ledger.errors import IntegrityError
from ledger.ports import KeyRow, Shredding
from ledger.services.dependencies import Dependencies

CHUNK: Final = 2000
"""Events in memory at a time, at most."""

CHUNK_BYTES: Final = 16 * 2**20
"""Sealed bytes that a chunk aims at, so that large events make small chunks."""

_FIRST_CHUNK: Final = 100

Progress = Callable[[int, int], None]
"""Called with (events checked, events in all)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. ``last``: of a range of positions, where it cannot be told more exactly."""

    position: int
    last: int
    what: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and what was found. ``root``: recomputed from the rows; ``head_root``: what the head says."""

    size: int
    root: bytes
    head_root: bytes
    findings: tuple[Finding, ...]

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings and self.root == self.head_root


def verify_ledger(deps: Dependencies, ledger_id: UUID, progress: Progress) -> VerifyReport:
    """Recompute every leaf and the root from the rows."""
    head = deps.store.head(ledger_id, settled=True)
    check = _Check(
        head,
        deps.store.shredded_keys(ledger_id),
        deps.store.erasure_roots(ledger_id),
        deps.store.closed_streams(ledger_id),
    )
    first, width = 0, min(_FIRST_CHUNK, CHUNK)
    while first < head.size:
        last = min(first + width, head.size) - 1
        events = deps.store.select_events(ledger_id, EventFilter(first, last), None, width)
        keys = {part.key_id for event in events for part in event.parts}
        check.rows(first, last, events, deps.store.event_keys(ledger_id, first, last, keys))
        progress(last + 1, head.size)
        size = sum(len(part.sealed) for event in events for part in event.parts)
        first, width = last + 1, (max(1, min(CHUNK, CHUNK_BYTES * len(events) // size)) if size else CHUNK)
    before = deps.store.select_events(ledger_id, EventFilter(-(2**62), -1), None, _FIRST_CHUNK)
    # From the end: what was appended meanwhile stands in front of what nobody appended.
    beyond = deps.store.select_events(ledger_id, EventFilter(head.size, 2**62, order="desc"), None, _FIRST_CHUNK)
    grown = deps.store.head(ledger_id)
    check.strangers(event.position for event in before)
    check.strangers(event.position for event in beyond if event.position >= grown.size)
    check.shredded_beyond(grown.size)
    check.strange_ends(grown.size)
    check.strange_roots(deps.store.find_events(ledger_id, check.unseen_roots))
    if grown.size > head.size or deps.store.count_event_keys(ledger_id) != check.key_rows:
        _find_stray_keys(deps, ledger_id, check)
    return check.report()


def _find_stray_keys(deps: Dependencies, ledger_id: UUID, check: _Check) -> None:
    """Read all of ``event_keys``, for rows that belong to no part. Only where their number makes it necessary."""
    after: KeyRow | None = None
    while True:
        keys = deps.store.scan_event_keys(ledger_id, after, CHUNK)
        events = {event.position: event for event in deps.store.events_at(ledger_id, {row[0] for row in keys})}
        for row in keys:
            event = events.get(row[0])
            if event is None or row[1:] not in event_key_rows(event):
                check.stray_key(row[0])
        if len(keys) < CHUNK:
            return
        after = keys[-1]


class _Check:
    """Collects what is wrong, from the first position to the last."""

    def __init__(
        self,
        head: Head,
        shredded: Mapping[bytes, Shredding],
        roots: Mapping[UUID, bytes],
        closed: Mapping[bytes, int],
    ) -> None:
        self._head = head
        self._closed = closed
        self._unseen_ends = dict(closed)
        self._shredded = shredded
        self._roots = roots
        self._rooted = 0
        self.unseen_roots = set(roots)
        self._findings: list[Finding] = []
        self._size = 0
        self._frontier: tuple[bytes, ...] = ()
        self._recorded_at = 0
        self._versions: dict[bytes, int] = {}
        self._dead: dict[bytes, tuple[int, UUID]] = {}
        self.key_rows = 0

    def rows(self, first: int, last: int, events: Iterable[RecordedEvent], keys: Iterable[KeyRow]) -> None:
        """Check the rows of the positions from ``first`` to ``last``."""
        by_position = {event.position: event for event in events}
        keys_of: dict[int, set[tuple[int, int, bytes]]] = {}
        for position, part, role, key_id in keys:
            keys_of.setdefault(position, set()).add((part, role, key_id))
        hashes = []
        for position in range(first, last + 1):
            event = by_position.get(position)
            if event is None:
                self._find(position, "the row is missing")
                hashes.append(bytes(HASH_BYTES))
                continue
            hashes.append(self._leaf_hash(event))
            self._order(event)
            self._end_of_stream(event)
            self._keys(event, keys_of.get(position, set()))
            if event.envelope.event_type == SUBJECT_ERASED:
                self._extend(hashes)
                self._root(event)
        self._extend(hashes)

    def _extend(self, hashes: list[bytes]) -> None:
        self._size, self._frontier = extend_frontier(self._size, self._frontier, hashes)
        hashes.clear()

    def _root(self, erased: RecordedEvent) -> None:
        """The root that was kept when a subject was erased bears witness to everything up to there."""
        position, erasure_id = erased.position, erased.envelope.event_id
        self.unseen_roots.discard(erasure_id)
        known = self._roots.get(erasure_id)
        if known is None:
            self._find(position, "the root of this erasure is missing")
        elif known == root_of(self._frontier):
            self._rooted = position + 1
        elif not any(finding.position <= position for finding in self._findings):
            what = "a row here is not the one that the tree was built from, or the root of this erasure was altered"
            self._find(self._rooted, what, position)

    def strangers(self, positions: Iterable[int]) -> None:
        """Rows beyond the head, or in front of the first position."""
        for position in positions:
            self._find(position, "the row lies outside of the log")

    def shredded_beyond(self, size: int) -> None:
        """``size``: of the head now. What it does not reach yet, no erasure can have recorded."""
        for row in self._shredded.values():
            if row.position >= size:
                self._find(row.position, "shredded_keys has a key that no event shreds")

    def strange_roots(self, recorded: Mapping[UUID, RecordedEvent]) -> None:
        """``recorded``: the events of the roots that were not met. Only an erasure that came later explains one."""
        for erasure_id in self.unseen_roots:
            event = recorded.get(erasure_id)
            if event is None or event.position < self._head.size:
                self._find(0, "erasure_roots has a root that belongs to no erasure", max(self._head.size - 1, 0))

    def strange_ends(self, size: int) -> None:
        """``size``: of the head now. What was not met up to the head of before can only have come since."""
        for position in self._unseen_ends.values():
            if not self._head.size <= position < size:
                what = "closed_streams has a stream that does not end here"
                self._find(min(max(position, 0), max(self._head.size - 1, 0)), what)

    def stray_key(self, position: int) -> None:
        """A row of ``event_keys`` that belongs to no part."""
        self._find(position, "event_keys has a row here that belongs to no part")

    def report(self) -> VerifyReport:
        """The verdict after all rows."""
        self._shredded_keys()
        self._tree()
        # Not in the tree, but what as-of answers and the next recorded-at rest on.
        if not self._findings and self._head.last_recorded_at != self._recorded_at:
            self._find(max(self._head.size - 1, 0), "the head has another time than the newest event")
        findings = tuple(sorted(self._findings, key=lambda finding: finding.position))
        return VerifyReport(self._head.size, root_of(self._frontier), root_of(self._head.frontier), findings)

    def _find(self, position: int, what: str, last: int | None = None) -> None:
        self._findings.append(Finding(position, position if last is None else last, what))

    def _leaf_hash(self, event: RecordedEvent) -> bytes:
        try:
            leaf_hash = hash_leaf(leaf_of(event))
        except (ValueError, OverflowError, struct.error):
            # Altered by hand to what no leaf can hold.
            leaf_hash = bytes(HASH_BYTES)
        if leaf_hash != event.leaf_hash:
            self._find(event.position, "the row is not what its leaf says")
        return leaf_hash

    def _order(self, event: RecordedEvent) -> None:
        expected = self._versions.get(event.envelope.stream_ref, 0) + 1
        self._versions[event.envelope.stream_ref] = event.stream_version
        if event.stream_version != expected:
            self._find(event.position, f"the stream version is {event.stream_version}, not {expected}")
        if event.recorded_at < self._recorded_at:
            self._find(event.position, "recorded before the event in front of it")
        self._recorded_at = max(self._recorded_at, event.recorded_at)

    def _end_of_stream(self, event: RecordedEvent) -> None:
        stream_ref, position = event.envelope.stream_ref, event.position
        end = self._closed.get(stream_ref)
        superseded = event.envelope.event_type == STREAM_SUPERSEDED
        if end == position:
            del self._unseen_ends[stream_ref]
        elif end is not None and end < position and not superseded:
            self._find(position, f"stands behind the event at position {end}, which has ended its stream")
        if superseded and (end is None or end > position):
            self._find(position, "ends a stream of which closed_streams says otherwise")

    def _keys(self, event: RecordedEvent, rows: set[tuple[int, int, bytes]]) -> None:
        expected = event_key_rows(event)
        self.key_rows += len(expected)
        if rows != set(expected):
            self._find(event.position, "its rows in event_keys are not its parts' keys")
        for part in event.parts:
            if part.role is Role.SHREDDED:
                self._dead.setdefault(part.key_id, (event.position, event.envelope.event_id))
            elif part.key_id in self._dead:
                self._find(event.position, f"uses a key that was shredded at position {self._dead[part.key_id][0]}")

    def _shredded_keys(self) -> None:
        for key_id, recorded in self._dead.items():
            row = self._shredded.get(key_id)
            if row is None or (row.position, row.erasure_id) != recorded:
                self._find(recorded[0], "shreds a key of which shredded_keys says otherwise")
        for key_id, row in self._shredded.items():
            if row.position < self._head.size and key_id not in self._dead:
                self._find(row.position, "shredded_keys has a key that no event shreds")

    def _tree(self) -> None:
        """Compare the perfect subtrees of the rows with those of the head, to say where a difference lies."""
        try:
            check_frontier(self._head.size, self._head.frontier)
        except IntegrityError as error:
            self._find(0, error.detail, max(self._head.size - 1, 0))
            return
        first = 0
        for node, expected in zip(self._frontier, self._head.frontier, strict=True):
            width = 1 << ((self._head.size - first).bit_length() - 1)
            last = first + width - 1
            if node != expected and not any(first <= finding.position <= last for finding in self._findings):
                self._find(first, "a row here is not the one that the tree was built from", last)
            first = last + 1
