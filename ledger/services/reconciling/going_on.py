"""What is lost with an older copy, and going on without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain import names
from ledger.domain.events import OPERATOR
from ledger.domain.marks import Finding, VaultMark
from ledger.domain.query import EventFilter, Place
from ledger.domain.sequence import place_events
from ledger.ports import KeyUsage
from ledger.services.dependencies import Dependencies
from ledger.services.erase import record_again
from ledger.services.marking import noting_head
from ledger.services.opening import open_events
from ledger.services.own_events import seal_own_event
from ledger.services.reconciling.looking import last_leaf
from ledger.services.reconciling.mending import Mended

_PAGE: Final = 500
_MOST_MINTS: Final = 2**53


@dataclass(frozen=True, slots=True)
class LostKey:
    """A key that the vault does not have any more, and that nobody shredded. What is sealed under it cannot be read."""

    ledger_id: UUID
    key_id: bytes
    usage: KeyUsage


@dataclass(frozen=True, slots=True)
class LedgerLoss:
    """What is lost in one ledger. ``keys``: that the vault lacks. ``erasures``: that the ledger had lost, and has
    recorded again. ``streams``: whose names the vault has learnt again from their events."""

    keys: tuple[LostKey, ...] = ()
    erasures: int = 0
    streams: int = 0


NOTHING_LOST: Final = LedgerLoss()


def concerned(deps: Dependencies, found: Sequence[Finding], mended: Mended) -> list[UUID]:
    """The ledgers that what was found and done concerns. What is said of no ledger concerns all of them."""
    everywhere = bool(mended.epochs) or any(one.ledger_id is None for one in found)
    named = {one.ledger_id for one in found} | mended.ledgers
    return [ledger_id for ledger_id in sorted(deps.store.sizes()) if everywhere or ledger_id in named]


def lost_keys(deps: Dependencies, ledger_id: UUID) -> Iterator[LostKey]:
    """The keys that the vault lacks: of parts that were recorded since it last saw the ledger."""
    known = deps.guard.marks().ledgers.get(ledger_id)
    first = known.size if known is not None else 0
    after = None
    while used := deps.store.keys_used_since(ledger_id, first, after, _PAGE):
        key_ids = [key_id for key_id, _ in used]
        dead = deps.store.shreddings(ledger_id, key_ids)
        unknown = deps.guard.unknown_keys(ledger_id, [key_id for key_id in key_ids if key_id not in dead])
        yield from (LostKey(ledger_id, key_id, usage) for key_id, usage in used if key_id in unknown)
        after = key_ids[-1]


def lead_to_streams_again(deps: Dependencies, ledger_id: UUID) -> int:
    """Have the vault learn again the names of streams that began since it last saw the ledger, from their first events,
    as far as those can be read: else each would begin a second time. Gives how many."""
    known = deps.guard.marks().ledgers.get(ledger_id)
    if known is None:
        return 0  # the keys that would open them went with the ledger's own
    after: Place | None = None
    which = EventFilter(known.size, deps.store.head(ledger_id).size - 1)
    learnt = 0
    while events := deps.store.select_events(ledger_id, which, after, _PAGE):
        first = [event for event in events if event.stream_version == 1]
        streams = {
            opened.stream: (opened.recorded.envelope.stream_ref, opened.subject.subject_ref if opened.subject else None)
            for opened in open_events(deps, ledger_id, first, recording=True)
            if opened.stream is not None and opened.recorded.envelope.category != names.LEDGER_CATEGORY
        }
        learnt += deps.guard.adopt_streams(ledger_id, streams)
        after = Place(events[-1].position)
    return learnt


def record_erasures_again(deps: Dependencies, ledger_id: UUID) -> int:
    """Record what the vault has shredded and the ledger, which is older, does not know. Gives how many."""
    recorded, after = 0, None
    while entries := deps.vault.erasures(ledger_id, reference=None, done=True, after=after, limit=_PAGE):
        known = deps.store.find_events(ledger_id, [entry.erasure_id for entry in entries])
        for entry in entries:
            if entry.erasure_id not in known:
                record_again(deps, entry)
                recorded += 1
        after = entries[-1].erasure_id
    return recorded


def follow_new_journal(deps: Dependencies, line: int) -> None:
    """Let the ledgers remember the journal that was begun anew, and has this many lines."""
    for ledger_id in deps.store.sizes():
        with deps.store.locked_head(ledger_id) as lock:
            lock.remember(VaultMark(lock.head.vault.mints, min(lock.head.vault.journal, line)))


def go_on(deps: Dependencies) -> None:
    """From here on, what is there counts: vault and ledgers forget what they remembered of each other.

    For an operator who has seen what is lost, after :func:`mend`. Raises the vault's "journal" error for a journal that
    does not fit: that one is mended, or begun anew, first.
    """
    marks, states = deps.guard.marks(), deps.store.states()
    accepted: dict[UUID, tuple[int, int, bytes | None]] = {
        ledger_id: (0, 0, None) for ledger_id in marks.ledgers if ledger_id not in states
    }
    for ledger_id, state in states.items():
        known = marks.ledgers.get(ledger_id)
        if known is None:
            deps.vault.create_ledger(ledger_id)
        mints = known.mints if known is not None else 0
        if state.vault.mints < _MOST_MINTS:  # more than that, only a hand has put there
            mints = max(mints, state.vault.mints)
        accepted[ledger_id] = (mints, state.size, last_leaf(deps, ledger_id, state.size) if state.size else None)
    journal = deps.guard.accept(accepted)
    for ledger_id in accepted:
        if ledger_id in states:
            with deps.store.locked_head(ledger_id) as lock:
                lock.remember(VaultMark(deps.vault.mark(ledger_id).mints, journal.n))


def record_reconciliation(
    deps: Dependencies, ledger_id: UUID, findings: Sequence[Finding], mended: Mended, lost: LedgerLoss
) -> None:
    """Let the ledger say that it happened, with counts and nobody's name."""
    event_id = deps.new_id()
    data = {
        "found": sorted({found.trouble for found in findings if found.ledger_id in (None, ledger_id)}),
        "erased_again": sum(one.ledger_id == ledger_id for one in mended.erased),
        "recorded_again": lost.erasures,
        "lost_keys": len(lost.keys),
    }
    sealed = seal_own_event(deps, ledger_id, event_id, names.VAULT_RECONCILED, event_id, data, OPERATOR)
    with deps.store.locked_head(ledger_id) as lock:
        recorded, head = place_events([sealed], noting_head(deps, ledger_id, lock.head), {}, deps.clock())
        lock.write(recorded, head)
