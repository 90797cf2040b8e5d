"""Make one document from its own events: when it cannot be opened, or shows less than can be read now."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from ledger.domain.events import PERSONAL_ROLES, OpenedEvent, RecordedEvent
from ledger.domain.partition import BY_SUBJECT, claimed
from ledger.domain.projection import DocumentFold, Projection
from ledger.domain.query import EventFilter, KeyCondition
from ledger.errors import IntegrityError
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.current import open_current
from ledger.services.read import find_filter, place_of

FIRST_PAGE: Final = 100
PAGE_EVENTS: Final = 500
"""Events that are in memory at a time, at most; keys are looked at anew for each page (I7)."""
PAGE_BYTES: Final = 8 * 2**20
"""Sealed bytes that a page aims at, so that large events make small pages."""


class FoldFailedError(Exception):
    """A projection's ``apply`` raised. ``error``: the class of what it raised, and nothing that it said (I5).
    ``position``: of the event that it failed on."""

    def __init__(self, error: str, position: int) -> None:
        super().__init__(f"{error} at position {position}")
        self.error = error
        self.position = position


class LostKeyError(FoldFailedError):
    """Whose document an event goes into cannot be told: the vault knows a key of it no more, and no erasure says why.
    An older vault may have been put in place, so the event is waited at, not passed."""

    def __init__(self, position: int) -> None:
        super().__init__(IntegrityError.__name__, position)


def make_document(
    deps: Dependencies,
    ledger_id: UUID,
    projection: Projection,
    key: bytes,
    position: int,
    known_keys: Collection[bytes] = (),
    between_pages: Callable[[], None] = lambda: None,
) -> DocumentFold | None:
    """The document of a key after the event at ``position``, from its own events; None when it has none.

    ``known_keys``: those that went into it before. Of one that the vault has lost since, it shows that something is
    hidden (I9), and not that there is less. Raises ``FoldFailedError``, and ``ValueError`` for a key that no document
    can have.
    """
    fold = DocumentFold()
    if position < 0:
        return None
    which = find_filter(deps, ledger_id, projection.query(key, position))
    by_subject = projection.partition is BY_SUBJECT
    if by_subject and known_keys:
        which = _with_keys(which, position, known_keys)
    for rows in read_pages(deps, ledger_id, which) if which is not None else ():
        for event in open_current(deps, ledger_id, rows, projection.roles):
            whole = claimed(event, projection.roles, key, known_keys) if by_subject else event
            for shared, seen in projection.shares(whole):
                if shared == key:
                    fold.take(projection, seen, applied(projection, fold, seen))
        between_pages()
    return fold if fold.events else None


def _with_keys(which: EventFilter | None, position: int, key_ids: Collection[bytes]) -> EventFilter:
    """The events of a person under the keys that the vault names, and under these."""
    named = which.keys[0].key_ids if which is not None else ()
    keys = (KeyCondition(PERSONAL_ROLES, tuple(dict.fromkeys([*named, *key_ids]))),)
    return replace(which, keys=keys) if which is not None else EventFilter(0, position, keys=keys)


def applied(projection: Projection, fold: DocumentFold, event: OpenedEvent) -> dict[str, object]:
    """What ``apply`` makes of a document and an event. Raises ``FoldFailedError``."""
    try:
        document = projection.apply(fold.document, event)
    except Exception as error:  # noqa: BLE001 - code of others: whatever it raises stops its projection and nothing else
        raise FoldFailedError(type(error).__name__, event.recorded.position) from None
    if not isinstance(document, dict):
        raise FoldFailedError(TypeError.__name__, event.recorded.position)
    return document


def read_pages(
    deps: Dependencies, ledger_id: UUID, which: EventFilter, most: int | None = None
) -> Iterator[Sequence[RecordedEvent]]:
    """The events that match, at most ``most``, in pages that are the smaller the larger the events are."""
    place, limit = None, FIRST_PAGE
    while most is None or most > 0:
        limit = limit if most is None else min(limit, most)
        rows = deps.store.select_events(ledger_id, which, place, limit)
        if rows:
            yield rows
        if len(rows) < limit:
            return
        place = place_of(rows[-1], which)
        most = None if most is None else most - len(rows)
        limit = max(1, min(PAGE_EVENTS, PAGE_BYTES * len(rows) // max(sealed_bytes(rows), 1)))


def sealed_bytes(rows: Sequence[RecordedEvent]) -> int:
    """The size of these events' parts."""
    return sum(len(part.sealed) for row in rows for part in row.parts)
