"""Everything that happens under the head lock of an append: what could have changed since the preparation is looked at
again, attempt by attempt, and all that are right are written in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from ledger.domain.events import Head, RecordedEvent, SealedEvent
from ledger.domain.names import STREAM_SUPERSEDED
from ledger.domain.sequence import check_versions, place_events, used_keys
from ledger.errors import StreamClosedError
from ledger.ports import HeadLock
from ledger.services.appending.attempt import Attempt, Prepared, failing_alone
from ledger.services.appending.preparation import Candidate, OvertakenError, erased, expectations
from ledger.services.dependencies import Dependencies
from ledger.services.marking import checked_head


def write_all(deps: Dependencies, ledger_id: UUID, prepared: Prepared) -> None:
    """Record attempts in their order; those that something stands in the way of have their errors afterwards.

    What it raises is the matter of all: nothing was recorded, but for a ``StoreUnavailableError``, after which only who
    asks again can tell.
    """
    placed: list[tuple[Attempt, list[RecordedEvent]]] = []
    with deps.store.locked_head(ledger_id) as lock:
        head = checked_head(deps, ledger_id, lock.head, prepared.seen)
        log = _Log(lock, head, deps.clock(), prepared.attempts)
        for attempt in prepared.attempts:
            with failing_alone(attempt):
                placed.append((attempt, log.place(attempt)))
        if placed:
            log.write()
    # Not before it is committed.
    for attempt, recorded in placed:
        attempt.recorded = recorded


class _Log:
    """The log as it will be behind the attempts that were placed so far."""

    def __init__(self, lock: HeadLock, head: Head, now: int, attempts: Sequence[Attempt]) -> None:
        self._lock = lock
        self._head = head
        self._now = now
        sealed = [event for attempt in attempts for event in attempt.sealed]
        log = lock.survey(
            [event_id for attempt in attempts for event_id in attempt.ids],
            used_keys(sealed),
            {event.envelope.stream_ref for event in sealed},
        )
        self._ids = set(log.recorded)
        self._dead = log.dead
        self._closed = set(log.closed)
        self._abandoned = log.abandoned
        self._versions = dict(log.versions)
        self._recorded: list[RecordedEvent] = []
        self._ended: dict[bytes, int] = {}

    def place(self, attempt: Attempt) -> list[RecordedEvent]:
        """Put the events of an attempt behind the others, if nothing stands in their way."""
        candidates, sealed = attempt.candidates, attempt.sealed
        if not self._ids.isdisjoint(attempt.ids):
            # A twin of this append was faster, and its events are the answer (I4).
            raise OvertakenError
        self._check_keys(candidates, sealed)
        refs = [event.envelope.stream_ref for event in sealed]
        ended = _check_open(candidates, refs, self._closed)
        check_versions(expectations(candidates, refs), self._versions)
        abandoned = {ref for ref in self._abandoned.intersection(refs) if ref not in self._versions}
        if abandoned:
            names = zip(candidates, refs, strict=True)
            raise OvertakenError(abandoned={candidate.stream: ref for candidate, ref in names if ref in abandoned})
        recorded, self._head = place_events(sealed, self._head, self._versions, self._now)
        self._ids.update(attempt.ids)
        self._versions.update((event.envelope.stream_ref, event.stream_version) for event in recorded)
        self._ended.update((refs[index], recorded[index].position) for index in ended)
        self._closed.update(refs[index] for index in ended)
        self._recorded += recorded
        return recorded

    def write(self) -> None:
        """Write all that was placed."""
        self._lock.write(self._recorded, self._head)
        for ref, position in self._ended.items():
            self._lock.close(ref, position)

    def _check_keys(self, candidates: Sequence[Candidate], sealed: Sequence[SealedEvent]) -> None:
        # I8: an eraser who held this lock before us has written here which keys must never be used again.
        if self._dead.isdisjoint(used_keys(sealed)):
            return
        hit = [
            candidate
            for candidate, event in zip(candidates, sealed, strict=True)
            if any(part.key_id in self._dead for part in event.parts)
        ]
        if all(candidate.event.omit_erased for candidate in hit):
            raise OvertakenError(self._dead)
        raise erased(candidate.fault("", "its subject, or the owner of its stream, was erased") for candidate in hit)


def _check_open(candidates: Sequence[Candidate], refs: Sequence[bytes], closed: Collection[bytes]) -> list[int]:
    """Refuse what stands behind the last event of its stream, be that recorded or earlier in the same batch. Gives the
    events (by index) that end streams."""
    ended = set(closed)
    ending = []
    faults = []
    for index, (candidate, ref) in enumerate(zip(candidates, refs, strict=True)):
        # That a stream has a successor can be said of one that has ended, too; no client can say it.
        if ref in ended and candidate.event.event_type != STREAM_SUPERSEDED:
            faults.append(candidate.fault("/stream", "has ended: nothing can be appended to it any more"))
        if candidate.event.closes_stream and ref not in ended:
            ended.add(ref)
            ending.append(index)
    if faults:
        raise StreamClosedError("a stream has ended; nothing was recorded", faults)
    return ending
