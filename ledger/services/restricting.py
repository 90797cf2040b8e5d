"""Restrict what is read of a subject (Art. 18), and lift that again.

1. Vault: the subject is ``restricted``, or not any more; from the commit on every reader sees that. Then the journal's
   line.
2. Ledger, under the head lock: ``SubjectRestricted`` or ``SubjectUnrestricted``, so that followers learn of it.
3. The caller is told.

The vault goes first: a restriction that the log speaks of, and that does not hold, would be worse than one that it does
not speak of yet. A crash between the two is made good by the same request again.

The stream of these events, ``ledger-<the subject's ref as a UUID>``, has nothing else in it, and they alternate: an odd
version says restricted, an even one not. So what the log says last follows from the version alone, and saying it again
says nothing. Of two that change it at once, each looks at the vault again after it has recorded something: the last
word is what holds.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from ledger.domain.ids import format_ref
from ledger.domain.names import SUBJECT_RESTRICTED, SUBJECT_UNRESTRICTED
from ledger.domain.query import NameOrRef
from ledger.domain.sequence import place_events
from ledger.errors import BusyError, IntegrityError, SubjectStateError
from ledger.services.dependencies import Dependencies
from ledger.services.marking import noting_head
from ledger.services.own_events import seal_own_event
from ledger.services.subjects import SubjectSummary, describe_subject, find_subject

_ATTEMPTS: Final = 8


def restrict_subject(
    deps: Dependencies, ledger_id: UUID, who: NameOrRef, *, reason: str | None, requested_by: UUID
) -> SubjectSummary:
    """Let nothing of a subject be read until the restriction is lifted. Doing it again changes nothing.

    Raises ``NotFoundError``, ``SubjectStateError`` for one who was erased, ``BusyError``, or an error of a dependency;
    then it may be repeated.
    """
    ref = find_subject(deps, ledger_id, who).ref
    deps.vault.restrict(ledger_id, ref, deps.clock())
    _announce(deps, ledger_id, ref, SUBJECT_RESTRICTED, reason, requested_by)
    return describe_subject(deps, ledger_id, NameOrRef(None, ref))


def lift_restriction(
    deps: Dependencies, ledger_id: UUID, who: NameOrRef, *, reason: str | None, requested_by: UUID
) -> SubjectSummary:
    """Let a subject be read again. Doing it again changes nothing. Raises as :func:`restrict_subject` does."""
    ref = find_subject(deps, ledger_id, who).ref
    deps.vault.lift_restriction(ledger_id, ref, deps.clock())
    _announce(deps, ledger_id, ref, SUBJECT_UNRESTRICTED, reason, requested_by)
    return describe_subject(deps, ledger_id, NameOrRef(None, ref))


def _announce(
    deps: Dependencies, ledger_id: UUID, ref: bytes, asked: str, reason: str | None, requested_by: UUID
) -> None:
    """Step 2, until the log says what the vault says."""
    for _ in range(_ATTEMPTS):
        subject = deps.vault.subject(ledger_id, ref)
        state = subject.next_state if subject is not None else None
        if state == "erased":
            raise SubjectStateError(
                "the subject was erased, or is being erased: there is nothing to restrict, and no restriction to lift"
            )
        if state not in ("active", "restricted"):
            raise BusyError("an erasure of the subject is under way; try again in a moment")
        version = deps.store.versions(ledger_id, [ref]).get(ref, 0)
        if (version % 2 == 1) == (state == "restricted"):
            return
        what = SUBJECT_RESTRICTED if state == "restricted" else SUBJECT_UNRESTRICTED
        # What somebody else changed at the same moment is said too, but not with our reason.
        _record(deps, ledger_id, ref, version, what, reason if what == asked else None, requested_by)
    raise BusyError("others keep restricting the same subject; try again")


def _record(
    deps: Dependencies, ledger_id: UUID, ref: bytes, version: int, what: str, reason: str | None, requested_by: UUID
) -> None:
    """Record the next event of the subject's stream, unless somebody else has."""
    (event_id,) = deps.vault.derive_ids(ledger_id, f"restriction:{ref.hex()}", [version + 1])
    data = {"subject_ref": format_ref("sub", ref), "reason": reason}
    sealed = seal_own_event(deps, ledger_id, event_id, what, UUID(bytes=ref), data, requested_by)
    with deps.store.locked_head(ledger_id) as lock:
        versions = lock.versions([ref])
        if versions.get(ref, 0) != version:
            return
        if lock.find_ids([event_id]):
            raise IntegrityError("the id of a restriction was taken by another event, so it cannot be recorded")
        recorded, head = place_events([sealed], noting_head(deps, ledger_id, lock.head), versions, deps.clock())
        lock.write(recorded, head)
