"""Append events: all or nothing, once, in one order with the erasers (design §4).

The order of the steps is the protocol. A repeat is seen before anything is minted, or under the head lock (I4). Keys
are committed before the events that need them: a crash leaves a key without events, never events without a key.
Sealing stands before the head lock, and under the lock everything that could have changed meanwhile is looked at again:
ids, dead keys, ended streams, versions, abandoned streams. Appends share these steps (``ledger.services.appending``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final
from uuid import UUID

from ledger.domain.events import Appended, NewEvent, RecordedEvent
from ledger.domain.repeats import KnownRefs, is_repeat
from ledger.errors import (
    BusyError,
    DependencyError,
    Fault,
    IdConflictError,
    PartlyRecordedError,
    StoreUnavailableError,
)
from ledger.services.appending.attempt import Admission, Attempt, Inspection
from ledger.services.appending.group import record
from ledger.services.appending.preparation import OvertakenError
from ledger.services.appending.recording import appended
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.validation import admit_events
from ledger.services.naming import nameless_among
from ledger.services.opening import open_events

ATTEMPTS: Final = 8
"""How often an append is prepared because names or ids changed under its feet."""


@dataclass(frozen=True, slots=True)
class AppendResult:
    """The places of the events, in their order; ``duplicate``: they had been recorded before."""

    events: tuple[Appended, ...]
    duplicate: bool


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
    attempt = partial(Attempt, deps, events, ids, recorded_by, admit, inspect)
    try:
        return _run(deps, ledger_id, events, ids, attempt)
    except StoreUnavailableError:
        # The commit may or may not have reached the disk. Every event has an id by now, so asking again is safe (I4).
        return AppendResult(_run(deps, ledger_id, events, ids, attempt).events, duplicate=False)


def _run(
    deps: Dependencies,
    ledger_id: UUID,
    events: Sequence[NewEvent],
    ids: Sequence[UUID],
    attempt: Callable[[frozenset[bytes]], Attempt],
) -> AppendResult:
    dead: frozenset[bytes] = frozenset()
    for _ in range(ATTEMPTS):
        tried = attempt(dead)
        record(ledger_id, tried)
        if tried.recorded is not None:
            return AppendResult(tuple([appended(event) for event in tried.recorded]), duplicate=False)
        error = tried.error
        if not isinstance(error, DependencyError):
            # I4: whatever stands in its way by now, what was right when it was recorded is a repeat for good.
            known = deps.store.find_events(ledger_id, ids)
            if known:
                return answer_repeat(deps, ledger_id, events, ids, known)
        if not isinstance(error, OvertakenError):
            raise error or BusyError("the append was not tried; try again")
        dead |= error.dead
        for name, ref in error.abandoned.items():
            # Whoever gave the ref up may have died before it got to this.
            deps.vault.replace_stream(ledger_id, name, ref)
    raise BusyError("others keep changing the same streams; try again")


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
