"""Refs and keys for appends that are prepared together: one way to the key vault for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from ledger.domain.sequence import check_versions
from ledger.ports import Reservation
from ledger.services.appending.attempt import Attempt, failing_alone, still_open
from ledger.services.appending.preparation import OvertakenError, expectations
from ledger.services.dependencies import Dependencies
from ledger.services.marking import require_fitting_vault


def reserve_all(deps: Dependencies, ledger_id: UUID, attempts: Sequence[Attempt]) -> Reservation:
    """What these attempts need. Those that turn out to have no use for it have their errors afterwards."""
    reservation = _ask(deps, ledger_id, attempts, mint=False)
    if not reservation.complete:
        require_fitting_vault(deps, ledger_id)
        _refuse_the_hopeless(deps, ledger_id, attempts, reservation)
        _let_owners_go_first(attempts, reservation)
        reservation = _ask(deps, ledger_id, still_open(attempts), mint=True)
    _give_up_strays(deps, ledger_id, still_open(attempts), reservation)
    return reservation


def _ask(deps: Dependencies, ledger_id: UUID, attempts: Sequence[Attempt], *, mint: bool) -> Reservation:
    owners: dict[str, str | None] = {}
    keys: set[tuple[str, str]] = set()
    for attempt in attempts:
        for stream, owner in attempt.claims.items():
            owners.setdefault(stream, owner)
        for candidate in attempt.candidates:
            parts = candidate.event.personal
            keys.update((part.subject, part.purpose) for _, part in parts if part.subject is not None)
    return deps.vault.reserve(ledger_id, owners, keys, mint=mint)


def _refuse_the_hopeless(
    deps: Dependencies, ledger_id: UUID, attempts: Sequence[Attempt], reservation: Reservation
) -> None:
    """Nothing is minted for a repeat (I4), nor for an append that is bound to fail on its expected versions."""
    known = deps.store.find_events(ledger_id, [event_id for attempt in attempts for event_id in attempt.ids])
    refs = {name: entry.ref for name, entry in reservation.streams.items()}
    versions = deps.store.versions(ledger_id, refs.values()) if refs else {}
    for attempt in attempts:
        with failing_alone(attempt):
            if known and not known.keys().isdisjoint(attempt.ids):
                raise OvertakenError
            # A stream that the index does not know has no event; its name stands in for the ref that it has not got.
            of_each = (refs.get(candidate.stream, candidate.stream.encode()) for candidate in attempt.candidates)
            check_versions(expectations(attempt.candidates, of_each), versions)


def _let_owners_go_first(attempts: Sequence[Attempt], reservation: Reservation) -> None:
    """Of attempts that would begin one stream for different owners, one gets to; the others come again when it has."""
    beginning: dict[str, str | None] = {}
    for attempt in still_open(attempts):
        claims = {name: owner for name, owner in attempt.claims.items() if name not in reservation.streams}
        if any(beginning.get(name, owner) != owner for name, owner in claims.items()):
            attempt.error = OvertakenError()
        else:
            beginning.update(claims)


def _give_up_strays(deps: Dependencies, ledger_id: UUID, attempts: Sequence[Attempt], reservation: Reservation) -> None:
    """Abandon refs that were reserved for another owner by an append that never came to be.

    The owner of a stream is the subject of its *first event*, but a ref gets its owner when it is reserved. If that
    append failed or died, the next writer's subject owns the stream, so it needs another ref. Under the head lock it is
    certain that the old ref has no event, and the mark left there stops the other writer if it is still on its way.
    See docs/adr/0002-abandoned-stream-refs.md.
    """
    fits: set[str] = set()
    strays: set[str] = set()
    for attempt in attempts:
        for name, owner in attempt.claims.items():
            if name in reservation.streams:
                (fits if _is_owner(reservation, name, owner) else strays).add(name)
    refs = {name: reservation.streams[name].ref for name in strays}
    begun = deps.store.versions(ledger_id, refs.values()) if refs else {}
    never_begun = {name: ref for name, ref in refs.items() if ref not in begun}
    for name in never_begun.keys() - fits:
        # Of the others, somebody who is here with its owner is about to begin it.
        _abandon(deps, ledger_id, name, never_begun[name])
    for attempt in attempts if never_begun else ():
        claims = attempt.claims.items()
        if any(name in never_begun and not _is_owner(reservation, name, owner) for name, owner in claims):
            attempt.error = OvertakenError()


def _is_owner(reservation: Reservation, stream: str, owner: str | None) -> bool:
    return reservation.streams[stream].owner_ref == (reservation.subjects.get(owner) if owner is not None else None)


def _abandon(deps: Dependencies, ledger_id: UUID, name: str, ref: bytes) -> None:
    with deps.store.locked_head(ledger_id) as lock:
        begun = bool(lock.versions([ref]))
        if not begun and not lock.abandoned([ref]):
            lock.abandon(ref)
    if not begun:
        deps.vault.replace_stream(ledger_id, name, ref)
