"""Fold streams, from their nearest snapshots on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from uuid import UUID

from ledger.domain.events import OpenedEvent, Role
from ledger.domain.fold import NOTHING, Fold, Folded, Folding
from ledger.domain.snapshot import is_due
from ledger.errors import StoreUnavailableError
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.current import open_current
from ledger.services.timetravel import snapshots
from ledger.services.timetravel.reading import occurrences, read_in_order, read_onward


def fold_recorded(
    deps: Dependencies, ledger_id: UUID, stream_refs: Collection[bytes], position: int, fold: Fold
) -> dict[bytes, Folded]:
    """Each stream as its events up to ``position`` make it, in order of versions.

    Keeps, of each stream, the last snapshot that was due on the way and not there yet.
    """
    due: dict[bytes, Folded] = {}

    def note(ref: bytes, folded: Folded) -> None:
        due[ref] = folded

    folded = fold_onward(deps, ledger_id, stream_refs, position, fold, note)
    # A snapshot only saves time: a read does not fail for it when the database takes no writes (a full disk, say).
    with suppress(StoreUnavailableError):
        snapshots.keep(deps, ledger_id, fold, due.items())
    return folded


def fold_onward(
    deps: Dependencies,
    ledger_id: UUID,
    stream_refs: Collection[bytes],
    position: int,
    fold: Fold,
    passed: Callable[[bytes, Folded], None],
    between_pieces: Callable[[], None] = lambda: None,
) -> dict[bytes, Folded]:
    """The same, and keeps nothing: ``passed`` is called with every stream and state of which a snapshot is due."""
    starts = snapshots.nearest(deps, ledger_id, stream_refs, position, fold)
    foldings = {ref: Folding(fold, starts.get(ref, NOTHING)) for ref in stream_refs}
    behind = {ref: folding.stream_version for ref, folding in foldings.items()}
    for rows in read_onward(deps, ledger_id, behind, position):
        for event in open_current(deps, ledger_id, rows, fold.roles):
            ref = event.recorded.envelope.stream_ref
            foldings[ref].add(event)
            if is_due(event.recorded.stream_version):
                passed(ref, foldings[ref].result())
        between_pieces()
    return {ref: folding.result() for ref, folding in foldings.items()}


def fold_occurred(
    deps: Dependencies,
    ledger_id: UUID,
    stream_refs: Collection[bytes],
    position: int,
    occurred_as_of: int,
    fold: Fold,
) -> dict[bytes, Folded]:
    """Each stream as those of its events up to ``position`` make it that had occurred by ``occurred_as_of``, in the
    order in which they occurred.

    Reads all of them: a snapshot of the events that had occurred by then would be wrong after one that comes late.
    """
    foldings = {ref: Folding(fold) for ref in stream_refs}
    found = occurrences(deps, ledger_id, stream_refs, position, occurred_as_of)
    for events in open_in_order(deps, ledger_id, [event.position for event in found], fold.roles):
        for event in events:
            foldings[event.recorded.envelope.stream_ref].add(event)
    return {ref: folding.result() for ref, folding in foldings.items()}


def open_in_order(
    deps: Dependencies, ledger_id: UUID, positions: Sequence[int], roles: Collection[Role]
) -> Iterator[Sequence[OpenedEvent]]:
    """The events at these positions, in this order, and of each the parts in these roles."""
    for rows in read_in_order(deps, ledger_id, positions):
        yield open_current(deps, ledger_id, rows, roles)
