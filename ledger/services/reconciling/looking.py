"""Does everything fit?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from ledger.domain import names
from ledger.domain.events import RecordedEvent, Role
from ledger.domain.ids import parse_ref
from ledger.domain.marks import Finding, KnownLedger, LedgerState, compare, furthest
from ledger.domain.query import EventFilter, Place
from ledger.domain.times import parse_time
from ledger.ports import Lost, LostErasure, Restored
from ledger.services.dependencies import Dependencies
from ledger.services.opening import open_events

_PAGE: Final = 500


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
        if state is not None and state.size >= seen.size and not fits(deps, ledger_id, seen, state):
            what = f"the event at position {seen.size - 1} is another one than was seen there"
            yield Finding("ledger-changed", ledger_id, what)


def _from_ledger(deps: Dependencies, ledger_id: UUID, known: KnownLedger, state: LedgerState) -> Iterator[Finding]:
    if not fits(deps, ledger_id, known, state):
        return
    own = read_own_events(deps, ledger_id, known.size, state.size)
    if own.erasures:
        what = f"the key vault does not know {len(own.erasures)} erasures that the ledger has recorded"
        yield Finding("erasures-undone", ledger_id, what)
    if own.restricted:
        yield Finding("states-undone", ledger_id, f"the key vault does not know {len(own.restricted)} restrictions")


def fits(deps: Dependencies, ledger_id: UUID, known: KnownLedger, state: LedgerState) -> bool:
    """Whether the ledger goes on from where the vault has seen it."""
    if known.size == 0 or state.size < known.size:
        return state.size >= known.size
    return last_leaf(deps, ledger_id, known.size) == known.leaf_hash


def last_leaf(deps: Dependencies, ledger_id: UUID, size: int) -> bytes | None:
    """The leaf hash of the last of the first ``size`` events."""
    return next((event.leaf_hash for event in deps.store.events_at(ledger_id, [size - 1])), None)


@dataclass
class OwnEvents:
    """What a ledger's own events say that the vault does not know: erasures, and who is restricted, since when.

    That a restriction was lifted is believed of the journal's signed lines only: whoever can write to the ledger's
    database could put an old event of that kind behind a newer restriction.
    """

    erasures: dict[UUID, Lost] = field(default_factory=dict)
    restricted: dict[bytes, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.erasures or self.restricted)


def read_own_events(deps: Dependencies, ledger_id: UUID, first: int, size: int) -> OwnEvents:
    own = OwnEvents()
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
