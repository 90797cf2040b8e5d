"""What the tests of projections share: a plain fold of the log to compare read models with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from ledger.domain.events import OpenedEvent
from ledger.domain.projection import Projection
from ledger.domain.query import AsOf, EventQuery
from ledger.domain.state import merge_patch
from ledger.domain.times import format_time
from ledger.services.dependencies import Dependencies
from ledger.services.projecting.read_models import ReadDocument, list_documents
from ledger.services.projecting.runner import step
from ledger.services.projecting.shipped import SHIPPED
from ledger.services.read import export_events

HOLDER = UUID(int=1)
"""Who runs projections, unless a test says otherwise."""

Shown = tuple[dict[str, Any], bool]
"""A document, and whether it is complete."""


def run_all(
    deps: Dependencies,
    ledger_id: UUID,
    projections: Sequence[Projection] = tuple(SHIPPED.values()),
    holder: UUID = HOLDER,
) -> None:
    """Run projections until there is nothing left to do."""
    while step(deps, ledger_id, projections, holder):
        pass


def all_documents(deps: Dependencies, ledger_id: UUID, projection: Projection) -> list[ReadDocument]:
    """Every document, by pages."""
    documents: list[ReadDocument] = []
    cursor: str | None = None
    while True:
        answer = list_documents(deps, ledger_id, projection, None, cursor=cursor, limit=7)
        documents += answer.documents
        cursor = answer.next
        if cursor is None:
            return documents


def shown_of(deps: Dependencies, ledger_id: UUID, projection: Projection) -> dict[bytes, Shown]:
    """What readers see of a read model."""
    return {one.key: (one.document, one.complete) for one in all_documents(deps, ledger_id, projection)}


def position_of(deps: Dependencies, ledger_id: UUID, projection: Projection) -> int:
    """Where readers see the projection."""
    return list_documents(deps, ledger_id, projection, None, cursor=None, limit=1).cursor.position


def folded_log(deps: Dependencies, ledger_id: UUID, position: int) -> dict[str, dict[bytes, Shown]]:
    """What the shipped read models must show at a position: the log folded from its first event, in a plain loop that
    shares no line with the projections."""
    states: dict[bytes, Shown] = {}
    people: dict[bytes, Shown] = {}
    days: dict[bytes, Shown] = {}
    for event in _events_up_to(deps, ledger_id, position):
        hidden = {redaction.pointer for redaction in event.redactions}
        ref = event.recorded.envelope.stream_ref
        state, complete = states.get(ref, ({}, True))
        for patch in (event.nonpersonal, event.subject.data if event.subject else None):
            state = merge_patch(state, patch) if patch is not None else state
        states[ref] = (state, complete and not hidden & {"/data", "/nonpersonal"})
        for person, is_hidden in _people(event, hidden).items():
            before, complete = people.get(person, ({}, True))
            people[person] = (_counted(before, event, times=True), complete and not is_hidden)
        day = format_time(event.recorded.recorded_at)[:10].encode()
        days[day] = (_counted(days.get(day, ({}, True))[0], event, times=False), True)
    return {"current_state": states, "activity": people, "daily_counts": days}


def _events_up_to(deps: Dependencies, ledger_id: UUID, position: int) -> list[OpenedEvent]:
    if position < 0:
        return []
    query = EventQuery(as_of=AsOf(position=position))
    return [event for page in export_events(deps, ledger_id, query) for event in page]


def _people(event: OpenedEvent, hidden: set[str]) -> Mapping[bytes, bool]:
    """The people of an event, and whether something of them is hidden."""
    named = [("/data", event.subject), ("/actor", event.actor)]
    named += [(f"/parts/{number}", part) for number, part in enumerate(event.further)]
    people: dict[bytes, bool] = {}
    for pointer, part in named:
        if part is not None and part.subject_ref is not None:
            people[part.subject_ref] = people.get(part.subject_ref, False) or pointer in hidden
    return people


def _counted(before: dict[str, Any], event: OpenedEvent, *, times: bool) -> dict[str, Any]:
    event_type = event.recorded.envelope.event_type
    types = before.get("types", {})
    after: dict[str, Any] = {"types": {**types, event_type: types.get(event_type, 0) + 1}}
    if times:
        time = format_time(event.recorded.recorded_at)
        after |= {"first_recorded_at": before.get("first_recorded_at", time), "last_recorded_at": time}
    return after


def assert_is_the_fold_of_the_log(deps: Dependencies, ledger_id: UUID) -> None:
    """Every shipped read model shows what a fold of the log up to its position gives."""
    for name, projection in SHIPPED.items():
        position = position_of(deps, ledger_id, projection)
        assert folded_log(deps, ledger_id, position)[name] == shown_of(deps, ledger_id, projection)
