"""The state of a stream at a moment, on both time axes."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from ledger.domain.query import AsOf, EventQuery, Moment, NameOrRef
from ledger.domain.state import StateFold, StreamState
from ledger.services.dependencies import Dependencies
from ledger.services.moments import resolve_as_of
from ledger.services.read import export_events, find_stream


@dataclass(frozen=True, slots=True)
class StateAsOf:
    """The state of one stream, and the moment that ``as_of`` resolved to."""

    as_of: Moment
    stream_ref: bytes
    state: StreamState


def stream_state(
    deps: Dependencies, ledger_id: UUID, stream: NameOrRef, as_of: AsOf | None, occurred_as_of: int | None
) -> StateAsOf:
    """What was known at ``as_of`` of how the stream stood, or had stood at ``occurred_as_of`` (microseconds).

    Without ``occurred_as_of`` events count in the order of their versions; with it those that had occurred by then, in
    the order in which they occurred. Raises ``NotFoundError`` for an unknown stream, ``InvalidError`` for the future.
    """
    moment = resolve_as_of(deps, ledger_id, as_of)
    ref, _ = find_stream(deps, ledger_id, stream)
    query = EventQuery(
        stream=NameOrRef(None, ref),
        as_of=AsOf(position=moment.position) if moment.position >= 0 else None,
        occurred_to=occurred_as_of + 1 if occurred_as_of is not None else None,
        order_by="recorded" if occurred_as_of is None else "occurred",
    )
    fold = StateFold()
    if moment.position >= 0:
        for events in export_events(deps, ledger_id, query):
            fold.extend(events)
    return StateAsOf(moment, ref, fold.result())
