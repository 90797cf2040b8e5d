"""The states of many streams at one moment: a whole category, or every stream of a subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from ledger.domain.cursors import other_question
from ledger.domain.fold import MERGE_PATCH, Fold, Folded
from ledger.domain.pages import StatesPlace, decode_page, encode_page
from ledger.domain.query import DEFAULT_LIMIT, AsOf, EventQuery, Moment, NameOrRef
from ledger.errors import Fault, InvalidError
from ledger.services.dependencies import Dependencies
from ledger.services.moments import resolve_as_of
from ledger.services.read import pin_query
from ledger.services.timetravel.folding import fold_occurred, fold_recorded
from ledger.services.timetravel.paging import fill_page, json_size, pinned_moment


@dataclass(frozen=True, slots=True)
class StatesPage:
    """One page of states, in order of stream refs. ``next`` is the cursor of the next one; None at the end."""

    as_of: Moment
    states: Sequence[tuple[bytes, Folded]]
    next: str | None


def stream_states(
    deps: Dependencies,
    ledger_id: UUID,
    *,
    category: str | None = None,
    subject: NameOrRef | None = None,
    as_of: AsOf | None = None,
    occurred_as_of: int | None = None,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    fold: Fold = MERGE_PATCH,
) -> StatesPage:
    """The state of every stream of a category, or of every stream with an event whose main subject is ``subject``.

    A stream that had not begun at ``as_of`` is left out, and with ``occurred_as_of`` one of which nothing had occurred
    by then; and a page of large states ends with ``PAGE_BYTES``. So one can be shorter than ``limit``, or empty, and
    not be the last. With a cursor the question is what the cursor pins; one beside it must be the same. Costs a few
    statements and looks at the vault for dozens of streams, as long as they have not many events behind their
    snapshots. Raises ``InvalidError``.
    """
    place = _pin(deps, ledger_id, category, subject, as_of, occurred_as_of, cursor)
    if place is None:
        return StatesPage(resolve_as_of(deps, ledger_id, as_of), [], None)
    moment = pinned_moment(deps, ledger_id, place.as_of)
    found = _streams(deps, ledger_id, place, limit + 1)

    def fold_some(refs: Sequence[bytes]) -> Mapping[bytes, Folded]:
        if place.occurred is None:
            return fold_recorded(deps, ledger_id, refs, place.as_of, fold)
        return fold_occurred(deps, ledger_id, refs, place.as_of, place.occurred, fold)

    folded = fill_page(found[:limit], fold_some, lambda state: json_size(state.state))
    states = [(ref, state) for ref, state in folded.items() if state.stream_version]
    more = len(folded) < len(found)
    following = encode_page(ledger_id, replace(place, after_ref=list(folded)[-1])) if more else None
    return StatesPage(moment, states, following)


def _pin(
    deps: Dependencies,
    ledger_id: UUID,
    category: str | None,
    subject: NameOrRef | None,
    as_of: AsOf | None,
    occurred_as_of: int | None,
    cursor: str | None,
) -> StatesPlace | None:
    """Where to go on; None: nobody knows the subject."""
    if category is not None and subject is not None:
        raise InvalidError("one question at a time", [Fault("/subject", "must not stand beside 'category'")])
    asks = category is not None or subject is not None
    if not asks and cursor is None:
        raise InvalidError("which streams?", [Fault("/category", "is required, or 'subject', or a cursor")])
    if cursor is not None:
        place = decode_page(ledger_id, StatesPlace, cursor)
        if not asks and as_of is None and occurred_as_of is None:
            return place
        asked = _asked(deps, ledger_id, category, subject, occurred_as_of, place.as_of)
        same_moment = as_of is None or resolve_as_of(deps, ledger_id, as_of).position == place.as_of
        if asked != replace(place, after_ref=None) or not same_moment:
            raise other_question()
        return place
    return _asked(deps, ledger_id, category, subject, occurred_as_of, resolve_as_of(deps, ledger_id, as_of).position)


def _asked(
    deps: Dependencies,
    ledger_id: UUID,
    category: str | None,
    subject: NameOrRef | None,
    occurred_as_of: int | None,
    position: int,
) -> StatesPlace | None:
    subject_ref = None
    if subject is not None:
        subject_ref = pin_query(deps, ledger_id, EventQuery(subject=subject)).subject_ref
        if subject_ref is None:
            return None
    return StatesPlace(category=category, subject_ref=subject_ref, as_of=position, occurred=occurred_as_of)


def _streams(deps: Dependencies, ledger_id: UUID, place: StatesPlace, limit: int) -> Sequence[bytes]:
    if place.category is not None:
        return deps.store.streams_of_category(ledger_id, place.category, place.as_of, place.after_ref, limit)
    subject = deps.vault.subject(ledger_id, place.subject_ref) if place.subject_ref is not None else None
    if subject is None or not subject.key_ids:
        return []
    key_ids = [key_id for key_id, _ in subject.key_ids]
    return deps.store.streams_of_subject(ledger_id, key_ids, place.as_of, place.after_ref, limit)
