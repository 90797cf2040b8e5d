"""Aggregates: the things that have rules. A command is decided on their state; what was decided is recorded.

Pure: ``decide(state, command)`` gives events, ``fold.apply(state, event)`` gives the next state, and neither knows
where events are kept. ``ledger.services.commanding.handling`` puts the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ledger.domain.commands import command_classes, command_faults
from ledger.domain.events import JsonObject, NewEvent
from ledger.domain.fold import Fold
from ledger.domain.ids import format_ref
from ledger.domain.intake import parse_event
from ledger.domain.names import is_reserved_category, split_stream, word_fault
from ledger.domain.times import format_time
from ledger.errors import Fault, InvalidError

MOST_DECISIONS: Final = 64
"""Events that one command leads to, at most: so that whoever asks again for a command's events knows where to look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a decision says of one more person, sealed for that person alone."""

    subject: str
    data: JsonObject | None = None
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """One event that a command leads to.

    ``data`` is about ``subject``. The subject of a stream's first event owns the stream; in every later event nobody
    need be named: None means the owner. What concerns no person goes into ``nonpersonal`` and outlives erasures.
    ``occurred_at`` in microseconds. ``closes``: the stream ends with this event.
    """

    event_type: str
    data: JsonObject | None = None
    nonpersonal: JsonObject | None = None
    subject: str | None = None
    purpose: str = ""
    actor: str | None = None
    further: tuple[Part, ...] = ()
    schema_version: int = 1
    occurred_at: int | None = None
    closes: bool = False


def _nothing_to_object_to(_command: Any) -> Iterable[Fault]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """One kind of thing with rules.

    ``category``: of its streams. ``fold``: from its events to its state, beginning with ``{}``. ``decide``: from a
    state and a command to what is to be recorded (nothing: nothing is); raises ``CommandRefusedError`` when a rule says
    no, in words that repeat nobody's data. It may be called several times for one command, so it must not do anything
    but decide. ``commands``: the classes that it takes. ``validate``: what is wrong with a command whatever the state,
    as faults with pointers; the types of the fields have been looked at before.

    Raises ``TypeError`` or ``ValueError`` when it is put together wrong.
    """

    name: str
    category: str
    fold: Fold
    decide: Callable[[JsonObject, Any], Sequence[Decision]]
    commands: tuple[type, ...]
    validate: Callable[[Any], Iterable[Fault]] = _nothing_to_object_to
    classes: Mapping[str, type] = field(init=False, repr=False)
    """``commands`` by their names."""

    def __post_init__(self) -> None:
        for what, word in (("name", self.name), ("category", self.category)):
            message = word_fault(word)
            if message is not None:
                raise ValueError(f"the {what} of an aggregate {message}")
        if is_reserved_category(self.category):
            raise ValueError(f"the category {self.category} is reserved for the ledger's own events")
        if not self.commands:
            raise ValueError("an aggregate takes at least one command")
        object.__setattr__(self, "classes", command_classes(self.commands))


def check_command(aggregate: Aggregate, stream: str, command: object) -> None:
    """Raise ``InvalidError``, with every fault, unless the command can be decided on this stream."""
    split = split_stream(stream)
    if split is None or split[0] != aggregate.category:
        fault = Fault("/stream", f"must be a stream of the category {aggregate.category}: {aggregate.category}-…")
        raise InvalidError("the stream is not one of this aggregate", [fault])
    if aggregate.classes.get(type(command).__name__) is not type(command):
        known = ", ".join(sorted(aggregate.classes))
        raise InvalidError("the aggregate has no such command", [Fault("/command", f"must be one of: {known}")])
    faults = command_faults(command) or list(aggregate.validate(command))
    if faults:
        raise InvalidError("the command is not valid", faults)


def owner_of(version: int, owner_ref: bytes | None, first: Decision) -> JsonObject:
    """Who owns a stream, as it stands in a request: from its first event on that event's subject, or nobody."""
    if version == 0:
        return {"subject": first.subject} if first.subject is not None else {}
    return {"subject_ref": format_ref("sub", owner_ref)} if owner_ref is not None else {}


def event_of(
    decision: Decision,
    number: int,
    stream: str,
    owner: JsonObject,
    members: JsonObject,
    *,
    by_process: bool = False,
) -> NewEvent:
    """The event of a decision, validated as a writer's would be (``by_process``: as a process manager's own).

    ``owner``: the owner of the stream as it stands in a request (``owner_of``). ``members``: id, version and whatever
    else the decision does not say. Raises ``InvalidError``.
    """
    raw: JsonObject = {
        "stream": stream,
        "type": decision.event_type,
        "schema_version": decision.schema_version,
        **members,
    }
    if decision.subject is not None:
        raw["subject"] = decision.subject
    elif decision.data is not None:
        raw |= owner
    if decision.data is not None:
        raw |= {"data": decision.data, "purpose": decision.purpose}
    if decision.nonpersonal is not None or decision.data is None:
        raw["nonpersonal"] = decision.nonpersonal or {}
    if decision.actor is not None:
        raw["actor"] = decision.actor
    if decision.further:
        raw["parts"] = [
            {"subject": part.subject, "purpose": part.purpose, "data": part.data} for part in decision.further
        ]
    if decision.occurred_at is not None:
        raw["occurred_at"] = format_time(decision.occurred_at)
    event = parse_event(raw, pointer=f"/decisions/{number}", index=number, by_process=by_process)
    return replace(event, closes_stream=decision.closes)
