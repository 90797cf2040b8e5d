"""Erase a subject: five steps, each of which can be repeated after a crash (design §4, I12).

1. Vault: the subject is ``erasing``, the final list of its keys is written down; nothing is minted for it any more.
2. Ledger, under the head lock: ``SubjectErased`` and ``shredded_keys``. From here every reader says ``erased`` and
   every append is refused.
3. Vault: fences in, key rows out, the subject ``erased``.
4. Journal line, fsynced.
5. Where the ledger's policy says so, the name is forgotten (``ledger.services.unlinking``); the caller is told.

Which step comes next follows from what vault and log say (``ledger.domain.erasure``): the request drives the erasure
through all of them. A crash between any two leaves it open; then ``resume_erasures`` (the worker, or the next start) or
the next request for the same subject drives it on. No lock is held across two databases.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from uuid import UUID

from ledger.domain.cursors import invalid_cursor
from ledger.domain.erasure import ErasureState, erasure_state, next_step
from ledger.domain.events import Envelope, Role
from ledger.domain.ids import format_ref
from ledger.domain.merkle import root_of
from ledger.domain.names import LEDGER_CATEGORY, SUBJECT_ERASED
from ledger.domain.query import NameOrRef
from ledger.domain.receipts import SALT_BYTES
from ledger.domain.sequence import place_events
from ledger.domain.times import format_time
from ledger.errors import BusyError
from ledger.ports import ErasureEntry
from ledger.services.appending.recording import PlainPart, seal_event
from ledger.services.counting.count import count_events
from ledger.services.dependencies import Dependencies
from ledger.services.evidence import entry_of, event_of, evidence_of
from ledger.services.finality import FinalState, final_states
from ledger.services.marking import noting_head
from ledger.services.naming import name_of_subject
from ledger.services.receipts import Receipt, receipt_of, signed_statements
from ledger.services.unlinking import LinkState, link_states, unlink_at_once


@dataclass(frozen=True, slots=True)
class ErasureOrder:
    """What somebody asks to erase. ``purposes`` None: all that is known of the subject but what it did as an actor."""

    subject: NameOrRef
    purposes: Collection[str] | None
    ground: str | None
    reference: str | None
    block_unknown: bool
    requested_by: UUID


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure with what the ledger knows of it. ``events``: how many had a part under one of the dead keys.
    ``linked``: whether the name still leads to it."""

    entry: ErasureEntry
    events: int
    state: ErasureState
    final: FinalState
    linked: LinkState


@dataclass(frozen=True, slots=True)
class ErasureOutcome:
    """The answer to an order. ``name_salt`` opens the receipt's name commitment; it is handed out this once and stored
    nowhere. ``repeated``: the erasure had been done before."""

    erasure: Erasure
    receipt: Receipt
    name_salt: bytes | None
    repeated: bool


def erase_subject(deps: Dependencies, ledger_id: UUID, order: ErasureOrder) -> ErasureOutcome:
    """Carry an erasure out, or give back the one that has already done what is asked.

    Raises the vault's "unknown subject" and "unknown purpose", or an error of a dependency; then it may be repeated.
    """
    salt = deps.entropy(SALT_BYTES)
    ref = order.subject.ref
    # By ref too the receipt commits to the name: afterwards nobody can read it any more.
    name = order.subject.name if ref is None else name_of_subject(deps, ledger_id, ref)
    who = ref if ref is not None else name or ""
    for _ in range(3):
        erasure_id = deps.new_id()
        entry = deps.vault.begin_erasure(
            ledger_id,
            who,
            erasure_id=erasure_id,
            purposes=order.purposes,
            ground=order.ground,
            reference=order.reference,
            name_commitment=sha256(salt + name.encode()).digest() if name is not None else None,
            requested_at=deps.clock(),
            requested_by=order.requested_by,
            block_unknown=order.block_unknown,
        )
        ours = entry.erasure_id == erasure_id
        if not entry.done:
            entry = complete_erasure(deps, entry)
            if not ours:
                # That was another's, cut short; what this order asks may be more than what that one shredded.
                continue
        receipt = receipt_of(deps, entry)
        name_salt = salt if ours and name is not None else None
        if unlink_at_once(deps, entry):
            receipt = replace(receipt, statements=signed_statements(deps, ledger_id, entry.erasure_id))
        erasure = _with_usage(deps, entry, events=receipt.payload["events"])
        return ErasureOutcome(erasure, receipt, name_salt, repeated=not ours)
    raise BusyError("another erasure of the same subject is under way; try again in a moment")


def complete_erasure(deps: Dependencies, entry: ErasureEntry) -> ErasureEntry:
    """Drive an erasure that has begun to its end: steps 2 to 4, as far as they have not been done.

    Raises ``IntegrityError`` for one that has failed, and errors of dependencies; then it may be driven on.
    """
    evidence = evidence_of(deps, entry)
    if next_step(evidence) == "record":
        _record_shredding(deps, entry)
        evidence = evidence_of(deps, entry)
    if next_step(evidence) == "finish":
        event = event_of(evidence)
        entry = deps.vault.finish_erasure(entry.ledger_id, entry.erasure_id, event.recorded_at)
        evidence = evidence_of(deps, entry)
    event_of(evidence)
    return entry


def record_again(deps: Dependencies, entry: ErasureEntry) -> None:
    """Step 2 of an erasure that the vault has done, for a ledger that was restored from before it (I7): from here on
    readers say ``erased`` again. Doing it again changes nothing."""
    _record_shredding(deps, entry)


def resume_erasures(deps: Dependencies) -> Mapping[UUID, Exception | None]:
    """Complete what a crash has left open. Gives each open erasure with the error that stopped it again, or None."""
    outcomes: dict[UUID, Exception | None] = {}
    for entry in deps.vault.open_erasures():
        try:
            complete_erasure(deps, entry)
            outcomes[entry.erasure_id] = None
        except Exception as error:  # noqa: BLE001 - one that cannot be completed must not keep the others open
            outcomes[entry.erasure_id] = error
    return outcomes


def get_erasure(deps: Dependencies, ledger_id: UUID, erasure_id: UUID) -> Erasure:
    """One erasure. Raises ``NotFoundError``."""
    return _with_usage(deps, entry_of(deps, ledger_id, erasure_id))


def list_erasures(
    deps: Dependencies, ledger_id: UUID, *, reference: str | None, done: bool | None, after: UUID | None, limit: int
) -> Sequence[Erasure]:
    """Erasures, oldest first, behind the one with the id ``after``. Raises ``InvalidError`` when this ledger has none
    of that id: behind another ledger's the list would leave some out."""
    if after is not None and deps.vault.erasure(ledger_id, after) is None:
        raise invalid_cursor()
    entries = deps.vault.erasures(ledger_id, reference=reference, done=done, after=after, limit=limit)
    final, linked = final_states(deps, entries), link_states(deps, entries)
    return [_with_usage(deps, entry, final[entry.erasure_id], linked[entry.erasure_id]) for entry in entries]


def _record_shredding(deps: Dependencies, entry: ErasureEntry) -> None:
    """Step 2. Doing it again changes nothing."""
    envelope = Envelope(
        ledger_id=entry.ledger_id,
        event_id=entry.erasure_id,
        stream_ref=entry.erasure_id.bytes,
        category=LEDGER_CATEGORY,
        event_type=SUBJECT_ERASED,
        schema_version=1,
        occurred_at=None,
        correlation_id=None,
        causation_id=None,
    )
    own = deps.vault.reserve(entry.ledger_id, {}, (), mint=False).ledger_key
    parts = [
        PlainPart(
            Role.NONPERSONAL,
            own.key_id,
            own,
            stream=f"{LEDGER_CATEGORY}-{entry.erasure_id}",
            data={
                "erasure_id": str(entry.erasure_id),
                "subject_ref": format_ref("sub", entry.subject_ref),
                "purposes": sorted({purpose for _, purpose in entry.key_ids}),
                "key_ids": [key_id.hex() for key_id, _ in entry.key_ids],
                "key_purposes": [purpose for _, purpose in entry.key_ids],
                "requested_purposes": None if entry.purposes is None else list(entry.purposes),
                "next_state": entry.next_state,
                "ground": entry.ground,
                "reference": entry.reference,
                "requested_at": format_time(entry.requested_at),
            },
        ),
        *(PlainPart(Role.SHREDDED, key_id, None) for key_id, _ in entry.key_ids),
    ]
    sealed = seal_event(envelope, parts, entry.requested_by)
    with deps.store.locked_head(entry.ledger_id) as lock:
        if not lock.find_ids([entry.erasure_id]):
            before = root_of(lock.head.frontier)
            recorded, head = place_events([sealed], noting_head(deps, entry.ledger_id, lock.head), {}, deps.clock())
            lock.write(recorded, head)
            key_ids = [key_id for key_id, _ in entry.key_ids]
            # I8: a vault from an old backup brings dead keys back; they are erased again, and stay dead from when on
            # they were.
            dead = lock.shredded(key_ids)
            new = [key_id for key_id in key_ids if key_id not in dead]
            lock.shred(new, recorded[0].position, entry.erasure_id, root_of(head.frontier), before=before)


def _with_usage(
    deps: Dependencies,
    entry: ErasureEntry,
    final: FinalState | None = None,
    linked: LinkState | None = None,
    *,
    events: int | None = None,
) -> Erasure:
    if events is None:
        events = count_events(deps, entry.ledger_id, [key_id for key_id, _ in entry.key_ids])
    if final is None:
        final = final_states(deps, [entry])[entry.erasure_id]
    if linked is None:
        linked = link_states(deps, [entry])[entry.erasure_id]
    return Erasure(entry, events, erasure_state(evidence_of(deps, entry)), final, linked)
