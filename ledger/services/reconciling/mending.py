"""Do again what an older copy has undone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from ledger.domain.marks import compare, furthest
from ledger.ports import Lost, LostErasure
from ledger.services.dependencies import Dependencies
from ledger.services.erase import complete_erasure, resume_erasures
from ledger.services.reconciling.looking import fits, last_leaf, read_own_events

Subject = tuple[UUID, bytes]


@dataclass
class Mended:
    """What was done again. ``failed``: erasures that could not be completed, with the error."""

    erased: list[Lost] = field(default_factory=list)
    failed: dict[UUID, Exception] = field(default_factory=dict)
    states: set[Subject] = field(default_factory=set)
    epochs: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.erased or self.states or self.epochs)

    @property
    def ledgers(self) -> frozenset[UUID]:
        """Where anything was done."""
        return frozenset(lost.ledger_id for lost in self.erased) | {ledger_id for ledger_id, _ in self.states}


def mend(deps: Dependencies, receipts: Iterable[Lost] = ()) -> Mended:
    """Do again what is known to have been done, and what the vault does not know. Doing it again changes nothing.

    ``receipts``: erasures that receipts tell of. Raises an error of a dependency; then it may be repeated.
    """
    mended = Mended()
    resume_erasures(deps)
    marks, states = deps.guard.marks(), deps.store.states()
    restored = deps.guard.restored()
    told = {one.erasure_id: one for one in receipts if one.ledger_id in states}
    lost: dict[UUID, Lost] = {**told, **{one.erasure_id: one for one in restored.erasures}}
    restrictions: set[Subject] = set()
    # A vault from before the destruction of its epoch opens no event any more: the journal's lines are what is left.
    for ledger_id, known in () if restored.destroyed else sorted(marks.ledgers.items()):
        if ledger_id in states and fits(deps, ledger_id, known, states[ledger_id]):
            own = read_own_events(deps, ledger_id, known.size, states[ledger_id].size)
            lost |= own.erasures
            restrictions |= {(ledger_id, ref) for ref in own.restricted}
    _erase_again(deps, (_with_commitment(one, told.get(one.erasure_id)) for one in lost.values()), mended)
    for ledger_id, ref in sorted(restrictions):
        deps.vault.restrict(ledger_id, ref, deps.clock())
        mended.states.add((ledger_id, ref))
    if not mended.failed:
        note_sizes(deps)
    left = deps.guard.settle()
    mended.states |= {*restored.states, *restored.unlinked} - {*left.states, *left.unlinked}
    mended.epochs = deps.guard.destroy_returned_keks()
    return mended


@dataclass(frozen=True, slots=True)
class Noted:
    """Ledgers that had grown; and whether there was one whose size could not be noted."""

    grown: frozenset[UUID]
    doubtful: bool


def note_sizes(deps: Dependencies) -> Noted:
    """Have the vault note how far the ledgers are, those that fit what it knows of them and say nothing of people that
    it does not know. Gives those that had grown.

    How far the vault has seen the journal does not matter here: it cannot go on to a checkpoint before the sizes in
    that are noted.
    """
    known, claims = deps.guard.marks(), deps.guard.restored().ledgers
    states = deps.store.states()
    furthest_known = furthest(known.ledgers, claims)
    newest_line = max((state.vault.journal for state in states.values()), default=0)
    doubtful = {found.ledger_id for found in compare(furthest_known, states, known.ledgers, newest_line)}
    seen = {}
    for ledger_id, state in states.items():
        before = known.ledgers.get(ledger_id)
        if before is None or ledger_id in doubtful or state.size <= before.size:
            continue
        if not all(fits(deps, ledger_id, one, state) for one in (before, claims.get(ledger_id, before))):
            continue
        leaf = last_leaf(deps, ledger_id, state.size)
        # What the ledger says of people is looked at before it is gone past: else nobody would look there again.
        if leaf is not None and not read_own_events(deps, ledger_id, before.size, state.size):
            seen[ledger_id] = (state.size, leaf)
    deps.guard.note_ledgers(seen)
    grown = {one for one, state in states.items() if one in known.ledgers and state.size > known.ledgers[one].size}
    return Noted(frozenset(seen), bool(grown - seen.keys()))


def _with_commitment(lost: Lost, receipt: Lost | None) -> Lost:
    """Only a receipt still has the commitment to the name: neither ledger nor journal do."""
    if receipt is None or receipt.name_commitment is None:
        return lost
    return LostErasure(
        erasure_id=lost.erasure_id,
        ledger_id=lost.ledger_id,
        subject_ref=lost.subject_ref,
        keys=tuple(lost.keys),
        requested_at=lost.requested_at,
        requested_by=lost.requested_by,
        next_state=lost.next_state,
        purposes=lost.purposes,
        request_known=lost.request_known,
        ground=lost.ground,
        reference=lost.reference,
        name_commitment=receipt.name_commitment,
    )


def _erase_again(deps: Dependencies, lost: Iterable[Lost], mended: Mended) -> None:
    for one in sorted(lost, key=lambda one: (one.requested_at, one.erasure_id)):
        try:
            entry = deps.guard.begin_again(one)
            if not entry.done:
                complete_erasure(deps, entry)
                mended.erased.append(one)
        except Exception as error:  # noqa: BLE001 - one that cannot be completed must not keep the others alive
            mended.failed[one.erasure_id] = error
