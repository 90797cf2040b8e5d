"""From a request's JSON to a ``NewEvent``: the one place where events are validated.

Every fault is collected with its pointer before anything is refused, so that a client mends its event in one go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from ledger.domain import times
from ledger.domain.events import PARTS, ExpectedVersion, JsonObject, NewEvent, NewPart
from ledger.domain.ids import RefKind, client_id_fault, correlation_id_fault, parse_ref, parse_uuid
from ledger.domain.names import (
    ACTOR_PURPOSE,
    PROCESS_TYPES,
    RESERVED_TYPES,
    is_process_category,
    is_reserved_category,
    name_fault,
    purpose_fault,
    split_stream,
    word_fault,
)
from ledger.domain.strict_json import value_faults
from ledger.errors import Fault, InvalidError

EVENT_BYTES: Final = 2**20
BATCH_EVENTS: Final = 10_000
BATCH_BYTES: Final = 32 * 2**20

LARGEST_VERSION: Final = 2**63 - 1
LARGEST_SCHEMA_VERSION: Final = 2**31 - 1

EVENT_FIELDS: Final = frozenset(
    {
        "id", "stream", "stream_ref", "expected_version", "type", "schema_version", "subject", "subject_ref", "purpose",
        "data", "actor", "actor_ref", "parts", "nonpersonal", "occurred_at", "correlation_id", "causation_id",
        "if_erased",
    }
)  # fmt: skip
_REPORTED_FAULTS: Final = 100
_PART_FIELDS: Final = frozenset({"subject", "subject_ref", "purpose", "data"})
_ACTOR_FIELDS: Final = frozenset({"subject", "subject_ref", "data"})


def parse_event(
    raw: object,
    *,
    pointer: str = "",
    index: int = 0,
    default_id: UUID | None = None,
    default_correlation: UUID | None = None,
    by_process: bool = False,
) -> NewEvent:
    """Read one event as the contract describes it. ``by_process``: it is not a client's but a process manager's own.
    ``default_id``, ``default_correlation``: its ids where it gives none. Raises ``InvalidError`` with every fault."""
    intake = _Intake(pointer, index, by_process)
    event = intake.event(raw, default_id, default_correlation)
    if event is None or intake.faults:
        raise InvalidError("the event is not valid", intake.faults)
    return event


def parse_batch(raw: object, *, default_correlation: UUID | None = None) -> list[NewEvent]:
    """Read one event, or ``{"events": […]}``. Raises ``InvalidError`` with the faults of all events."""
    if not isinstance(raw, dict) or "events" not in raw:
        return [parse_event(raw, default_correlation=default_correlation)]
    items = raw["events"]
    faults = [Fault(f"/{key}", "unknown field") for key in sorted(raw) if key != "events" and key in EVENT_FIELDS]
    faults += [Fault("", "unknown field beside 'events'")] if set(raw) - EVENT_FIELDS - {"events"} else []
    if not isinstance(items, list):
        faults.append(Fault("/events", "must be an array"))
    elif not items:
        faults.append(Fault("/events", "must hold at least one event"))
    if faults or not isinstance(items, list):
        raise InvalidError("the batch is not valid", faults)
    events: list[NewEvent] = []
    for index, item in enumerate(items):
        try:
            events.append(
                parse_event(item, pointer=f"/events/{index}", index=index, default_correlation=default_correlation)
            )
        except InvalidError as error:
            faults.extend(error.faults)
            if len(faults) > _REPORTED_FAULTS:
                break
    faults += _repeated_ids(events)
    if faults:
        raise InvalidError("the batch is not valid; nothing was recorded", faults)
    return events


def _repeated_ids(events: list[NewEvent]) -> list[Fault]:
    seen: set[UUID] = set()
    faults = []
    for index, event in enumerate(events):
        if event.event_id is None:
            continue
        if event.event_id in seen:
            faults.append(Fault(f"{event.pointer}/id", "stands twice in this batch", index))
        seen.add(event.event_id)
    return faults


class _Intake:
    """Reads the fields of one event and collects what is wrong with them."""

    def __init__(self, pointer: str, index: int, by_process: bool) -> None:
        self.pointer = pointer
        self.index = index
        self.by_process = by_process
        self.faults: list[Fault] = []

    def fault(self, where: str, message: str) -> None:
        self.faults.append(Fault(self.pointer + where, message, self.index))

    def event(self, raw: object, default_id: UUID | None, default_correlation: UUID | None) -> NewEvent | None:
        if not isinstance(raw, dict):
            self.fault("", "must be a JSON object")
            return None
        self.unknown_fields("", raw, EVENT_FIELDS)
        stream, stream_ref = self.stream(raw)
        subject = self.main_part(raw)
        # Most events have few of the fields: what is not there is not asked for.
        nonpersonal = self.data(raw, "nonpersonal", "/nonpersonal") if "nonpersonal" in raw else None
        if nonpersonal is None and raw.get("data") is None:
            self.fault("", "needs 'data' or 'nonpersonal'")
        actor = self.actor(raw) if "actor" in raw or "actor_ref" in raw else None
        further = self.further(raw) if "parts" in raw else ()
        correlation_id = None
        if "correlation_id" in raw:
            correlation_id = self.optional_id(raw, "correlation_id", correlation_id_fault)
        if_erased = raw.get("if_erased", "refuse")
        if if_erased not in ("refuse", "omit"):
            self.fault("/if_erased", "must be 'refuse' or 'omit'")
        return NewEvent(
            pointer=self.pointer,
            event_id=(self.optional_id(raw, "id") if "id" in raw else None) or default_id,
            stream=stream,
            stream_ref=stream_ref,
            expected_version=self.expected_version(raw) if "expected_version" in raw else "any",
            event_type=self.event_type(raw),
            schema_version=self.schema_version(raw) if "schema_version" in raw else 1,
            subject=subject,
            actor=actor,
            further=further,
            nonpersonal=nonpersonal,
            occurred_at=self.time(raw, "occurred_at"),
            correlation_id=correlation_id or default_correlation,
            correlation_given=correlation_id is not None,
            causation_id=self.optional_id(raw, "causation_id") if "causation_id" in raw else None,
            omit_erased=if_erased == "omit",
            by_process=self.by_process,
        )

    def unknown_fields(self, where: str, raw: dict[Any, Any], known: frozenset[str]) -> None:
        # The field's name is not repeated: a client that puts a name where a field belongs would find it in its logs.
        if not raw.keys() <= known:
            self.fault(where, f"has an unknown field; known are: {', '.join(sorted(known))}")

    def stream(self, raw: dict[str, Any]) -> tuple[str | None, bytes | None]:
        name, ref = raw.get("stream"), raw.get("stream_ref")
        if ref is not None:
            if name is not None:
                self.fault("/stream_ref", "must not stand beside 'stream'")
            return None, self.ref(ref, "str", "/stream_ref")
        if name is None:
            self.fault("/stream", "is required")
            return None, None
        message = name_fault(name)
        if message is not None:
            self.fault("/stream", message)
            return None, None
        split = split_stream(name)
        if split is None:
            self.fault("/stream", "must have the form category-id, the category of ASCII letters, digits, '_' or '.'")
        elif is_reserved_category(split[0]) and not (self.by_process and is_process_category(split[0])):
            self.fault("/stream", "this category is reserved for the ledger's own events")
        return str(name), None

    def ref(self, value: object, kind: RefKind, where: str) -> bytes | None:
        ref = parse_ref(kind, value)
        if ref is None:
            self.fault(where, f"must be a ref of the form {kind}_ and 32 hexadecimal digits")
        return ref

    def who(self, raw: dict[str, Any], where: str, name_field: str, ref_field: str) -> tuple[str | None, bytes | None]:
        """A person by name or by ref; both None when absent (or wrong, which is then a fault)."""
        name, ref = raw.get(name_field), raw.get(ref_field)
        if ref is not None:
            if name is not None:
                self.fault(f"{where}/{ref_field}", f"must not stand beside '{name_field}'")
            return None, self.ref(ref, "sub", f"{where}/{ref_field}")
        if name is None:
            return None, None
        message = name_fault(name)
        if message is not None:
            self.fault(f"{where}/{name_field}", message)
            return None, None
        return str(name), None

    def main_part(self, raw: dict[str, Any]) -> NewPart | None:
        name, ref = self.who(raw, "", "subject", "subject_ref")
        data = self.data(raw, "data", "/data")
        if name is None and ref is None and raw.get("subject") is None and raw.get("subject_ref") is None:
            if raw.get("data") is not None:
                self.fault("/subject", "is required beside 'data'; what concerns no person goes into 'nonpersonal'")
            if raw.get("purpose") not in (None, ""):
                self.fault("/purpose", "needs a 'subject'")
            return None
        return NewPart(name, ref, self.purpose(raw, "/purpose"), data)

    def purpose(self, raw: dict[str, Any], where: str) -> str:
        purpose = raw.get("purpose", "")
        message = None if purpose == "" else purpose_fault(purpose)
        if message is not None:
            self.fault(where, message)
            return ""
        return str(purpose)

    def actor(self, raw: dict[str, Any]) -> NewPart | None:
        actor = raw.get("actor")
        if isinstance(actor, dict):
            if raw.get("actor_ref") is not None:
                self.fault("/actor_ref", "must not stand beside 'actor'")
            self.unknown_fields("/actor", actor, _ACTOR_FIELDS)
            if actor.get("subject") is None and actor.get("subject_ref") is None:
                self.fault("/actor/subject", "is required")
            name, ref = self.who(actor, "/actor", "subject", "subject_ref")
            return NewPart(name, ref, ACTOR_PURPOSE, self.data(actor, "data", "/actor/data"))
        name, ref = self.who(raw, "", "actor", "actor_ref")
        return None if name is None and ref is None else NewPart(name, ref, ACTOR_PURPOSE, None)

    def further(self, raw: dict[str, Any]) -> tuple[NewPart, ...]:
        items = raw.get("parts")
        if items is None:
            return ()
        if not isinstance(items, list):
            self.fault("/parts", "must be an array")
            return ()
        # Subject, actor, nonpersonal and stream name may need a part each.
        if len(items) > PARTS - 4:
            self.fault("/parts", f"must hold at most {PARTS - 4} parts")
            return ()
        return tuple(part for number, item in enumerate(items) if (part := self.further_part(item, f"/parts/{number}")))

    def further_part(self, raw: object, where: str) -> NewPart | None:
        if not isinstance(raw, dict):
            self.fault(where, "must be a JSON object")
            return None
        self.unknown_fields(where, raw, _PART_FIELDS)
        if raw.get("subject") is None and raw.get("subject_ref") is None:
            self.fault(f"{where}/subject", "is required")
        name, ref = self.who(raw, where, "subject", "subject_ref")
        return NewPart(name, ref, self.purpose(raw, f"{where}/purpose"), self.data(raw, "data", f"{where}/data"))

    def data(self, raw: dict[str, Any], field: str, where: str) -> JsonObject | None:
        value = raw.get(field)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.fault(where, "must be a JSON object")
            return None
        for fault in value_faults(value, where):
            self.fault(fault.pointer, fault.message)
        return value

    def event_type(self, raw: dict[str, Any]) -> str:
        value = raw.get("type")
        message = "is required" if value is None else word_fault(value)
        if message is None and value in (RESERVED_TYPES - PROCESS_TYPES if self.by_process else RESERVED_TYPES):
            message = "this type is reserved for the ledger's own events"
        if message is not None:
            self.fault("/type", message)
        return str(value)

    def schema_version(self, raw: dict[str, Any]) -> int:
        return self.whole_number(raw["schema_version"], "/schema_version", 1, LARGEST_SCHEMA_VERSION)

    def expected_version(self, raw: dict[str, Any]) -> ExpectedVersion:
        value = raw["expected_version"]
        if isinstance(value, str):
            if value == "exists":
                return "exists"
            if value == "any":
                return "any"
            self.fault("/expected_version", "must be 'any', 'exists' or a version")
            return "any"
        return self.whole_number(value, "/expected_version", 0, LARGEST_VERSION)

    def whole_number(self, value: object, where: str, smallest: int, largest: int) -> int:
        # bool is an int to Python, not to JSON.
        if not isinstance(value, int) or isinstance(value, bool) or not smallest <= value <= largest:
            self.fault(where, f"must be an integer from {smallest} to {largest}")
            return smallest
        return value

    def optional_id(
        self, raw: dict[str, Any], field: str, fault_of: Callable[[UUID], str | None] = client_id_fault
    ) -> UUID | None:
        given = raw.get(field)
        if given is None:
            return None
        value = parse_uuid(given)
        message = "must be a UUID in its canonical form" if value is None else fault_of(value)
        if message is not None:
            self.fault(f"/{field}", message)
        return value

    def time(self, raw: dict[str, Any], field: str) -> int | None:
        if raw.get(field) is None:
            return None
        value = times.parse_time(raw[field])
        if value is None:
            self.fault(f"/{field}", times.FORM)
        return value
