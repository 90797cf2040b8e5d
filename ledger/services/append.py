"""Append events: all or nothing, once, in one order with the erasers (design §4).

The order of the steps is the protocol. Ids are looked up first, so a repeat is answered without touching a key (I4).
Keys are committed before the events that need them: a crash leaves a key without events, never events without a key.
Sealing stands before the head lock, and under the lock everything that could have changed meanwhile is looked at again:
ids, dead keys, ended streams, versions, abandoned streams.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from ledger.domain.events import Appended, Head, NewEvent, RecordedEvent, SealedEvent
from ledger.domain.names import STREAM_SUPERSEDED, is_process_category, is_reserved_category, split_stream
from ledger.domain.repeats import KnownRefs, is_repeat
from ledger.domain.sequence import check_versions, place_events, used_keys
from ledger.errors import (
    BusyError,
    Fault,
    IdConflictError,
    InvalidError,
    PartlyRecordedError,
    StoreUnavailableError,
    StreamClosedError,
)
from ledger.ports import HeadLock
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.validation import admit_events
from ledger.services.marking import checked_head
from ledger.services.naming import nameless_among, with_names
from ledger.services.opening import open_events
from ledger.services.preparation import Candidate, OvertakenError, erased, expectations, prepare
from ledger.services.recording import appended

ATTEMPTS: Final = 8
"""How often an append is prepared because names or ids changed under its feet."""


@dataclass(frozen=True, slots=True)
class AppendResult:
    """The places of the events, in their order; ``duplicate``: they had been recorded before."""

    events: tuple[Appended, ...]
    duplicate: bool


Admission = Callable[[Dependencies, UUID, Sequence[NewEvent]], Sequence[NewEvent]]
"""Looks at new events that are not recorded yet, before anything is minted for them: gives them back, perhaps marked,
or raises ``InvalidError``."""

Inspection = Callable[[Sequence[SealedEvent]], None]
"""Looks at what is about to be recorded, before the head is locked, and raises if that must not be."""


def append_events(
    deps: Dependencies,
    ledger_id: UUID,
    events: Sequence[NewEvent],
    recorded_by: UUID,
    *,
    admit: Admission = admit_events,
    inspect: Inspection | None = None,
) -> AppendResult:
    """Append these events in order, all or nothing.

    Raises ``VersionConflictError``, ``StreamClosedError``, ``SubjectErasedError``, ``IdConflictError``,
    ``PartlyRecordedError``, ``InvalidError`` (not what the catalogue says of its type), ``TooLargeError``,
    ``NotFoundError`` (an unknown ref), ``BusyError`` or an error of a dependency; then nothing of the batch is
    recorded, but for a ``StoreUnavailableError``: after that only a retry with the same ids can tell.
    """
    ids = [event.event_id or deps.new_id() for event in events]
    append = _Append(deps, ledger_id, recorded_by, admit, inspect)
    try:
        return append.run(events, ids)
    except StoreUnavailableError:
        # The commit may or may not have reached the disk. Every event has an id by now, so asking again is safe (I4).
        return AppendResult(append.run(events, ids).events, duplicate=False)


@dataclass(frozen=True, slots=True)
class _Append:
    """One append, on its way from the request to the log."""

    deps: Dependencies
    ledger_id: UUID
    recorded_by: UUID
    admit: Admission
    inspect: Inspection | None

    def run(self, events: Sequence[NewEvent], ids: Sequence[UUID]) -> AppendResult:
        deps, ledger_id = self.deps, self.ledger_id
        dead: frozenset[bytes] = frozenset()
        for _ in range(ATTEMPTS):
            known = deps.store.find_events(ledger_id, ids)
            if known:
                # I4: before the catalogue is asked. What was right when it was recorded is a repeat for good.
                return answer_repeat(deps, ledger_id, events, ids, known)
            named = with_names(deps, ledger_id, self.admit(deps, ledger_id, events))
            candidates = _candidates(named, ids)
            try:
                prepared = prepare(deps, ledger_id, candidates, self.recorded_by, dead)
                if self.inspect is not None:
                    self.inspect(prepared.events)
                with deps.store.locked_head(ledger_id) as lock:
                    head = checked_head(deps, ledger_id, lock.head, prepared.vault)
                    recorded = _write(deps, lock, candidates, prepared.events, head)
            except OvertakenError as overtaken:
                dead |= overtaken.dead
                for name, ref in overtaken.abandoned.items():
                    # Whoever gave the ref up may have died before it got to this.
                    deps.vault.replace_stream(ledger_id, name, ref)
                continue
            return AppendResult(tuple(appended(event) for event in recorded), duplicate=False)
        raise BusyError("others keep changing the same streams; try again")


def _candidates(events: Sequence[NewEvent], ids: Sequence[UUID]) -> list[Candidate]:
    candidates = []
    for index, (event, event_id) in enumerate(zip(events, ids, strict=True)):
        split = split_stream(event.stream or "")
        if event.stream is None or split is None:
            fault = Fault(f"{event.pointer}/stream", "must have the form category-id", index)
            raise InvalidError("a stream has no category", [fault])
        if is_reserved_category(split[0]) and not (event.by_process and is_process_category(split[0])):
            # By name it was refused at the door; by ref its category is only known now.
            fault = Fault(f"{event.pointer}/stream_ref", "is a stream of the ledger's own events", index)
            raise InvalidError("a stream is reserved for the ledger's own events", [fault])
        candidates.append(Candidate(index, event, event_id, event.stream, split[0]))
    return candidates


def _write(
    deps: Dependencies, lock: HeadLock, candidates: Sequence[Candidate], sealed: Sequence[SealedEvent], head: Head
) -> list[RecordedEvent]:
    """Everything that happens under the head lock. ``head``: the lock's, with what it is to remember of the vault."""
    refs = [event.envelope.stream_ref for event in sealed]
    log = lock.survey([candidate.event_id for candidate in candidates], used_keys(sealed), set(refs))
    if log.recorded:
        # A twin of this append was faster, and its events are the answer (I4).
        raise OvertakenError
    # I8: an eraser who held this lock before us has written here which keys must never be used again.
    dead = log.dead
    if dead:
        hit = [
            candidate
            for candidate, event in zip(candidates, sealed, strict=True)
            if any(part.key_id in dead for part in event.parts)
        ]
        if all(candidate.event.omit_erased for candidate in hit):
            raise OvertakenError(dead)
        raise erased(candidate.fault("", "its subject, or the owner of its stream, was erased") for candidate in hit)
    _check_open(candidates, refs, log.closed)
    check_versions(expectations(candidates, refs), log.versions)
    abandoned = log.abandoned - log.versions.keys()
    if abandoned:
        names = zip(candidates, refs, strict=True)
        raise OvertakenError(abandoned={candidate.stream: ref for candidate, ref in names if ref in abandoned})
    recorded, head = place_events(sealed, head, log.versions, deps.clock())
    lock.write(recorded, head)
    for candidate, event in zip(candidates, recorded, strict=True):
        if candidate.event.closes_stream and event.envelope.stream_ref not in log.closed:
            lock.close(event.envelope.stream_ref, event.position)
    return recorded


def _check_open(candidates: Sequence[Candidate], refs: Sequence[bytes], closed: Collection[bytes]) -> None:
    """Refuse what stands behind the last event of its stream, be that recorded or earlier in the same batch."""
    ended = set(closed)
    faults = []
    for candidate, ref in zip(candidates, refs, strict=True):
        # That a stream has a successor can be said of one that has ended, too; no client can say it.
        if ref in ended and candidate.event.event_type != STREAM_SUPERSEDED:
            faults.append(candidate.fault("/stream", "has ended: nothing can be appended to it any more"))
        if candidate.event.closes_stream:
            ended.add(ref)
    if faults:
        raise StreamClosedError("a stream has ended; nothing was recorded", faults)


def answer_repeat(
    deps: Dependencies,
    ledger_id: UUID,
    events: Sequence[NewEvent],
    ids: Sequence[UUID],
    known: Mapping[UUID, RecordedEvent],
) -> AppendResult:
    """Answer an append of which some ids are recorded: with the first result, if it is the same append (I4).

    Raises ``PartlyRecordedError`` or ``IdConflictError``.
    """
    if len(known) < len(events):
        raise PartlyRecordedError(
            "some events of the batch are recorded and others are not; send the others without them",
            [
                Fault(f"{event.pointer}/id", "is recorded", index)
                for index, (event, event_id) in enumerate(zip(events, ids, strict=True))
                if event_id in known
            ],
        )
    rows = [known[event_id] for event_id in ids]
    conflicts = conflicting(deps, ledger_id, events, rows)
    if conflicts:
        raise IdConflictError(
            "an event id is recorded with other content; nothing was recorded",
            [Fault(f"{events[index].pointer}/id", "is recorded with other content", index) for index in conflicts],
        )
    return AppendResult(tuple(appended(row) for row in rows), duplicate=True)


def conflicting(
    deps: Dependencies, ledger_id: UUID, events: Sequence[NewEvent], rows: Sequence[RecordedEvent]
) -> list[int]:
    """Which of these events (by index) are recorded, as these rows, with other content."""
    stored = open_events(deps, ledger_id, rows)
    # Names are only asked for where they cannot be read in the events themselves.
    hidden = [event for event, opened in zip(events, stored, strict=True) if opened.redactions]
    streams = {event.stream for event in hidden if event.stream is not None}
    subjects = {part.subject for event in hidden for _, part in event.personal if part.subject is not None}
    refs = KnownRefs(
        {name: entry.ref for name, entry in deps.vault.find_streams(ledger_id, streams).items()} if streams else {},
        {name: entry.ref for name, entry in deps.vault.find_subjects(ledger_id, subjects).items()} if subjects else {},
    )
    pairs = list(zip(events, stored, strict=True))
    differing = [index for index, (event, opened) in enumerate(pairs) if not is_repeat(event, opened, refs)]
    if not differing:
        return []
    # Asked for last: it takes a question for each person, and names seldom begin anew.
    refs = replace(refs, nameless=nameless_among(deps, ledger_id, (stored[index] for index in differing)))
    return [index for index in differing if not is_repeat(*pairs[index], refs)]
