"""Under the head lock: places without gaps, versions one by one, a time that never goes back (I2, I3)."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.encoding import leaf_of
from ledger.domain.events import Envelope, ExpectedVersion, Head, RecordedEvent, Role, SealedEvent, SealedPart
from ledger.domain.merkle import extend_frontier, hash_leaf, root_of
from ledger.domain.sequence import Expectation, check_versions, place_events, used_keys
from ledger.errors import VersionConflictError

EMPTY = Head(0, (), 0)
STREAMS = [bytes([number]) * 16 for number in range(4)]


def sealed(stream_ref: bytes, number: int = 1) -> SealedEvent:
    """An event that is ready to be recorded."""
    envelope = Envelope(UUID(int=7), UUID(int=number), stream_ref, "ward", "Opened", 1, None, None, None)
    return SealedEvent(envelope, (SealedPart(Role.NONPERSONAL, bytes(32), b"x"),), UUID(int=9))


BATCHES = st.lists(st.tuples(st.lists(st.sampled_from(STREAMS), max_size=5), st.integers(0, 1000)), max_size=8)


@given(BATCHES)
def test_places_have_no_gaps_and_time_never_goes_back(batches: list[tuple[list[bytes], int]]) -> None:
    """Whatever is appended in whatever batches, with a clock that jumps either way: I2 and I3 hold."""
    head = EMPTY
    log: list[RecordedEvent] = []
    versions: Counter[bytes] = Counter()
    for refs, now in batches:
        recorded, head = place_events([sealed(ref) for ref in refs], head, dict(versions), now)
        versions.update(refs)
        log += recorded
        assert {event.recorded_at for event in recorded} <= {max(now, log[-1].recorded_at) if log else now}

    assert [event.position for event in log] == list(range(len(log)))
    assert [event.recorded_at for event in log] == sorted(event.recorded_at for event in log)
    for ref in STREAMS:
        own = [event.stream_version for event in log if event.envelope.stream_ref == ref]
        assert own == list(range(1, versions[ref] + 1))
    assert all(event.leaf_hash == hash_leaf(leaf_of(event)) for event in log)
    size, frontier = extend_frontier(0, (), [event.leaf_hash for event in log])
    assert (head.size, root_of(head.frontier)) == (size, root_of(frontier))
    assert head.last_recorded_at == (log[-1].recorded_at if log else 0)


def test_nothing_placed_changes_nothing() -> None:
    """An empty batch leaves the head as it was, its time too."""
    head = Head(1, (b"h" * 32,), 5)
    assert place_events([], head, {}, 1000) == ([], head)


def test_the_time_is_the_clock_unless_that_went_back() -> None:
    """Recorded-at is the clock's time, or the newest recorded-at where the clock is behind it."""
    (first,), head = place_events([sealed(STREAMS[0])], EMPTY, {}, 100)
    (behind,), head = place_events([sealed(STREAMS[0])], head, {STREAMS[0]: 1}, 40)
    (ahead,), _ = place_events([sealed(STREAMS[0])], head, {STREAMS[0]: 2}, 101)
    assert [first.recorded_at, behind.recorded_at, ahead.recorded_at] == [100, 100, 101]


@pytest.mark.parametrize(
    ("expected", "actual", "fits"),
    [
        ("any", 0, True),
        ("any", 5, True),
        ("exists", 0, False),
        ("exists", 1, True),
        (0, 0, True),
        (0, 1, False),
        (3, 3, True),
        (3, 2, False),
        (3, 4, False),
    ],
)
def test_expected_versions(expected: ExpectedVersion, actual: int, fits: bool) -> None:
    """``any``, ``exists``, must not exist, exactly so many: each means what it says."""
    versions = {STREAMS[0]: actual} if actual else {}
    expectations = [Expectation(STREAMS[0], expected, "/events/0")]
    if fits:
        check_versions(expectations, versions)
        return
    with pytest.raises(VersionConflictError) as caught:
        check_versions(expectations, versions)
    (fault,) = caught.value.faults
    assert (fault.pointer, fault.index) == ("/events/0/expected_version", 0)
    assert fault.details == {"expected": expected, "actual": actual}


def test_versions_count_on_inside_a_batch() -> None:
    """An event expects the stream as the events before it in the batch leave it; each conflict is told."""
    one, two = STREAMS[:2]
    check_versions([Expectation(one, 0, "a"), Expectation(two, 7, "b"), Expectation(one, 1, "c")], {two: 7})
    check_versions([Expectation(one, "any", "a"), Expectation(one, "exists", "b")], {})
    with pytest.raises(VersionConflictError) as caught:
        check_versions([Expectation(one, 0, "a"), Expectation(one, 0, "b"), Expectation(two, "exists", "c")], {})
    assert [(fault.index, fault.details["actual"]) for fault in caught.value.faults] == [(1, 1), (2, 0)]


def test_a_dead_key_that_an_event_names_is_not_a_key_that_it_uses() -> None:
    """An erasure's own event names the keys that it destroys."""
    events = [sealed(STREAMS[0]), sealed(STREAMS[1])]
    dead = SealedEvent(events[0].envelope, (SealedPart(Role.SHREDDED, b"d" * 32, b""),), UUID(int=9))
    assert used_keys([*events, dead]) == {bytes(32)}
