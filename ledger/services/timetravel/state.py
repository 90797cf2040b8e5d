"""The state of a stream at a moment, on both time axes."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from ledger.domain.fold import MERGE_PATCH, Fold, Folded
from ledger.domain.query import AsOf, Moment, NameOrRef
from ledger.services.dependencies import Dependencies
from ledger.services.moments import resolve_as_of
from ledger.services.read import find_stream
from ledger.services.timetravel.folding import fold_occurred, fold_recorded


@dataclass(frozen=True, slots=True)
class StateAsOf:
    """The state of one stream, and the moment that ``as_of`` resolved to."""

    as_of: Moment
    stream_ref: bytes
    state: Folded


def stream_state(
    deps: Dependencies,
    ledger_id: UUID,
    stream: NameOrRef,
    as_of: AsOf | None = None,
    occurred_as_of: int | None = None,
    fold: Fold = MERGE_PATCH,
) -> StateAsOf:
    """What was known at ``as_of`` of how the stream stood, or had stood at ``occurred_as_of`` (microseconds).

    Without ``occurred_as_of`` events count in the order of their versions; with it those that had occurred by then, in
    the order in which they occurred. Raises ``NotFoundError`` for an unknown stream, ``InvalidError`` for the future.
    """
    moment = resolve_as_of(deps, ledger_id, as_of)
    ref, _ = find_stream(deps, ledger_id, stream)
    if occurred_as_of is None:
        return StateAsOf(moment, ref, fold_stream(deps, ledger_id, ref, moment.position, fold))
    folded = fold_occurred(deps, ledger_id, [ref], moment.position, occurred_as_of, fold)
    return StateAsOf(moment, ref, folded[ref])


def fold_stream(
    deps: Dependencies, ledger_id: UUID, stream_ref: bytes, position: int, fold: Fold = MERGE_PATCH
) -> Folded:
    """What the events of a stream up to a position amount to; version 0 when there is none."""
    return fold_recorded(deps, ledger_id, [stream_ref], position, fold)[stream_ref]
