"""Count the events of some keys: by their windows where there are any, and event by event where there are not.

The number is always the one that ``event_keys`` gives. What the windows cover lies behind the head's back and does not
change; what they do not cover is counted there, the newest events last and in one statement.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from typing import Final
from uuid import UUID

from ledger.domain.key_windows import SHAPE, Covered, Range, Window, bits_of, cover, joined
from ledger.ports import KeyUsage
from ledger.services.counting.windows import open_windows
from ledger.services.dependencies import Dependencies

_WINDOWS_AT_ONCE: Final = 256
_MOST_POSITIONS: Final = 4 * SHAPE.window
"""That are held in memory one by one."""


def count_events(deps: Dependencies, ledger_id: UUID, key_ids: Collection[bytes]) -> int:
    """How many events have a part sealed under one of these keys; several such parts of an event count once."""
    keys = sorted(set(key_ids))
    if not keys:
        return 0
    events = reached = 0
    gaps: list[tuple[int, int | None]] = []
    for windows in _pages(deps, ledger_id, keys):
        page = [covered for covered in cover(windows, keys) if covered.first >= reached]
        events += _count_covered(deps, ledger_id, page)
        for covered in page:
            if reached < covered.first:
                gaps.append((reached, covered.first))
            reached = covered.beyond
    return events + deps.store.count_events_between(ledger_id, keys, [*gaps, (reached, None)])


def usage_of(deps: Dependencies, ledger_id: UUID, key_ids: Collection[bytes]) -> KeyUsage:
    """The same, and the first and last position of these events."""
    events = count_events(deps, ledger_id, key_ids)
    ends = deps.store.key_ends(ledger_id, key_ids)
    return KeyUsage(events, *ends) if ends is not None else KeyUsage(events, None, None)


def _pages(deps: Dependencies, ledger_id: UUID, keys: Sequence[bytes]) -> Iterator[list[Window]]:
    """The windows of these keys, in order, those that begin at one position together."""
    first, limit = 0, max(_WINDOWS_AT_ONCE, len(keys) + 1)
    while stored := deps.derived.key_windows.key_windows(ledger_id, keys, first, limit):
        whole = stored
        if len(stored) == limit:
            # Of the last position there may be more.
            whole = list(takewhile(lambda one: one.first < stored[-1].first, stored))
        opened = open_windows(deps, ledger_id, whole)
        for one, window in zip(whole, opened, strict=True):
            if window is None:
                deps.alarm(ledger_id, max(one.first, 0), None, "a window of a key was not sealed by this ledger")
        yield [window for window in opened if window is not None]
        # A hand can have put anything into a row.
        if whole is stored or stored[-1].first <= first:
            return
        first = stored[-1].first


def _count_covered(deps: Dependencies, ledger_id: UUID, page: Sequence[Covered]) -> int:
    bits = {covered.first: covered.bits for covered in page}
    ranges: dict[bytes, list[Range]] = defaultdict(list)
    for covered in page:
        for lack in covered.lacks:
            ranges[lack.key_id].append((lack.first, lack.beyond))
    for key_id, lacking in ranges.items():
        # A key that is used now and then has no windows; it is asked for once, and not for each window of the others.
        for first, beyond in joined(lacking, _MOST_POSITIONS):
            positions = deps.store.key_positions(ledger_id, key_id, first, beyond)
            for covered in page:
                start, end = bisect_left(positions, covered.first), bisect_left(positions, covered.beyond)
                bits[covered.first] |= bits_of(positions[start:end], covered.first, covered.beyond)
    return sum(one.bit_count() for one in bits.values())
