"""What changed between two moments, and by which event."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from ledger.domain.cursors import other_question
from ledger.domain.difference import AttributedChange, Comparison
from ledger.domain.events import Role
from ledger.domain.fold import MERGE_PATCH, Fold, Folded
from ledger.domain.pages import DiffPlace, decode_page, encode_page
from ledger.domain.query import DEFAULT_LIMIT, AsOf, Moment, NameOrRef
from ledger.errors import Fault, InvalidError
from ledger.ports import Between
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.current import open_current
from ledger.services.moments import resolve_as_of
from ledger.services.read import find_stream
from ledger.services.timetravel.folding import fold_recorded, open_in_order
from ledger.services.timetravel.paging import fill_page, json_size, pinned_moment
from ledger.services.timetravel.reading import occurrences, read_onward


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Between which moments. ``new_as_of`` None: now. The two occurred times (microseconds) come together or not at
    all: without them events count in the order of their versions."""

    old_as_of: AsOf
    new_as_of: AsOf | None = None
    old_occurred_as_of: int | None = None
    new_occurred_as_of: int | None = None


@dataclass(frozen=True, slots=True)
class StreamDiff:
    """What changed in one stream. What ``old`` or ``new`` says is hidden may have changed more."""

    stream_ref: bytes
    old: Folded
    new: Folded
    changes: Sequence[AttributedChange]


@dataclass(frozen=True, slots=True)
class DiffPage:
    """One page, in order of stream refs: every stream with events in between, whether or not they changed its state.
    ``next`` is the cursor of the next page; None at the end."""

    old: Moment
    new: Moment
    streams: Sequence[StreamDiff]
    next: str | None


def diff_stream(
    deps: Dependencies, ledger_id: UUID, stream: NameOrRef, moments: Moments, fold: Fold = MERGE_PATCH
) -> DiffPage:
    """What changed in one stream. Raises ``NotFoundError``, and ``InvalidError`` for moments that are not in order."""
    place = _pin(deps, ledger_id, moments)
    ref, _ = find_stream(deps, ledger_id, stream)
    return _page(deps, ledger_id, place, [ref], 1, fold)


def diff_category(
    deps: Dependencies,
    ledger_id: UUID,
    category: str | None = None,
    moments: Moments | None = None,
    *,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
    fold: Fold = MERGE_PATCH,
) -> DiffPage:
    """What changed in the streams of a category, ``limit`` streams a page, or fewer of large ones (``PAGE_BYTES``).

    Needs a category and moments, or a cursor; beside a cursor they must be the question that it came from. Raises
    ``InvalidError``.
    """
    place = _place(deps, ledger_id, category, moments, cursor)
    between = Between(
        first=place.old, last=place.as_of, first_occurred=place.old_occurred, last_occurred=place.new_occurred
    )
    category = place.category or ""
    found = deps.store.changed_streams(ledger_id, category, between, place.after_ref, limit + 1)
    return _page(deps, ledger_id, place, found, limit, fold)


def _place(
    deps: Dependencies, ledger_id: UUID, category: str | None, moments: Moments | None, cursor: str | None
) -> DiffPlace:
    if cursor is None:
        if category is None or moments is None:
            raise InvalidError("what is to be compared?", [Fault("/category", "is required, or a cursor")])
        return replace(_pin(deps, ledger_id, moments), category=category)
    place = decode_page(ledger_id, DiffPlace, cursor)
    if moments is None and category is None:
        return place
    if moments is None or category != place.category:
        raise other_question()
    asked = _pin(deps, ledger_id, moments)
    # A moment that is left out is now, and now was another one when the cursor was given.
    same_now = moments.new_as_of is None or asked.as_of == place.as_of
    if replace(asked, category=category, as_of=place.as_of) != replace(place, after_ref=None) or not same_now:
        raise other_question()
    return place


def _pin(deps: Dependencies, ledger_id: UUID, moments: Moments) -> DiffPlace:
    old = resolve_as_of(deps, ledger_id, moments.old_as_of, "/old_as_of")
    new = resolve_as_of(deps, ledger_id, moments.new_as_of, "/new_as_of")
    if old.position > new.position:
        raise _not_in_order(Fault("/old_as_of", "must not be after new_as_of"))
    old_occurred, new_occurred = moments.old_occurred_as_of, moments.new_occurred_as_of
    if (old_occurred is None) != (new_occurred is None):
        field = "old_occurred_as_of" if old_occurred is None else "new_occurred_as_of"
        raise InvalidError("the occurred times come together", [Fault(f"/{field}", "is required beside the other")])
    if old_occurred is not None and new_occurred is not None and old_occurred > new_occurred:
        raise _not_in_order(Fault("/old_occurred_as_of", "must not be after new_occurred_as_of"))
    return DiffPlace(old=old.position, as_of=new.position, old_occurred=old_occurred, new_occurred=new_occurred)


def _not_in_order(fault: Fault) -> InvalidError:
    return InvalidError("the old moment comes after the new one", [fault])


def _page(
    deps: Dependencies, ledger_id: UUID, place: DiffPlace, found: Sequence[bytes], limit: int, fold: Fold
) -> DiffPage:
    """The page of the first of these streams; those that are ``found`` beyond it are how we know that there are
    more."""
    old, new = pinned_moment(deps, ledger_id, place.old), pinned_moment(deps, ledger_id, place.as_of)

    def compare_some(refs: Sequence[bytes]) -> Mapping[bytes, StreamDiff]:
        if place.old_occurred is None or place.new_occurred is None:
            compared = _compare_recorded(deps, ledger_id, refs, place, fold)
        else:
            compared = _compare_occurred(deps, ledger_id, refs, place, fold, place.old_occurred, place.new_occurred)
        return {ref: StreamDiff(ref, both.old, both.new, both.changes()) for ref, both in compared.items()}

    page = fill_page(found[:limit], compare_some, _size_of)
    more = len(page) < len(found)
    following = encode_page(ledger_id, replace(place, after_ref=list(page)[-1])) if more else None
    return DiffPage(old, new, list(page.values()), following)


def _size_of(diff: StreamDiff) -> int:
    """Of both states, though an answer has only what is different: the page holds them."""
    return json_size(diff.old.state) + json_size(diff.new.state)


def _compare_recorded(
    deps: Dependencies, ledger_id: UUID, refs: Collection[bytes], place: DiffPlace, fold: Fold
) -> dict[bytes, Comparison]:
    starts = fold_recorded(deps, ledger_id, refs, place.old, fold)
    compared = {ref: Comparison(fold, start) for ref, start in starts.items()}
    behind = {ref: start.stream_version for ref, start in starts.items()}
    for rows in read_onward(deps, ledger_id, behind, place.as_of):
        for event in open_current(deps, ledger_id, rows, fold.roles | {Role.ACTOR}):
            compared[event.recorded.envelope.stream_ref].add(event)
    return compared


def _compare_occurred(
    deps: Dependencies,
    ledger_id: UUID,
    refs: Collection[bytes],
    place: DiffPlace,
    fold: Fold,
    old_occurred: int,
    new_occurred: int,
) -> dict[bytes, Comparison]:
    """Both states are folded in one pass: what had occurred and was recorded by the old moments is part of the new
    state, too, and in the same order."""
    compared = {ref: Comparison(fold) for ref in refs}
    found = occurrences(deps, ledger_id, refs, place.as_of, new_occurred)
    both = {item.position for item in found if item.position <= place.old and item.occurred_at <= old_occurred}
    positions = [item.position for item in found]
    for events in open_in_order(deps, ledger_id, positions, fold.roles | {Role.ACTOR}):
        for event in events:
            comparison = compared[event.recorded.envelope.stream_ref]
            comparison.add(event, to_both=event.recorded.position in both)
    return compared
