"""Let the name of an erased person begin anew, because a new relationship has begun.

1. Vault, one transaction: a new subject with a fresh ref, and the name leads there; what is to be said is written down.
   From the commit on appends under the name work again, under new keys, in new streams.
2. Ledger, under the head lock: ``SubjectReinstated``, with the new ref and not the old one: no event may lead from the
   person's name to what was erased.
3. Journal line, fsynced; nothing is left to be said.
4. The caller is told.

Each step can be repeated. A crash between any two is made good by the same request again, or by the worker
(``resume_reinstatements``), under the ref that step 1 made.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from ledger.domain.ids import format_ref
from ledger.domain.names import LEDGER_CATEGORY, SUBJECT_REINSTATED
from ledger.domain.query import NameOrRef
from ledger.domain.sequence import place_events
from ledger.errors import IntegrityError
from ledger.ports import Reinstatement
from ledger.services.dependencies import Dependencies
from ledger.services.marking import noting_head
from ledger.services.own_events import seal_own_event
from ledger.services.subjects import SubjectSummary, describe_subject


def reinstate_subject(
    deps: Dependencies, ledger_id: UUID, name: str, *, reason: str | None, requested_by: UUID
) -> SubjectSummary:
    """Let a name begin anew; gives the new subject. By name only: a ref is one person's for good.

    Raises the vault's "unknown subject", "not erased" or "busy", or an error of a dependency; then it may be repeated.
    """
    entry = deps.vault.reinstate(ledger_id, name, reason=reason, reinstated_at=deps.clock(), reinstated_by=requested_by)
    complete_reinstatement(deps, entry)
    return describe_subject(deps, ledger_id, NameOrRef(None, entry.subject_ref))


def complete_reinstatement(deps: Dependencies, entry: Reinstatement) -> None:
    """Steps 2 and 3. Doing it again changes nothing."""
    ledger_id, ref = entry.ledger_id, entry.subject_ref
    (event_id,) = deps.vault.derive_ids(ledger_id, f"reinstatement:{ref.hex()}", [0])
    data = {"subject_ref": format_ref("sub", ref), "reason": entry.reason}
    sealed = seal_own_event(deps, ledger_id, event_id, SUBJECT_REINSTATED, event_id, data, entry.reinstated_by)
    with deps.store.locked_head(ledger_id) as lock:
        if not lock.find_ids([event_id]):
            recorded, head = place_events([sealed], noting_head(deps, ledger_id, lock.head), {}, deps.clock())
            lock.write(recorded, head)
    event = deps.store.find_events(ledger_id, [event_id])[event_id]
    if event.envelope.category != LEDGER_CATEGORY:
        raise IntegrityError("the id of a reinstatement was taken by another event, so it cannot be recorded")
    deps.vault.finish_reinstatement(ledger_id, ref)


def resume_reinstatements(deps: Dependencies) -> Mapping[bytes, Exception | None]:
    """Complete what a crash has left open. Gives each by its ref with the error that stopped it again, or None."""
    outcomes: dict[bytes, Exception | None] = {}
    for entry in deps.vault.open_reinstatements():
        try:
            complete_reinstatement(deps, entry)
            outcomes[entry.subject_ref] = None
        except Exception as error:  # noqa: BLE001 - one that cannot be completed must not keep the others open
            outcomes[entry.subject_ref] = error
    return outcomes
