"""Process managers: what goes on across streams and over time. They react to events with commands and timers.

Pure: ``react(state, event)`` says what is to be done. What it says is recorded as *one* event of the instance's own
stream before anything of it is done, so it is decided once, however often a worker dies on the way. From those events
comes the instance's state. ``ledger.services.commanding.processes`` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from ledger.domain.aggregate import Aggregate, Decision, Part
from ledger.domain.commands import command_faults, command_members
from ledger.domain.events import OPERATOR, JsonObject, OpenedEvent
from ledger.domain.fold import Fold
from ledger.domain.names import COMMAND_REFUSED, PROCESS_PREFIX, PROCESS_REACTED, TIMER_FIRED, word_fault
from ledger.domain.state import merge_patch

LARGEST_INTEGER: Final = 2**63 - 1
"""That a column of times can hold."""

MOST_REACTIONS: Final = 32
"""Reactions to one event, at most: each command can need a part of its own."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a command to a stream of an aggregate, by the aggregate's name.

    ``subject``: whose data stream and command are, if not those of the process's own subject; they are then sealed for
    that person, and go when that person is erased.
    """

    aggregate: str
    stream: str
    command: Any
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Wake this instance at a time (microseconds) with ``TimerFired``; in place of the timer of the same name, if one
    is set. The name is a word, and no personal data."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Do not wake this instance after all."""

    name: str


@dataclass(frozen=True, slots=True)
class Note:
    """Remember something: ``evolve`` makes the next state of it (by default it is a JSON Merge Patch)."""

    data: JsonObject


@dataclass(frozen=True, slots=True)
class End:
    """This instance is over: it reacts to nothing any more, not even to the refusal of a command that it has just
    sent."""


Reaction = Send | SetTimer | CancelTimer | Note | End


def _nobody(_event: OpenedEvent) -> str | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessManager:
    """One kind of process.

    ``input_category``, ``input_types``: the events that it sees; None and empty: all. ``instance_of``: which instance
    an event belongs to (the id behind the hyphen of its stream's name), or None. ``react``: what to do about an event,
    in this state; nothing: nothing is recorded. Beside events of the filter it gets ``TimerFired`` and
    ``CommandRefused`` (``timer_of`` and ``refusal_of`` tell). All of these may be called several times for one event,
    so they must not do anything but decide.
    ``subject_of``: the person whom an instance is about, asked when it begins; its notes and commands are sealed for
    that person. Of nobody's instance they are nonpersonal and outlive erasures: then no name may stand in them.
    ``aggregates``: those that it may send to. ``evolve``, ``version``: from a state, beginning with ``{}``, and a note
    to the next state; who changes it raises the version. ``begin_after``: events up to this position are history to it.

    An event of somebody who was erased is passed over. Raises ``ValueError`` when it is put together wrong.
    """

    name: str
    instance_of: Callable[[OpenedEvent], str | None]
    react: Callable[[JsonObject, OpenedEvent], Sequence[Reaction]]
    aggregates: tuple[Aggregate, ...]
    subject_of: Callable[[OpenedEvent], str | None] = _nobody
    input_category: str | None = None
    input_types: tuple[str, ...] = ()
    evolve: Callable[[JsonObject, JsonObject], JsonObject] = merge_patch
    version: int = 1
    begin_after: int = -1
    recorded_by: UUID = OPERATOR
    targets: Mapping[str, Aggregate] = field(init=False, repr=False)
    """``aggregates`` by their names."""

    def __post_init__(self) -> None:
        message = word_fault(self.name) or word_fault(self.category)
        if message is not None:
            raise ValueError(f"the name of a process manager {message}")
        targets = {aggregate.name: aggregate for aggregate in self.aggregates}
        if len(targets) < len(self.aggregates):
            raise ValueError("two aggregates of a process manager have one name")
        object.__setattr__(self, "targets", targets)

    @property
    def category(self) -> str:
        """Of the streams of its instances, which nobody else writes to."""
        return PROCESS_PREFIX + self.name


@dataclass(frozen=True, slots=True)
class Refusal:
    """A command of this process that was refused. ``reason``: the class of the error. ``detail``: its words."""

    aggregate: str
    command: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class PlannedSend:
    """A command that is recorded and to be sent. ``stream`` and ``fields`` are None when its subject was erased."""

    number: int
    aggregate: str
    command: str
    stream: str | None
    fields: JsonObject | None


@dataclass(frozen=True, slots=True)
class PlannedTimer:
    """A timer that is recorded and to be set."""

    number: int
    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Instance:
    """What the events of an instance amount to.

    ``timers``: those that are set, by name, each with the event that set it and its number there. ``input``: the
    position of the last event of the filter that it has reacted to; -1: none.
    """

    state: JsonObject
    timers: Mapping[str, tuple[UUID, int]]
    input: int

    @classmethod
    def of(cls, folded: JsonObject) -> Instance:
        """Read the state that ``instance_fold`` leads to."""
        timers = {name: (UUID(event_id), number) for name, (event_id, number) in folded.get("timers", {}).items()}
        return cls(folded.get("state", {}), timers, folded.get("input", -1))


def instance_fold(manager: ProcessManager) -> Fold:
    """The fold of an instance's own events."""

    def apply(folded: JsonObject, event: OpenedEvent) -> JsonObject:
        content = content_of(event)
        if content is None:
            return folded
        state, timers = folded.get("state", {}), dict(folded.get("timers", {}))
        event_id = str(event.recorded.envelope.event_id)
        if event.recorded.envelope.event_type == TIMER_FIRED:
            if timers.get(content["timer"]) == [content["set_by"], content["number"]]:
                del timers[content["timer"]]
            return {**folded, "timers": timers}
        if event.recorded.envelope.event_type != PROCESS_REACTED:
            return folded
        for number, reaction in enumerate(content["reactions"]):
            match reaction:
                case {"note": note}:
                    state = manager.evolve(state, note)
                case {"set_timer": name}:
                    timers[name] = [event_id, number]
                case {"cancel_timer": name}:
                    timers.pop(name, None)
        return {"state": state, "timers": timers, "input": max(folded.get("input", -1), content["input"])}

    return Fold(f"process.{manager.name}", manager.version, apply)


def record_reactions(
    manager: ProcessManager, reactions: Sequence[Reaction], subject: str | None, *, owned: bool, position: int
) -> Decision:
    """What is recorded of reactions, as one event. ``subject``: for the first event of an owned stream. ``position``:
    of the event reacted to; -1: it is one of the process's own.

    Raises ``TypeError`` or ``ValueError`` for reactions that cannot be carried out whatever the state.
    """
    if len(reactions) > MOST_REACTIONS:
        raise ValueError(f"{MOST_REACTIONS} reactions to one event at most")
    further: list[Part] = []
    recorded = [_record(manager, reaction, number, subject, further) for number, reaction in enumerate(reactions)]
    content: JsonObject = {"process": manager.name, "input": position, "reactions": recorded}
    ends = any(isinstance(reaction, End) for reaction in reactions)
    return own_event(PROCESS_REACTED, content, subject, owned=owned, further=tuple(further), closes=ends)


def own_event(
    event_type: str,
    content: JsonObject,
    subject: str | None,
    *,
    owned: bool,
    further: tuple[Part, ...] = (),
    closes: bool = False,
) -> Decision:
    """An event of an instance's own stream: sealed for the instance's subject, if it has one."""
    return Decision(
        event_type,
        data=content if owned else None,
        nonpersonal=None if owned else content,
        subject=subject,
        further=further,
        closes=closes,
    )


def _record(
    manager: ProcessManager, reaction: Reaction, number: int, subject: str | None, further: list[Part]
) -> JsonObject:
    match reaction:
        case Send():
            return _record_send(manager, reaction, number, subject, further)
        case SetTimer(name, at):
            if word_fault(name) is not None or not 0 <= at <= LARGEST_INTEGER:
                raise ValueError("a timer needs a word for a name and microseconds since 1970 for a time")
            return {"set_timer": name, "at": at}
        case CancelTimer(name):
            return {"cancel_timer": name}
        case Note(data):
            return {"note": data}
        case End():
            return {"end": True}
    raise TypeError("not a reaction")


def _record_send(
    manager: ProcessManager, send: Send, number: int, subject: str | None, further: list[Part]
) -> JsonObject:
    aggregate = manager.targets.get(send.aggregate)
    name = type(send.command).__name__
    if aggregate is None or aggregate.classes.get(name) is not type(send.command) or command_faults(send.command):
        raise ValueError("a process manager can only send commands of the aggregates that it names")
    recorded: JsonObject = {"send": send.aggregate, "command": name}
    address: JsonObject = {"stream": send.stream, "fields": command_members(send.command)}
    if send.subject is None or send.subject == subject:
        return recorded | address
    # With its number: where the part of somebody who was erased is left out, the others move up.
    further.append(Part(subject=send.subject, data={"number": number, **address}))
    return recorded | {"apart": True}


def content_of(event: OpenedEvent) -> JsonObject | None:
    """What one of a process's own events says; None when that was erased."""
    return event.subject.data if event.subject is not None else event.nonpersonal


def planned(event: OpenedEvent) -> list[PlannedSend | PlannedTimer]:
    """What is to be done about a ``ProcessReacted``, in order; nothing when it was erased."""
    content = content_of(event) or {"reactions": []}
    apart = {part.data["number"]: part.data for part in event.further if part.data is not None}
    plan: list[PlannedSend | PlannedTimer] = []
    for number, reaction in enumerate(content["reactions"]):
        match reaction:
            case {"send": aggregate, "command": command, "apart": True}:
                address = apart.get(number, {})
                plan.append(PlannedSend(number, aggregate, command, address.get("stream"), address.get("fields")))
            case {"send": aggregate, "command": command, "stream": stream, "fields": fields}:
                plan.append(PlannedSend(number, aggregate, command, stream, fields))
            case {"set_timer": name, "at": at}:
                plan.append(PlannedTimer(number, name, at))
    return plan


def timer_of(event: OpenedEvent) -> str | None:
    """The name of the timer that fired; None for any other event."""
    content = content_of(event) if event.recorded.envelope.event_type == TIMER_FIRED else None
    return content["timer"] if content is not None else None


def refusal_of(event: OpenedEvent) -> Refusal | None:
    """The command that was refused; None for any other event."""
    content = content_of(event) if event.recorded.envelope.event_type == COMMAND_REFUSED else None
    if content is None:
        return None
    return Refusal(content["aggregate"], content["command"], content["reason"], content["detail"])
