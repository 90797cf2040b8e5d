"""Forget the name of somebody who was erased, and sign that it was done.

An erasure leaves a skeleton: that there were events, of which types and when. ``unlink_after`` (the ledger's policy)
says how many days after the erasure the way from the person's name to it is cut. The key vault cuts it; here it is
signed, with the ledger's own key, for each erasure of that person.

1. Vault: the way is cut, and the journal's line written.
2. A statement for each erasure of the subject; what was signed stays as it is.

Each step can be repeated: a crash leaves erasures without a statement, and the next call finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from ledger.domain.catalogue import Policy
from ledger.domain.events import JsonObject
from ledger.domain.ids import format_ref
from ledger.domain.times import format_time
from ledger.errors import IntegrityError
from ledger.ports import ErasureEntry, Linkage
from ledger.services.dependencies import Dependencies
from ledger.services.evolution.rules import policy_of
from ledger.services.stating import make_statement, recorded_ones, statements_of

DAY: Final = 86_400_000_000
MOST_AT_ONCE: Final = 1000
"""Names of a ledger that one call forgets, so that whoever calls gets to other work: the rest are the next call's."""

_PAGE: Final = 500

StillLinked = Literal["open", "partial", "policy-unreadable", "policy-never", "keys-living", "not-yet", "unsigned"]

WHY_LINKED: Final[Mapping[StillLinked, str]] = {
    "open": "the erasure itself is not done yet",
    "partial": "the subject was not erased as a whole: its name is in use",
    "policy-unreadable": "the ledger's policy cannot be read, so nobody can tell when the name is to be forgotten: "
    "set it anew",
    "policy-never": "the ledger's policy says that names are never forgotten (unlink_after)",
    "keys-living": "a key of the subject lives, and what it opens tells the name beside the ref: erase its purpose too",
    "not-yet": "the time that the ledger's policy sets (unlink_after) is not over yet",
    "unsigned": "the time is over, and the worker has yet to forget the name and sign that it did",
}


@dataclass(frozen=True, slots=True)
class LinkState:
    """``unlinked_at``: since when the name leads nowhere, as was signed; else ``pending``, the word for what stands in
    the way, and ``due_at`` where that is the time."""

    unlinked_at: int | None
    pending: StillLinked | None = None
    due_at: int | None = None


def link_states(deps: Dependencies, entries: Sequence[ErasureEntry]) -> Mapping[UUID, LinkState]:
    """Where the names of these erasures of one ledger stand."""
    if not entries:
        return {}
    ledger_id = entries[0].ledger_id
    states = {
        erasure_id: LinkState(statement.at)
        for erasure_id, statement in statements_of(deps, "unlinked", entries).items()
    }
    rest = [entry for entry in entries if entry.erasure_id not in states]
    if rest:
        policy, now = _policy(deps, ledger_id), deps.clock()
        linkages = deps.vault.linkages(ledger_id, {entry.subject_ref for entry in rest})
        for entry in rest:
            states[entry.erasure_id] = _state(entry, linkages.get(entry.subject_ref), policy, now)
    return states


def subject_unlinked_at(deps: Dependencies, ledger_id: UUID, ref: bytes) -> int | None:
    """Since when no name leads to an erased subject, as was signed."""
    signed = statements_of(deps, "unlinked", deps.vault.erasures_of(ledger_id, ref))
    return max((statement.at for statement in signed.values()), default=None)


def unlink_due(
    deps: Dependencies, ledger_id: UUID, goes_on: Callable[[], bool] = lambda: True
) -> Mapping[UUID, Exception | None]:
    """Forget the names of a ledger whose time is over, but not many more than ``MOST_AT_ONCE``; ``goes_on`` is asked
    before each. Gives each erasure that it came to, with the error that stood in the way, or None. Raises
    ``IntegrityError`` for a policy that cannot be read."""
    days = policy_of(deps.catalogues.catalogue_mark(ledger_id)).unlink_after
    outcomes: dict[UUID, Exception | None] = {}
    if days is None:
        return outcomes
    after, until = None, deps.clock() - days * DAY
    while len(outcomes) < MOST_AT_ONCE and (
        entries := deps.vault.erasures_to_unlink(ledger_id, erased_until=until, after=after, limit=_PAGE)
    ):
        for entry in recorded_ones(deps, entries):
            if not goes_on():
                return outcomes
            if entry.erasure_id in outcomes:
                continue
            try:
                outcomes.update(dict.fromkeys(_unlink(deps, ledger_id, entry.subject_ref)))
            except Exception as error:  # noqa: BLE001 - one name that cannot be forgotten must not keep the others
                outcomes[entry.erasure_id] = error
        after = entries[-1].erasure_id
    return outcomes


def unlink_at_once(deps: Dependencies, entry: ErasureEntry) -> bool:
    """Forget the name with the erasure, if the ledger's policy says so and nothing stands in the way; gives whether it
    did. What fails is left to the worker: the erasure is done, and its answer, with the salt that is handed out once,
    must not be lost."""
    try:
        if policy_of(deps.catalogues.catalogue_mark(entry.ledger_id)).unlink_after != 0:
            return False
        if statements_of(deps, "unlinked", [entry]):
            return False
        linkage = deps.vault.linkages(entry.ledger_id, [entry.subject_ref]).get(entry.subject_ref)
        if linkage is None or linkage.erased_at is None or linkage.keys_live:
            return False
        return bool(_unlink(deps, entry.ledger_id, entry.subject_ref))
    except Exception:  # noqa: BLE001 - see above; the worker says what is wrong
        return False


def _unlink(deps: Dependencies, ledger_id: UUID, ref: bytes) -> Sequence[UUID]:
    """Both steps. Gives the erasures about which it is stated now."""
    at = deps.vault.unlink(ledger_id, ref, deps.clock())
    done = [entry for entry in deps.vault.erasures_of(ledger_id, ref) if entry.done]
    signed = statements_of(deps, "unlinked", done)
    entries = [entry for entry in recorded_ones(deps, done) if entry.erasure_id not in signed]
    for entry in entries:
        make_statement(deps, entry, "unlinked", _payload(entry, at))
    return [entry.erasure_id for entry in entries]


def _payload(entry: ErasureEntry, at: int) -> JsonObject:
    return {
        "kind": "unlinked",
        "erasure_id": str(entry.erasure_id),
        "ledger_id": str(entry.ledger_id),
        "subject_ref": format_ref("sub", entry.subject_ref),
        "unlinked_at": format_time(at),
    }


def _policy(deps: Dependencies, ledger_id: UUID) -> Policy | None:
    try:
        return policy_of(deps.catalogues.catalogue_mark(ledger_id))
    except IntegrityError:
        # An erasure is shown, and its order answered, whatever somebody did to the policy.
        return None


def _state(entry: ErasureEntry, linkage: Linkage | None, policy: Policy | None, now: int) -> LinkState:
    if not entry.done:
        return LinkState(None, "open")
    if linkage is None or linkage.erased_at is None:
        return LinkState(None, "partial")
    if policy is None:
        return LinkState(None, "policy-unreadable")
    if policy.unlink_after is None:
        return LinkState(None, "policy-never")
    if linkage.keys_live:
        return LinkState(None, "keys-living")
    due_at = linkage.erased_at + policy.unlink_after * DAY
    return LinkState(None, "not-yet", due_at) if due_at > now else LinkState(None, "unsigned")
