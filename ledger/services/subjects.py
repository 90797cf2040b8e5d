"""What the ledger holds of a subject, without opening any of it."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from ledger.domain.names import ACTOR_PURPOSE, LEDGER_CATEGORY
from ledger.domain.query import NameOrRef
from ledger.errors import IntegrityError, NotFoundError, SubjectErasedError
from ledger.ports import SubjectEntry, SubjectState
from ledger.services.counting.count import usage_of
from ledger.services.dependencies import Dependencies
from ledger.services.finality import subject_final_at
from ledger.services.unlinking import subject_unlinked_at


@dataclass(frozen=True, slots=True)
class SubjectSummary:
    """A subject: ``events`` are those with a part of it, in any role. Times in microseconds."""

    subject_ref: bytes
    names: int
    state: SubjectState
    events: int
    first_recorded_at: int | None
    last_recorded_at: int | None
    erased_at: int | None
    final_at: int | None
    unlinked_at: int | None


def describe_subject(deps: Dependencies, ledger_id: UUID, who: NameOrRef) -> SubjectSummary:
    """Look a subject up by name or ref. Raises as ``find_subject`` does, and ``IntegrityError`` for one that only the
    vault calls erased, or whose row there is damaged."""
    entry = find_subject(deps, ledger_id, who)
    if entry.names is None:
        raise IntegrityError("the key vault's row of the way from a subject to its names is damaged")
    if entry.state == "erased" and not _is_recorded(deps, ledger_id, entry):
        raise IntegrityError("the key vault says that a subject was erased, and the ledger has no record of it")
    usage = usage_of(deps, ledger_id, [key_id for key_id, _ in entry.key_ids])
    return SubjectSummary(
        subject_ref=entry.ref,
        names=entry.names,
        state=entry.state,
        events=usage.events,
        first_recorded_at=deps.store.recorded_at(ledger_id, usage.first) if usage.first is not None else None,
        last_recorded_at=deps.store.recorded_at(ledger_id, usage.last) if usage.last is not None else None,
        erased_at=_erased_at(deps, ledger_id, entry),
        final_at=subject_final_at(deps, ledger_id, entry.ref) if entry.state == "erased" else None,
        unlinked_at=subject_unlinked_at(deps, ledger_id, entry.ref) if entry.state == "erased" else None,
    )


def find_subject(deps: Dependencies, ledger_id: UUID, who: NameOrRef) -> SubjectEntry:
    """What the vault knows of a subject. Raises ``NotFoundError``, and ``SubjectErasedError`` where the name was
    forgotten."""
    name = who.name or ""
    if who.ref is not None:
        entry = deps.vault.subject(ledger_id, who.ref)
    else:
        entry = deps.vault.find_subjects(ledger_id, [name]).get(name)
    if entry is not None:
        return entry
    if who.ref is None and deps.vault.unlinked_among(ledger_id, [name]):
        raise SubjectErasedError(
            "the subject was erased and its name forgotten: nothing leads from this name to what is left of it"
        )
    raise NotFoundError("there is no such subject in this ledger")


def _is_recorded(deps: Dependencies, ledger_id: UUID, entry: SubjectEntry) -> bool:
    """Whether the ledger has recorded an erasure of this subject (I9)."""
    ids = [erasure.erasure_id for erasure in deps.vault.erasures_of(ledger_id, entry.ref)]
    events = deps.store.find_events(ledger_id, ids).values()
    return any(event.envelope.category == LEDGER_CATEGORY for event in events)


def _erased_at(deps: Dependencies, ledger_id: UUID, entry: SubjectEntry) -> int | None:
    """When the subject was erased; a later erasure of what it did as an actor does not change that."""
    if entry.state != "erased":
        return None
    keys = [key_id for key_id, purpose in entry.key_ids if purpose != ACTOR_PURPOSE]
    moments = [shredding.at for shredding in deps.store.shreddings(ledger_id, keys).values()]
    # A name that was blocked before anything was recorded under it has no keys.
    return max(moments, default=entry.changed_at)
