"""New events against the catalogue of their ledger: what is registered is checked, a strict ledger takes nothing else.

Looks at what is sent: a type that is registered while an append is on its way does not hold for it yet. Repeats never
come here (I4): what was right when it was recorded stays recorded.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from ledger.domain.catalogue import EventType
from ledger.domain.events import NewEvent
from ledger.domain.names import RESERVED_TYPES
from ledger.errors import Fault, InvalidError
from ledger.ports import CatalogueMark
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.rules import Rules, policy_of, rules_of

REPORTED_FAULTS: Final = 100
"""Faults of one batch that are told in full; of the events behind them there is one for each that is wrong."""


def admit_events(
    deps: Dependencies,
    ledger_id: UUID,
    mark: CatalogueMark,
    events: Sequence[NewEvent],
    *,
    without_data: Collection[int] = (),
) -> Sequence[NewEvent]:
    """Check events against the catalogue as it is at ``mark``; gives them back, those marked that end their streams.

    ``without_data``: events (by index) whose data is left out because it is erased, and is not checked. Data that is
    merely absent counts as an empty object. Raises ``InvalidError`` with the faults of all events.
    """
    strict = policy_of(mark).strict_types
    if not mark.types and not strict:
        return events
    rules = rules_of(deps, ledger_id, mark)
    admitted: list[NewEvent] = []
    faults: list[Fault] = []
    for index, event in enumerate(events):
        if event.event_type in RESERVED_TYPES:
            # Only the service itself gets this far with one.
            admitted.append(event)
            continue
        registered = rules.registered(event.event_type, event.schema_version)
        found = _faults(rules, event, registered, strict=strict, with_data=index not in without_data)
        if found:
            del found[REPORTED_FAULTS if len(faults) < REPORTED_FAULTS else 1 :]
            faults.extend(replace(fault, pointer=event.pointer + fault.pointer, index=index) for fault in found)
        closes = registered is not None and registered.closes_stream
        admitted.append(replace(event, closes_stream=True) if closes else event)
    if faults:
        raise InvalidError("an event is not what the catalogue says of its type; nothing was recorded", faults)
    return admitted


def _faults(
    rules: Rules, event: NewEvent, registered: EventType | None, *, strict: bool, with_data: bool
) -> list[Fault]:
    if registered is None:
        versions = rules.catalogue.types.get(event.event_type)
        if versions:
            message = f"must be a registered version of this type: 1 to {versions[-1].version}"
            return [Fault("/schema_version", message)]
        message = "is not registered, and this ledger takes registered types only (its policy: strict_types)"
        return [Fault("/type", message)] if strict else []
    faults = []
    schema = rules.data_schema(registered)
    if schema is not None and with_data:
        faults += schema.faults((event.subject.data if event.subject is not None else None) or {}, "/data")
    schema = rules.nonpersonal_schema(registered)
    if schema is not None:
        faults += schema.faults(event.nonpersonal or {}, "/nonpersonal")
    return faults
