"""The restore guard's half that sees vault and ledgers together: what does not fit, and how it is mended.

:func:`look` tells whether anything came back from an older copy. :func:`mend` does again what is known to have been
done: erasures first, from wherever they are known (the ledger's events, the journal's lines, receipts), then
restrictions, then what the journal says of epochs. It takes nothing away that lives, so it is done without asking,
before anything is served. What is lost with an older copy, keys or events, it cannot bring back: then a person decides
(:func:`go_on`), who may still find a newer copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from ledger.domain import names
from ledger.domain.events import OPERATOR, RecordedEvent, Role
from ledger.domain.ids import parse_ref
from ledger.domain.marks import Finding, KnownLedger, LedgerState, VaultMark, compare, furthest
from ledger.domain.query import EventFilter, Place
from ledger.domain.sequence import place_events
from ledger.domain.times import parse_time
from ledger.ports import KeyUsage, Lost, LostErasure, Restored
from ledger.services.dependencies import Dependencies
from ledger.services.erase import complete_erasure, record_again, resume_erasures
from ledger.services.marking import noting_head
from ledger.services.opening import open_events
from ledger.services.own_events import seal_own_event

_PAGE: Final = 500
_MOST_MINTS: Final = 2**53

Subject = tuple[UUID, bytes]


@dataclass(frozen=True, slots=True)
class LostKey:
    """A key that the vault does not have any more, and that nobody shredded. What is sealed under it cannot be read."""

    ledger_id: UUID
    key_id: bytes
    usage: KeyUsage


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


# Looking


def look(deps: Dependencies, *, thorough: bool) -> list[Finding]:
    """What does not fit. Cheap: a few statements, however many ledgers there are; with ``thorough`` also what the
    ledgers' own events say since the vault has seen them.

    With others at work something may not fit for a moment: what counts is what still does not when looked at again.
    """
    before = deps.guard.marks()
    restored = deps.guard.restored()
    states = deps.store.states()
    after = deps.guard.marks()
    findings = compare(furthest(before.ledgers, restored.ledgers), states, after.ledgers, after.journal.n)
    findings += _from_journal(restored, after.ledgers)
    returned = deps.guard.returned_keks(ask_keeper=thorough)
    if returned:
        what = f"destroyed KEKs are back, of the epochs {', '.join(map(str, sorted(returned)))}"
        findings.append(Finding("kek-returned", None, what))
    if thorough and not restored.destroyed:
        for ledger_id, known in sorted(after.ledgers.items()):
            if ledger_id in states:
                findings += _from_ledger(deps, ledger_id, known, states[ledger_id])
    findings += _changed(deps, furthest(after.ledgers if thorough else {}, restored.ledgers), states)
    return findings


def _from_journal(restored: Restored, known: Mapping[UUID, KnownLedger]) -> Iterator[Finding]:
    if restored.erasures:
        what = f"the key vault does not know {len(restored.erasures)} erasures that the journal says were done"
        yield Finding("erasures-undone", None, what)
    if restored.states:
        what = f"the key vault does not know {len(restored.states)} restrictions, or the lifting of them"
        yield Finding("states-undone", None, what)
    if restored.unlinked:
        what = f"{len(restored.unlinked)} names that were forgotten lead to the erased again"
        yield Finding("states-undone", None, what)
    if restored.created or restored.destroyed:
        epochs = ", ".join(str(epoch) for epoch in sorted({*restored.created, *restored.destroyed}))
        yield Finding("epochs-undone", None, f"the key vault does not know what became of the epochs {epochs}")
    if restored.reinstated:
        what = f"{restored.reinstated} names that had begun anew lead to the erased subject again"
        yield Finding("vault-behind", None, what)
    for ledger_id, claim in sorted(restored.ledgers.items()):
        missing = claim.mints - (known[ledger_id].mints if ledger_id in known else 0)
        if missing > 0:
            what = f"the key vault is older than the journal: {missing} times it has made keys or refs since"
            yield Finding("vault-behind", ledger_id, what)


def _changed(
    deps: Dependencies, known: Mapping[UUID, KnownLedger], states: Mapping[UUID, LedgerState]
) -> Iterator[Finding]:
    for ledger_id, seen in sorted(known.items()):
        state = states.get(ledger_id)
        if state is not None and state.size >= seen.size and not _fits(deps, ledger_id, seen, state):
            what = f"the event at position {seen.size - 1} is another one than was seen there"
            yield Finding("ledger-changed", ledger_id, what)


def _from_ledger(deps: Dependencies, ledger_id: UUID, known: KnownLedger, state: LedgerState) -> Iterator[Finding]:
    if not _fits(deps, ledger_id, known, state):
        return
    own = _read_own_events(deps, ledger_id, known.size, state.size)
    if own.erasures:
        what = f"the key vault does not know {len(own.erasures)} erasures that the ledger has recorded"
        yield Finding("erasures-undone", ledger_id, what)
    if own.restricted:
        yield Finding("states-undone", ledger_id, f"the key vault does not know {len(own.restricted)} restrictions")


def _fits(deps: Dependencies, ledger_id: UUID, known: KnownLedger, state: LedgerState) -> bool:
    """Whether the ledger goes on from where the vault has seen it."""
    if known.size == 0 or state.size < known.size:
        return state.size >= known.size
    return last_leaf(deps, ledger_id, known.size) == known.leaf_hash


def last_leaf(deps: Dependencies, ledger_id: UUID, size: int) -> bytes | None:
    """The leaf hash of the last of the first ``size`` events."""
    return next((event.leaf_hash for event in deps.store.events_at(ledger_id, [size - 1])), None)


@dataclass
class _Own:
    """What a ledger's own events say that the vault does not know: erasures, and who is restricted, since when.

    That a restriction was lifted is believed of the journal's signed lines only: whoever can write to the ledger's
    database could put an old event of that kind behind a newer restriction.
    """

    erasures: dict[UUID, Lost] = field(default_factory=dict)
    restricted: dict[bytes, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.erasures or self.restricted)


def _read_own_events(deps: Dependencies, ledger_id: UUID, first: int, size: int) -> _Own:
    own = _Own()
    for events in _own_events(deps, ledger_id, first, size):
        erased = [event for event in events if event.envelope.event_type == names.SUBJECT_ERASED]
        unknown = deps.guard.unknown_erasures(ledger_id, [event.envelope.event_id for event in erased])
        for event in events:
            ref = event.envelope.stream_ref
            match event.envelope.event_type:
                case names.SUBJECT_ERASED if event.envelope.event_id in unknown:
                    lost = lost_erasure_of(deps, event)
                    if lost is not None:
                        own.erasures[lost.erasure_id] = lost
                case names.SUBJECT_RESTRICTED if _speaks_of(deps, event, ref):
                    own.restricted[ref] = event.recorded_at
                case names.SUBJECT_UNRESTRICTED:
                    own.restricted.pop(ref, None)
    for ref, since in list(own.restricted.items()):
        subject = deps.vault.subject(ledger_id, ref)
        # A vault that is ahead of the log has lifted it since, and that is about to be recorded.
        if subject is None or subject.next_state != "active" or deps.guard.was_lifted(ledger_id, ref, since):
            del own.restricted[ref]
    return own


def _speaks_of(deps: Dependencies, event: RecordedEvent, ref: bytes) -> bool:
    """Whether a restriction is what was recorded: a hand in the database cannot make one, nor give it another name."""
    (opened,) = open_events(deps, event.envelope.ledger_id, [event])
    return parse_ref("sub", (opened.nonpersonal or {}).get("subject_ref")) == ref


def _own_events(deps: Dependencies, ledger_id: UUID, first: int, size: int) -> Iterator[Sequence[RecordedEvent]]:
    after: Place | None = None
    which = EventFilter(first, size - 1, category=names.LEDGER_CATEGORY)
    while first < size and (events := deps.store.select_events(ledger_id, which, after, _PAGE)):
        yield events
        after = Place(events[-1].position)


def lost_erasure_of(deps: Dependencies, event: RecordedEvent) -> Lost | None:
    """What a ``SubjectErased`` tells of its erasure; None when it cannot be read, which has raised an alarm."""
    (opened,) = open_events(deps, event.envelope.ledger_id, [event])
    data = opened.nonpersonal or {}
    ref = parse_ref("sub", data.get("subject_ref"))
    if ref is None:
        return None
    keys = [part.key_id for part in event.parts if part.role is Role.SHREDDED]
    # What was recorded by the first version says less; the vault's rows then say which purpose a key has.
    purposes: Sequence[str | None] = data.get("key_purposes") or [None] * len(keys)
    return LostErasure(
        erasure_id=event.envelope.event_id,
        ledger_id=event.envelope.ledger_id,
        subject_ref=ref,
        keys=tuple(zip(keys, purposes, strict=True)),
        requested_at=parse_time(data.get("requested_at")) or event.recorded_at,
        requested_by=event.recorded_by,
        next_state=data.get("next_state"),
        purposes=None if data.get("requested_purposes") is None else tuple(data["requested_purposes"]),
        request_known="requested_purposes" in data,
        ground=data.get("ground"),
        reference=data.get("reference"),
    )


# Mending


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
        if ledger_id in states and _fits(deps, ledger_id, known, states[ledger_id]):
            own = _read_own_events(deps, ledger_id, known.size, states[ledger_id].size)
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
    """Have the vault note how far the ledgers are, those that fit what it knows of them and say
    nothing of people that it does not know. Gives those that had grown.

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
        if not all(_fits(deps, ledger_id, one, state) for one in (before, claims.get(ledger_id, before))):
            continue
        leaf = last_leaf(deps, ledger_id, state.size)
        # What the ledger says of people is looked at before it is gone past: else nobody would look there again.
        if leaf is not None and not _read_own_events(deps, ledger_id, before.size, state.size):
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


# Going on


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
    """Let the ledger say that it happened, with counts and key ids and nobody's name."""
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
