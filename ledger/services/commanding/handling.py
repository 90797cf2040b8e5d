"""Handle a command: load, decide, append with the version that was decided on; once, whatever happens on the way.

The ids of a command's events are derived from the command's id. So an append that was committed although nobody was
told, and a twin that runs at the same time in another process, are both found again by those ids (I4): whoever comes
second gives the first result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from ledger.domain.aggregate import MOST_DECISIONS, Aggregate, Decision, check_command, event_of, owner_of
from ledger.domain.events import Appended, JsonObject, NewEvent, OpenedEvent, RecordedEvent
from ledger.domain.ids import client_id_fault
from ledger.domain.names import COMMAND_REFUSED
from ledger.errors import (
    BusyError,
    CommandRefusedError,
    Fault,
    IdConflictError,
    InvalidError,
    PartlyRecordedError,
    StreamClosedError,
    VersionConflictError,
)
from ledger.services.appending.append import append_events
from ledger.services.appending.recording import appended
from ledger.services.commanding.loading import Loaded, load
from ledger.services.dependencies import Dependencies
from ledger.services.naming import nameless_among
from ledger.services.opening import open_events

ATTEMPTS: Final = 10
"""How often a command is decided because others changed its stream in the meantime."""


@dataclass(frozen=True, slots=True)
class Handled:
    """What a command led to. ``repeated``: it had been handled before, and these are the events of that time."""

    events: tuple[Appended, ...]
    repeated: bool


def handle(
    deps: Dependencies,
    ledger_id: UUID,
    aggregate: Aggregate,
    stream: str,
    command: Any,
    *,
    command_id: UUID,
    recorded_by: UUID,
    cause: OpenedEvent | None = None,
) -> Handled:
    """Decide a command on a stream and record what was decided, all or nothing.

    ``command_id`` names this one command: with the same id it is handled once, and every later call gives the first
    result, whatever command it brings along. A command that leads to nothing records nothing, so it can lead to
    something another time. ``cause``: the event that the command answers to. Its id becomes the causation id, its
    correlation id (or, where it has none, its id) the correlation id of what is recorded; without a cause the
    correlation id is ``command_id``.

    Raises ``InvalidError`` (the command cannot be right), ``CommandRefusedError`` (a rule says no),
    ``StreamClosedError``, ``SubjectErasedError``, ``IdConflictError`` (the id is recorded for another stream),
    ``BusyError`` (others kept changing the stream, or a subject's state is changing), whatever ``decide`` raises, or an
    error of a dependency; then nothing is recorded, but for a ``StoreUnavailableError``: after that only a retry with
    the same id can tell.
    """
    check_command(aggregate, stream, command)
    message = client_id_fault(command_id)
    if message is not None:
        raise InvalidError("the id of the command is not valid", [Fault("/command_id", message)])
    for _ in range(ATTEMPTS):
        before = _handled_before(deps, ledger_id, stream, command_id)
        if before is not None:
            return before
        loaded = load(deps, ledger_id, stream, aggregate.fold)
        decisions = _decide(deps, ledger_id, aggregate, loaded, command)
        if not decisions:
            return Handled((), repeated=False)
        events = _events(
            decisions, loaded, stream, ids_of(deps, ledger_id, command_id, len(decisions)), command_id, cause
        )
        try:
            result = append_events(deps, ledger_id, events, recorded_by)
        except (VersionConflictError, IdConflictError, PartlyRecordedError):
            # Somebody has changed the stream since it was loaded, or a twin has decided otherwise on another state.
            continue
        return Handled(result.events, repeated=result.duplicate)
    raise BusyError("others keep changing the same stream; try again in a moment")


def ids_of(deps: Dependencies, ledger_id: UUID, command_id: UUID, count: int) -> Sequence[UUID]:
    """The ids of a command's events. The first is also that of the record that it was refused, where a process keeps
    one: so of the two outcomes only one can ever be recorded."""
    return deps.vault.derive_ids(ledger_id, f"command:{command_id}", range(count))


def _handled_before(deps: Dependencies, ledger_id: UUID, stream: str, command_id: UUID) -> Handled | None:
    (first,) = ids_of(deps, ledger_id, command_id, 1)
    known = deps.store.find_events(ledger_id, [first]).get(first)
    if known is None:
        return None
    if known.envelope.event_type == COMMAND_REFUSED:
        raise CommandRefusedError("the command was refused before, and that is recorded")
    entry = deps.vault.find_streams(ledger_id, [stream]).get(stream)
    same = entry is not None and entry.ref == known.envelope.stream_ref
    # I4: the stream's name may have begun anew with its owner's; what led to the old one is not kept to compare.
    if not same and not nameless_among(deps, ledger_id, open_events(deps, ledger_id, [known])):
        raise IdConflictError(
            "the id of the command is recorded for another stream",
            [Fault("/command_id", "names another command; every command needs an id of its own")],
        )
    ids = ids_of(deps, ledger_id, command_id, MOST_DECISIONS)
    found = deps.store.find_events(ledger_id, ids)
    rows: list[RecordedEvent] = [found[event_id] for event_id in ids if event_id in found]
    return Handled(tuple(appended(row) for row in rows), repeated=True)


def _decide(
    deps: Dependencies, ledger_id: UUID, aggregate: Aggregate, loaded: Loaded, command: Any
) -> Sequence[Decision]:
    try:
        decisions = aggregate.decide(loaded.state, command)
    except CommandRefusedError:
        _refuse_if_closed(deps, ledger_id, loaded)
        raise
    if not decisions:
        _refuse_if_closed(deps, ledger_id, loaded)
    if len(decisions) > MOST_DECISIONS:
        raise InvalidError(f"a command leads to more than {MOST_DECISIONS} events")
    return decisions


def _refuse_if_closed(deps: Dependencies, ledger_id: UUID, loaded: Loaded) -> None:
    """That a stream has ended says more than what its rules would have said. Where there is something to append, the
    append says it."""
    if loaded.stream_ref is None:
        return
    with deps.store.locked_head(ledger_id) as lock:
        closed = lock.closed([loaded.stream_ref])
    if closed:
        raise StreamClosedError("the stream has ended; it takes no more commands", [Fault("/stream", "has ended")])


def _events(
    decisions: Sequence[Decision],
    loaded: Loaded,
    stream: str,
    ids: Sequence[UUID],
    command_id: UUID,
    cause: OpenedEvent | None,
) -> list[NewEvent]:
    owner = owner_of(loaded.version, loaded.owner_ref, decisions[0])
    links = links_of(cause) if cause is not None else {"correlation_id": str(command_id)}
    return [
        event_of(
            decision,
            number,
            stream,
            owner,
            {"id": str(event_id), "expected_version": loaded.version + number, **links},
        )
        for number, (decision, event_id) in enumerate(zip(decisions, ids, strict=True))
    ]


def links_of(cause: OpenedEvent) -> JsonObject:
    """Causation and correlation id of whatever answers to an event, as they stand in a request."""
    envelope = cause.recorded.envelope
    return {
        "causation_id": str(envelope.event_id),
        "correlation_id": str(envelope.correlation_id or envelope.event_id),
    }
