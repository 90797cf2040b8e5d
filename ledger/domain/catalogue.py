"""The catalogue of a ledger's event types: which versions there are, and how an event is brought to the newest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from ledger.domain.events import OPERATOR, JsonObject, OpenedEvent, SchemaStatus
from ledger.domain.intake import LARGEST_SCHEMA_VERSION
from ledger.domain.names import RESERVED_TYPES, word_fault
from ledger.domain.strict_json import value_faults
from ledger.domain.upcasting import Budget, Step, Upcasters, apply_steps, apply_upcast, checked_object, parse_steps
from ledger.errors import Fault

DEFINITION_BYTES: Final = 64 * 1024
"""One version of a type, schemas and steps together, as JSON."""

STRICT_TYPES: Final = "strict_types"
UNLINK_AFTER: Final = "unlink_after"
PUBLIC_CHECKPOINTS: Final = "public_checkpoints"
NEVER: Final = "never"
DEFAULT_UNLINK_DAYS: Final = 90
MOST_UNLINK_DAYS: Final = 36_500


@dataclass(frozen=True, slots=True)
class TypeDraft:
    """A version of an event type that somebody asks to register.

    ``schema``, ``nonpersonal_schema``: JSON Schemas of ``data`` and ``nonpersonal``; None: anything goes. ``upcast``:
    the declarative steps that lead here from the version before; None for the first version, and where code does it.
    ``closes_stream``: nothing can be appended to a stream behind an event of this type.
    """

    event_type: str
    version: int
    schema: JsonObject | None = None
    nonpersonal_schema: JsonObject | None = None
    upcast: Sequence[JsonObject] | None = None
    closes_stream: bool = False


@dataclass(frozen=True, slots=True)
class EventType(TypeDraft):
    """One version of an event type, as registered. ``registered_at`` in microseconds."""

    registered_at: int = 0
    registered_by: UUID = OPERATOR


def definition_of(draft: TypeDraft) -> JsonObject:
    """What a version says, beside its type and number."""
    return {
        "schema": draft.schema,
        "nonpersonal_schema": draft.nonpersonal_schema,
        "upcast": list(draft.upcast) if draft.upcast is not None else None,
        "closes_stream": draft.closes_stream,
    }


def same_definition(one: TypeDraft, other: TypeDraft) -> bool:
    """Whether two versions say the same, whatever the order of members."""
    first, second = (json.dumps(definition_of(draft), sort_keys=True) for draft in (one, other))
    return first == second


def draft_faults(draft: TypeDraft, known: Sequence[EventType], upcasters: Upcasters) -> list[Fault]:
    """What is wrong with registering a version behind those that are known of its type, in their order.

    Versions begin with 1 and go up by one, and each has a way from the one before it: so there is neither a gap nor a
    circle, and every old event can be shown in the newest shape.
    """
    faults = _form_faults(draft)
    newest = known[-1] if known else None
    if newest is None and draft.version > 1:
        faults.append(Fault("/version", "must be 1: no version of this type is registered yet"))
    elif newest is not None and draft.version > newest.version + 1:
        missing = newest.version + 1
        faults.append(Fault("/version", f"must be {missing}: that is the next version of this type"))
    if draft.version == 1 and draft.upcast is not None:
        faults.append(Fault("/upcast", "must be null: there is no version before the first"))
    if draft.version > 1 and draft.upcast is None and (draft.event_type, draft.version - 1) not in upcasters.ways:
        old, new = draft.version - 1, draft.version
        message = f"is required: nothing leads from version {old} to {new} (an empty list: the shape is the same)"
        faults.append(Fault("/upcast", message))
    if newest is not None and newest.closes_stream != draft.closes_stream:
        message = "must be as in the versions before: what means something else is another type"
        faults.append(Fault("/closes_stream", message))
    return faults


def _form_faults(draft: TypeDraft) -> list[Fault]:
    faults = []
    message = word_fault(draft.event_type)
    if message is None and draft.event_type in RESERVED_TYPES:
        message = "this type is reserved for the ledger's own events"
    if message is not None:
        faults.append(Fault("/type", message))
    if not 1 <= draft.version <= LARGEST_SCHEMA_VERSION:
        faults.append(Fault("/version", f"must be an integer from 1 to {LARGEST_SCHEMA_VERSION}"))
    for name, schema in (("schema", draft.schema), ("nonpersonal_schema", draft.nonpersonal_schema)):
        if schema is not None:
            faults.extend(value_faults(schema, f"/{name}"))
    if draft.upcast is not None:
        faults.extend(parse_steps(draft.upcast, "/upcast")[1])
    return faults


@dataclass(frozen=True, slots=True)
class Policy:
    """What a ledger insists on. ``strict_types``: events of types that are not registered are refused.
    ``unlink_after``: how many days after somebody was erased the name is forgotten; 0: with the erasure; None: never.
    ``public_checkpoints``: everybody may read checkpoints and tiles of hashes, without an API key.
    """

    strict_types: bool = False
    unlink_after: int | None = DEFAULT_UNLINK_DAYS
    public_checkpoints: bool = False


def parse_policy(raw: Mapping[str, Any]) -> Policy:
    """Read a policy. Raises ``ValueError`` for a member or a value that this version does not know."""
    flags = [raw.get(name, False) for name in (STRICT_TYPES, PUBLIC_CHECKPOINTS)]
    days = raw.get(UNLINK_AFTER, DEFAULT_UNLINK_DAYS)
    whole = isinstance(days, int) and not isinstance(days, bool) and 0 <= days <= MOST_UNLINK_DAYS
    unknown = raw.keys() - {STRICT_TYPES, UNLINK_AFTER, PUBLIC_CHECKPOINTS}
    if unknown or not all(isinstance(flag, bool) for flag in flags) or not (whole or days == NEVER):
        raise ValueError("not a policy that this version knows")
    return Policy(flags[0], days if whole else None, flags[1])


def policy_json(policy: Policy) -> JsonObject:
    """A policy as JSON."""
    return {
        STRICT_TYPES: policy.strict_types,
        UNLINK_AFTER: policy.unlink_after if policy.unlink_after is not None else NEVER,
        PUBLIC_CHECKPOINTS: policy.public_checkpoints,
    }


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The versions of every type, in order; and their declarative ways, by (type, version led from)."""

    types: Mapping[str, Sequence[EventType]] = field(default_factory=dict)
    steps: Mapping[tuple[str, int], Sequence[Step]] = field(default_factory=dict)

    def newest(self, event_type: str, upcasters: Upcasters) -> int | None:
        """The newest version of a type; None where neither the catalogue nor code knows it."""
        versions = self.types.get(event_type)
        return versions[-1].version if versions else upcasters.newest(event_type)

    def is_by_code(self, event_type: str, old: int, upcasters: Upcasters) -> bool:
        """Whether code leads from this version of a type to the next."""
        # What is registered goes before what is in code: it is the same in every process.
        return (event_type, old) not in self.steps and (event_type, old) in upcasters.ways

    def newest_of_all(self, upcasters: Upcasters) -> dict[str, int]:
        """Event type → its newest version, for every type that the catalogue or code knows."""
        known = {event_type for event_type, _ in upcasters.ways} | self.types.keys()
        return {event_type: self.newest(event_type, upcasters) or 0 for event_type in known}


def build_catalogue(types: Iterable[EventType]) -> Catalogue:
    """The catalogue of these versions, which are in order. Versions that nobody can have registered (a row that was
    altered by hand) lead nowhere, and hide no other."""
    by_name: dict[str, list[EventType]] = {}
    steps: dict[tuple[str, int], Sequence[Step]] = {}
    for one in types:
        by_name.setdefault(one.event_type, []).append(one)
        if one.upcast is not None:
            parsed, faults = parse_steps(one.upcast, "/upcast")
            if not faults:
                steps[one.event_type, one.version - 1] = parsed
    return Catalogue(by_name, steps)


def bring_up(event: OpenedEvent, catalogue: Catalogue, upcasters: Upcasters) -> OpenedEvent:
    """Show an event in the newest version of its type; as it was recorded, and flagged, where that cannot be."""
    status = _status(event, catalogue, upcasters)
    if status != "upcast":
        return _shown(event, status)
    try:
        return _led(event, catalogue, upcasters)
    except Exception:  # noqa: BLE001 - somebody's function failed on somebody's event: neither may hide the others
        return _shown(event, "failed")


def leave_down(event: OpenedEvent, catalogue: Catalogue, upcasters: Upcasters) -> OpenedEvent:
    """Show an event as it was recorded, and say how that stands to the newest version of its type."""
    status = _status(event, catalogue, upcasters)
    return _shown(event, "as-recorded" if status == "upcast" else status)


def _status(event: OpenedEvent, catalogue: Catalogue, upcasters: Upcasters) -> SchemaStatus:
    """``upcast``: there is a way to the newest version."""
    event_type, version = event.recorded.envelope.event_type, event.recorded.envelope.schema_version
    newest = catalogue.newest(event_type, upcasters)
    if newest is None:
        return "unregistered"
    if version == newest:
        return "current"
    if not 1 <= version < newest:
        return "unknown-version"
    ways = ((event_type, old) for old in range(version, newest))
    return "upcast" if all(way in catalogue.steps or way in upcasters.ways for way in ways) else "unknown-version"


def _shown(event: OpenedEvent, status: SchemaStatus) -> OpenedEvent:
    version = event.recorded.envelope.schema_version
    if event.schema_status == status and event.shown_version == version:
        return event
    # Spelled out: ``replace`` takes six times as long, and every event of a registered type comes by here.
    return OpenedEvent(
        event.recorded,
        event.stream,
        event.subject,
        event.actor,
        event.further,
        event.nonpersonal,
        event.redactions,
        event.opened_keys,
        status,
        version,
        event.led_by_code,
        event.disclosed,
    )


def _led(event: OpenedEvent, catalogue: Catalogue, upcasters: Upcasters) -> OpenedEvent:
    event_type = event.recorded.envelope.event_type
    newest = catalogue.newest(event_type, upcasters) or 0
    data = event.subject.data if event.subject is not None else None
    nonpersonal = event.nonpersonal
    budget = Budget.of(event.recorded)
    by_code = []
    for old in range(event.recorded.envelope.schema_version, newest):
        if catalogue.is_by_code(event_type, old, upcasters):
            by_code.append(old)
            data, nonpersonal = apply_upcast(upcasters.ways[event_type, old], data, nonpersonal, budget)
        else:
            data, nonpersonal = apply_steps(catalogue.steps[event_type, old], data, nonpersonal, budget)
    # Ways can nest deeper with every version; what is shown stays what could have been recorded.
    data, nonpersonal = (checked_object(part) if part is not None else None for part in (data, nonpersonal))
    subject = replace(event.subject, data=data) if event.subject is not None else None
    return replace(
        event,
        subject=subject,
        nonpersonal=nonpersonal,
        schema_status="upcast",
        shown_version=newest,
        led_by_code=tuple(by_code),
    )
