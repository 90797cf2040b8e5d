"""What one instance of a process does about one event: decided once, carried out once.

1. The reactions are recorded as one event whose id is derived from the event reacted to. Whoever comes second finds
   them and decides nothing anew.
2. The commands among them have ids derived from that one. A command that was handled is found by its id; that it was
   refused is recorded under the very same id, so only one of the two can ever be.

So it can be interrupted anywhere, and begun again by anybody, even by two at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, TypeVar
from uuid import UUID

from ledger.domain.aggregate import Aggregate, Decision, event_of, owner_of
from ledger.domain.commands import command_from
from ledger.domain.events import JsonObject, OpenedEvent
from ledger.domain.fold import Fold
from ledger.domain.names import COMMAND_REFUSED, TIMER_FIRED
from ledger.domain.process import (
    Instance,
    PlannedSend,
    PlannedTimer,
    ProcessManager,
    instance_fold,
    own_event,
    planned,
    record_reactions,
)
from ledger.errors import (
    BusyError,
    CallerError,
    IdConflictError,
    IntegrityError,
    LedgerError,
    StateError,
    StreamClosedError,
    SubjectErasedError,
    VersionConflictError,
)
from ledger.ports import Timer
from ledger.services.appending.append import append_events
from ledger.services.commanding.handling import ATTEMPTS, handle, ids_of, links_of
from ledger.services.commanding.loading import Loaded, RestrictedStateError, UnknownShapeError, load
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.current import open_current

T = TypeVar("T")

MOST_IN_A_ROW: Final = 20
"""Refusals that one event can lead to, one answering to the other, before the process is stopped."""


class StopError(Exception):
    """The process cannot go on without somebody who mends it. ``error``: the name of a class, and nothing more (I5)."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class OverError(Exception):
    """The instance is over: its stream has ended, or its subject was erased."""


class RestrictedError(Exception):
    """The instance waits: its subject is restricted. Nothing may be done with its data, and nothing passed over."""


class Reactor:
    """Reacts for one process. Raises the errors above, ``BusyError``, and errors of dependencies."""

    def __init__(self, deps: Dependencies, ledger_id: UUID, manager: ProcessManager) -> None:
        self._deps = deps
        self._ledger_id = ledger_id
        self._manager = manager
        self._fold = _guarded_fold(instance_fold(manager))
        self._targets = {name: _guarded_aggregate(aggregate) for name, aggregate in manager.targets.items()}

    def take_in(self, event: OpenedEvent, *, held: bool) -> bool:
        """React to an event of the filter, if it is one for an instance; gives whether it was. ``held``: it had to
        wait, so others may have gone by."""
        if event.recorded.envelope.category == self._manager.category:
            return False
        _check_readable(event)
        if any(redaction.pointer in ("/data", "/stream") for redaction in event.redactions):
            return False
        instance = ask(self._manager.instance_of, event)
        if instance is None:
            return False
        try:
            self._respond(event, f"{self._manager.category}-{instance}", -1 if held else event.recorded.position)
        except OverError:
            return False
        return True

    def _respond(self, event: OpenedEvent, stream: str, position: int, depth: int = 0) -> None:
        """Decide, and do what was decided. ``position``: of an event that comes in order of the log; else -1."""
        if depth == MOST_IN_A_ROW:
            raise StopError("EndlessRefusals")
        reacted = self._reaction(event, stream, position)
        if reacted is None:
            return
        for plan in planned(reacted):
            if isinstance(plan, PlannedTimer):
                self._set_timer(reacted, plan)
                continue
            # An instance that is over cannot be told of a refusal. What it decided before is carried out all the same.
            with suppress(OverError):
                refused = self._send(reacted, plan, stream)
                if refused is not None:
                    self._respond(refused, stream, -1, depth + 1)

    def _reaction(self, event: OpenedEvent, stream: str, position: int) -> OpenedEvent | None:
        """The recorded reactions to an event; None when there are none."""
        event_id = self._derive(f"process:{self._manager.name}", event.recorded.envelope.event_id)
        for _ in range(ATTEMPTS):
            known = self._find(event_id)
            if known is not None:
                _check_readable(known)
                return known
            loaded = self._load(stream)
            instance = Instance.of(loaded.state)
            if -1 < position <= instance.input:
                # A worker that has had the lease since was here, found nothing to do, and went on.
                return None
            reactions = ask(self._manager.react, instance.state, event)
            if not reactions:
                return None
            subject = ask(self._manager.subject_of, event) if loaded.version == 0 else None
            owned = subject is not None or loaded.owner_ref is not None
            decision = ask(record_reactions, self._manager, reactions, subject, owned=owned, position=position)
            self._record(decision, event_id, stream, loaded, event)
        raise BusyError("others keep changing the same instance of a process")

    def _load(self, stream: str) -> Loaded:
        try:
            return load(self._deps, self._ledger_id, stream, self._fold)
        except SubjectErasedError:
            raise OverError from None
        except RestrictedStateError:
            raise RestrictedError from None

    def _record(self, decision: Decision, event_id: UUID, stream: str, loaded: Loaded, cause: OpenedEvent) -> None:
        """Record one of the process's own events, unless it is recorded or the stream has changed since."""
        owner = owner_of(loaded.version, loaded.owner_ref, decision)
        # Only parts of others can be left out: to the stream of somebody who was erased nothing is appended at all.
        members: JsonObject = {"id": str(event_id), "expected_version": loaded.version, "if_erased": "omit"}
        new = event_of(decision, 0, stream, owner, members | links_of(cause), by_process=True)
        try:
            append_events(self._deps, self._ledger_id, [new], self._manager.recorded_by)
        except (VersionConflictError, IdConflictError):
            return
        except StreamClosedError:
            raise OverError from None
        except SubjectErasedError:
            if loaded.version == 0:
                raise OverError from None
            # Erased since, or restricted, which only looks the same from here: loading tells.
            self._load(stream)

    # Commands

    def _send(self, reacted: OpenedEvent, plan: PlannedSend, stream: str) -> OpenedEvent | None:
        """Send a command; gives the record of its refusal, if it was refused."""
        command_id = self._derive("process-command", reacted.recorded.envelope.event_id, plan.number)
        (outcome_id,) = ids_of(self._deps, self._ledger_id, command_id, 1)
        for _ in range(ATTEMPTS):
            outcome = self._find(outcome_id)
            if outcome is not None:
                return outcome if outcome.recorded.envelope.event_type == COMMAND_REFUSED else None
            refusal = self._try(reacted, plan, command_id)
            if refusal is None:
                return None
            content: JsonObject = {
                "aggregate": plan.aggregate,
                "command": plan.command,
                "reason": type(refusal).__name__,
                "detail": refusal.detail,
            }
            loaded = self._load(stream)
            decision = own_event(COMMAND_REFUSED, content, None, owned=loaded.owner_ref is not None)
            self._record(decision, outcome_id, stream, loaded, reacted)
        raise BusyError("others keep changing the same instance of a process")

    def _try(self, reacted: OpenedEvent, plan: PlannedSend, command_id: UUID) -> LedgerError | None:
        """Have a command handled; gives why it will not be, or None."""
        if plan.stream is None or plan.fields is None:
            return _why_hidden(reacted)
        aggregate = self._targets.get(plan.aggregate)
        if aggregate is None:
            raise StopError("UnknownAggregate")
        try:
            handle(
                self._deps,
                self._ledger_id,
                aggregate,
                plan.stream,
                command_from(aggregate.classes, plan.command, plan.fields),
                command_id=command_id,
                recorded_by=self._manager.recorded_by,
                cause=reacted,
            )
        except BusyError:
            raise
        except (CallerError, StateError) as refusal:
            return refusal
        return None

    # Timers

    def _set_timer(self, reacted: OpenedEvent, plan: PlannedTimer) -> None:
        envelope = reacted.recorded.envelope
        timer_id = self._derive("process-timer", envelope.event_id, plan.number)
        timer = Timer(
            timer_id=timer_id,
            process=self._manager.name,
            due_at=plan.at,
            set_by=envelope.event_id,
            number=plan.number,
        )
        self._deps.derived.timers.set_timer(self._ledger_id, timer)

    def fire(self, timer: Timer) -> None:
        """Have a due timer's instance react, if the timer is still set: a row does not know that it was set anew or
        cancelled; the log does."""
        setter = self._find(timer.set_by)
        if setter is None:
            return
        _check_readable(setter)
        plans = [plan for plan in planned(setter) if isinstance(plan, PlannedTimer)]
        plan = next((plan for plan in plans if plan.number == timer.number), None)
        if plan is None or setter.stream is None:
            return
        fired_id = self._derive("process-fired", timer.timer_id)
        for _ in range(ATTEMPTS):
            fired = self._find(fired_id)
            try:
                if fired is not None:
                    self._respond(fired, setter.stream, -1)
                    return
                loaded = self._load(setter.stream)
                if Instance.of(loaded.state).timers.get(plan.name) != (timer.set_by, plan.number):
                    return
                content: JsonObject = {"timer": plan.name, "set_by": str(timer.set_by), "number": plan.number}
                decision = own_event(TIMER_FIRED, content, None, owned=loaded.owner_ref is not None)
                self._record(decision, fired_id, setter.stream, loaded, setter)
            except OverError:
                return
        raise BusyError("others keep changing the same instance of a process")

    # What all of them need

    def _find(self, event_id: UUID) -> OpenedEvent | None:
        rows = self._deps.store.find_events(self._ledger_id, [event_id])
        return next(iter(open_current(self._deps, self._ledger_id, list(rows.values()))), None)

    def _derive(self, what: str, event_id: UUID, number: int = 0) -> UUID:
        (derived,) = self._deps.vault.derive_ids(self._ledger_id, f"{what}:{event_id}", [number])
        return derived


def ask(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Call what belongs to a process or an aggregate. What it raises stops the process; errors of the ledger are ours,
    or a refusal."""
    try:
        return function(*arguments, **named)
    except LedgerError:
        raise
    except Exception as error:  # whatever it is, it must not be passed over
        raise StopError(type(error).__name__) from error


def _check_readable(event: OpenedEvent) -> None:
    """Raise unless all of an event that a process looks at can be read, in a shape that it knows, or is gone for
    good."""
    if event.schema_status in ("unknown-version", "failed"):
        raise UnknownShapeError
    # Parts of others are looked at where a command needs them.
    hidden = [redaction for redaction in event.redactions if not redaction.pointer.startswith(("/actor", "/parts"))]
    if any(redaction.reason == "unreadable" for redaction in hidden):
        raise StopError(IntegrityError.__name__)
    if any(redaction.reason == "restricted" for redaction in hidden):
        raise RestrictedError


def _why_hidden(reacted: OpenedEvent) -> LedgerError:
    """Why the part that says what to send cannot be read."""
    reasons = {redaction.reason for redaction in reacted.redactions if redaction.pointer.startswith("/parts")}
    if "unreadable" in reasons:
        raise StopError(IntegrityError.__name__)
    if "restricted" in reasons:
        return RestrictedStateError("the subject of the command is restricted: nothing may be done with its data")
    return SubjectErasedError("the subject of the command was erased")


def _guarded_fold(fold: Fold) -> Fold:
    return replace(fold, apply=lambda state, event: ask(fold.apply, state, event))


def _guarded_aggregate(aggregate: Aggregate) -> Aggregate:
    return replace(
        aggregate,
        fold=_guarded_fold(aggregate.fold),
        decide=lambda state, command: ask(aggregate.decide, state, command),
        validate=lambda command: ask(lambda: list(aggregate.validate(command))),
    )
