"""Run projections: read the log behind the cursor, fold, and write documents and cursor in one transaction.

A process can die at any point of a step and nothing is half there: what a step has read is read again by the next. Of
two that run the same generation at once, one writes; the other's cursor is not where it left it, so it changes nothing.

An erasure needs no help to hold: a document with a dead key does not open, and whoever reads it gets it made anew. The
runner makes such documents again all the same when it comes to the ``SubjectErased``, so that reading stays cheap.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.events import RecordedEvent, Role
from ledger.domain.names import LEDGER_CATEGORY, SUBJECT_ERASED
from ledger.domain.partition import BY_STREAM, BY_SUBJECT, has_unknown_person
from ledger.domain.projection import DocumentFold, Projection
from ledger.domain.query import EventFilter
from ledger.errors import LeaseLostError
from ledger.ports import Cursor, ReadModelRow
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.current import open_current
from ledger.services.projecting.generations import begin
from ledger.services.projecting.rebuilding import (
    PAGE_BYTES,
    FoldFailedError,
    LostKeyError,
    applied,
    make_document,
    read_pages,
    sealed_bytes,
)
from ledger.services.projecting.stored import held_keys_changed, open_rows, seal_folds

LEASE: Final = 5_000_000
"""Microseconds for which a runner keeps others away; every commit begins it anew."""
BATCH_EVENTS: Final = 500
"""Events of one step, at most."""
WINDOW: Final = 20_000
"""Positions that one step looks through, at most: a projection that is told of few events must not read on and on."""
ERASURES_AT_ONCE: Final = 8
"""Erasures whose keys one step looks after, at most: each can have 64."""
REMADE_AT_ONCE: Final = 50
"""Documents that one step makes again because of an erasure, at most."""
DROPPED_AT_ONCE: Final = 500
"""Documents of a retired generation that one step deletes, at most."""
LOST_KEY_WAIT: Final = 10_000_000
"""Microseconds after which a runner looks again whether the vault knows a key."""
ATTEMPTS: Final = 4
"""How often a batch is folded again because a key died under it, before the next step tries."""


def step(deps: Dependencies, ledger_id: UUID, projections: Sequence[Projection], holder: UUID) -> bool:
    """Do one bounded piece of work for each of these projections; whether there was anything to do.

    ``holder``: who runs, a fresh id for each worker. A fold that raises stops its projection, visibly, and no other.
    Raises errors of dependencies only.
    """
    known = deps.derived.cursors.cursors(ledger_id, "projection")
    size = deps.store.head(ledger_id).size
    worked = False
    for projection in projections:
        own = [cursor for cursor in known if cursor.key.name == projection.name]
        for cursor in begin(deps, ledger_id, projection, own):
            if cursor.state == "retired":
                worked |= deps.derived.read_models.drop_documents(ledger_id, cursor.key, DROPPED_AT_ONCE) > 0
            # Another version of the program runs the generations of its own version, as long as there is one.
            elif cursor.state != "stopped" and cursor.version == projection.version:
                worked |= _Run(deps, ledger_id, projection, holder, cursor).advance(size)
    return worked


@dataclass(frozen=True, slots=True)
class _Batch:
    """Events that the projection is told of, the last position that was looked at, and the keys that die on the way."""

    events: Sequence[RecordedEvent]
    last: int
    dead: frozenset[bytes]

    def up_to(self, last: int) -> _Batch:
        return _Batch([event for event in self.events if event.position <= last], last, self.dead)


class _Run:
    """One step of one generation."""

    def __init__(
        self, deps: Dependencies, ledger_id: UUID, projection: Projection, holder: UUID, cursor: Cursor
    ) -> None:
        self._deps = deps
        self._ledger_id = ledger_id
        self._projection = projection
        self._holder = holder
        self._cursor = cursor
        self._position = cursor.position
        self._lease_until = cursor.lease_until

    def advance(self, size: int) -> bool:
        """Go on; whether there was anything to do. ``size``: of the ledger, when the step began."""
        behind = self._position < size - 1
        if not behind and self._cursor.state == "running":
            return False
        try:
            if not self._take():
                return False
            if self._position < size - 1:
                self._work(size - 1)
            if self._cursor.state == "building" and self._position >= size - 1:
                self._take_over()
        except LeaseLostError:
            # Slower than the lease: another has taken over, and nothing of this step was written.
            return False
        return True

    def _take(self) -> bool:
        now = self._deps.clock()
        if self._cursor.holder == self._holder and self._lease_until > now + LEASE // 2:
            # Ours for long enough. If it is not any more, the commit says so.
            return True
        cursor = self._deps.derived.cursors.take_cursor(
            self._ledger_id, self._cursor.key, self._holder, now, now + LEASE
        )
        if cursor is None:
            return False
        self._cursor, self._position, self._lease_until = cursor, cursor.position, cursor.lease_until
        return True

    def _take_over(self) -> None:
        key = self._cursor.key
        self._deps.derived.read_models.take_over(self._ledger_id, key.name, key.number, self._holder)

    def _work(self, last: int) -> None:
        batch = self._read(last)
        failed: FoldFailedError | None = None
        try:
            if self._remake(batch.dead):
                return
            while batch.last > self._position:
                try:
                    self._fold(batch)
                    break
                except FoldFailedError as error:
                    if error.position <= self._position:
                        raise
                    # What comes before the event that it fails on is done, so that the cursor points at it.
                    failed, batch = error, batch.up_to(error.position - 1)
        except FoldFailedError as error:
            failed = error
        if failed is not None:
            self._stop(failed)

    def _stop(self, failed: FoldFailedError) -> None:
        """A fold that fails stops; what only the vault can mend is tried again."""
        stop = not isinstance(failed, LostKeyError)
        self._deps.derived.cursors.note_failure(
            self._ledger_id,
            self._cursor.key,
            self._holder,
            self._position,
            failed.error,
            retry_at=0 if stop else self._deps.clock() + LOST_KEY_WAIT,
            stop=stop,
        )

    def _read(self, last: int) -> _Batch:
        """The next events, bounded in number and bytes."""
        first, last = self._position + 1, min(last, self._position + WINDOW)
        events: list[RecordedEvent] = []
        size = 0
        which = EventFilter(first, last, category=self._projection.category, types=self._projection.types)
        for page in read_pages(self._deps, self._ledger_id, which, BATCH_EVENTS):
            events += page
            size += sealed_bytes(page)
            if len(events) >= BATCH_EVENTS or size >= PAGE_BYTES:
                last = events[-1].position
                break
        if self._projection.in_clear:
            return _Batch(events, last, frozenset())
        # Whatever the projection is told of.
        which = EventFilter(first, last, category=LEDGER_CATEGORY, types=(SUBJECT_ERASED,))
        erasures = self._deps.store.select_events(self._ledger_id, which, None, ERASURES_AT_ONCE)
        if len(erasures) == ERASURES_AT_ONCE:
            last = erasures[-1].position
        dead = (part.key_id for event in erasures for part in event.parts if part.role is Role.SHREDDED)
        return _Batch(events, last, frozenset(dead)).up_to(last)

    def _remake(self, dead: Collection[bytes]) -> bool:
        """Make some of the documents again into which a dead key went; False when there are none (any more).

        The cursor stays before the erasures until no such document is left, so a runner that dies in between leaves
        nothing out. What it has done it does not do again: those documents have the key no longer.
        """
        keys = self._documents_under(dead)
        if not keys:
            return False
        rows = self._deps.derived.read_models.documents(self._ledger_id, self._cursor.key, keys)
        for _ in range(ATTEMPTS):
            folds = {key: self._made_again(key, row) for key, row in rows.items()}
            if self._commit(folds, self._position):
                break
        return True

    def _documents_under(self, dead: Collection[bytes]) -> Sequence[bytes]:
        if not dead:
            return ()
        models, key = self._deps.derived.read_models, self._cursor.key
        if self._projection.partition is not BY_SUBJECT:
            by_stream = self._projection.partition is BY_STREAM
            return models.documents_under(self._ledger_id, key, dead, REMADE_AT_ONCE, by_stream=by_stream)
        views = self._deps.vault.look_up_keys(self._ledger_id, dead)
        refs = {view.subject_ref for view in views.values() if view.subject_ref is not None}
        rows = models.documents(self._ledger_id, key, refs)
        return [ref for ref, row in rows.items() if not set(dead).isdisjoint(row.key_ids)][:REMADE_AT_ONCE]

    def _made_again(self, key: bytes, row: ReadModelRow) -> DocumentFold:
        if self._projection.partition is BY_SUBJECT and self._is_lost(row.key_ids):
            # Only the row that is there still names the key, and with it the events that would be left out.
            raise LostKeyError(self._position + 1)
        made = make_document(
            self._deps,
            self._ledger_id,
            self._projection,
            key,
            self._position,
            known_keys=row.key_ids,
            between_pages=self._keep_lease,
        )
        # Of a document whose events are not to be found any more (somebody's hand) nothing is left but its place.
        return made or DocumentFold(row.bucket, row.position, row.leaf_hash)

    def _is_lost(self, key_ids: Collection[bytes]) -> bool:
        """Whether one of these is neither known to the vault nor shredded by the log."""
        missing = set(key_ids) - self._deps.vault.look_up_keys(self._ledger_id, key_ids).keys()
        return bool(missing - self._deps.store.shreddings(self._ledger_id, missing).keys())

    def _fold(self, batch: _Batch) -> None:
        for _ in range(ATTEMPTS):
            opened = open_current(self._deps, self._ledger_id, batch.events, self._projection.roles)
            shares = [self._projection.shares(event) for event in opened]
            folds = self._load({key for shared in shares for key, _ in shared})
            for event, shared in zip(opened, shares, strict=True):
                if self._projection.partition is BY_SUBJECT and has_unknown_person(event, self._projection.roles):
                    raise LostKeyError(event.recorded.position)
                # All documents of an event or none: it may be the one to stop before.
                documents = [(key, seen, applied(self._projection, folds[key], seen)) for key, seen in shared]
                for key, seen, document in documents:
                    folds[key].take(self._projection, seen, document)
            if self._commit(folds, batch.last):
                return

    def _load(self, keys: Collection[bytes]) -> dict[bytes, DocumentFold]:
        """The documents that go on, as they are behind the cursor."""
        rows = self._deps.derived.read_models.documents(self._ledger_id, self._cursor.key, keys)
        opened = open_rows(self._deps, self._ledger_id, self._projection, self._cursor.version, list(rows.values()))
        changed = held_keys_changed(
            self._deps, self._ledger_id, [fold for fold in opened.values() if fold is not None and fold.held]
        )
        folds = {key: DocumentFold() for key in keys if key not in rows}
        for key, fold in opened.items():
            usable = fold is not None and changed.isdisjoint(fold.held)
            folds[key] = fold if fold is not None and usable else self._made_again(key, rows[key])
        return folds

    def _commit(self, folds: Mapping[bytes, DocumentFold], new: int) -> bool:
        """Write documents and cursor; False when a key of one has died since it was used."""
        rows = seal_folds(self._deps, self._ledger_id, self._projection, folds)
        if rows is None:
            return False
        now = self._deps.clock()
        self._deps.derived.read_models.commit_documents(
            self._ledger_id, self._cursor.key, self._holder, self._position, new, now, now + LEASE, rows
        )
        self._position, self._lease_until = new, now + LEASE
        return True

    def _keep_lease(self) -> None:
        """A document of very many events takes longer than a lease."""
        now = self._deps.clock()
        if now > self._lease_until - LEASE // 2:
            self._deps.derived.cursors.move_cursor(
                self._ledger_id, self._cursor.key, self._holder, self._position, self._position, now, now + LEASE
            )
            self._lease_until = now + LEASE
