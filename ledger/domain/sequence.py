"""What happens under the head lock, as pure decisions: versions checked, places given, the tree extended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ledger.domain.encoding import encode_leaf
from ledger.domain.events import ExpectedVersion, Head, RecordedEvent, Role, SealedEvent, StreamVersions
from ledger.domain.merkle import extend_frontier, hash_leaf
from ledger.domain.values import value
from ledger.errors import Fault, VersionConflictError


@value(frozen=True, slots=True)
class Expectation:
    """The version that an event expects of its stream, and where in the request it says so."""

    stream_ref: bytes
    expected: ExpectedVersion
    pointer: str


def check_versions(expectations: Sequence[Expectation], versions: StreamVersions) -> None:
    """Check each event's expected version as it will be just before that event (I3).

    Raises ``VersionConflictError`` with one fault for each event that conflicts.
    """
    faults = []
    reached: dict[bytes, int] = {}
    for index, expectation in enumerate(expectations):
        stream_ref = expectation.stream_ref
        actual = reached.get(stream_ref)
        if actual is None:
            actual = versions.get(stream_ref, 0)
        reached[stream_ref] = actual + 1
        if expectation.expected != "any" and not _as_expected(expectation.expected, actual):
            details = {"expected": expectation.expected, "actual": actual}
            faults.append(
                Fault(f"{expectation.pointer}/expected_version", "the stream has another version", index, details)
            )
    if faults:
        raise VersionConflictError("a stream does not have the expected version; nothing was recorded", faults)


def _as_expected(expected: ExpectedVersion, actual: int) -> bool:
    if expected == "exists":
        return actual > 0
    return expected == actual


def place_events(
    events: Iterable[SealedEvent], head: Head, versions: StreamVersions, now: int
) -> tuple[list[RecordedEvent], Head]:
    """Give events their positions, versions, time and leaves behind ``head``; gives the new head too (I2).

    ``now`` in microseconds; recorded-at never decreases, whatever the clock does.
    """
    recorded_at = max(now, head.last_recorded_at)
    next_version = dict(versions)
    recorded: list[RecordedEvent] = []
    for position, event in enumerate(events, head.size):
        envelope, parts, recorded_by = event.envelope, event.parts, event.recorded_by
        version = next_version[envelope.stream_ref] = next_version.get(envelope.stream_ref, 0) + 1
        leaf = encode_leaf(
            envelope,
            parts,
            position=position,
            stream_version=version,
            recorded_at=recorded_at,
            recorded_by=recorded_by,
        )
        recorded.append(RecordedEvent(envelope, parts, recorded_by, position, version, recorded_at, hash_leaf(leaf)))
    size, frontier = extend_frontier(head.size, head.frontier, (event.leaf_hash for event in recorded))
    return recorded, Head(size, frontier, recorded_at if recorded else head.last_recorded_at, head.vault)


def used_keys(events: Iterable[SealedEvent]) -> frozenset[bytes]:
    """The ids of the keys that these events' parts are sealed under."""
    return frozenset(part.key_id for event in events for part in event.parts if part.role is not Role.SHREDDED)
