"""When an erasure is final, and the signed statement of it.

``erased_at`` says since when nothing serves the data. ``final_at`` says since when no copy of the keys that the service
knows of can be opened any more: not in a backup, not in a log, not in a dead row. The key vault knows when that is;
here it is signed, with the ledger's own key, and what was signed stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from ledger.domain.events import JsonObject
from ledger.domain.ids import format_ref
from ledger.domain.names import ACTOR_PURPOSE
from ledger.domain.times import format_time
from ledger.ports import ErasureEntry, Finality, Pending
from ledger.services.dependencies import Dependencies
from ledger.services.stating import make_statement, recorded_ones, statements_of

WHY_PENDING: Final[Mapping[Pending, str]] = {
    "open": "the erasure itself is not done yet",
    "shared-place": "KEKs and key vault lie in one folder, so that every copy of it holds both: keep them apart",
    "epochs-alive": "the KEK of an epoch under which a copy of the keys may be wrapped exists: rotate, then destroy it",
    "keeper-waits": "the KEKs are destroyed, and their keeper deletes its last copy at a later time",
    "copies-kept": "the KEKs are destroyed, and copies of them are kept for AUDIT_LEDGER_KEK_COPIES_DAYS",
    "unsigned": "everything is destroyed, and the worker has yet to sign that it is",
}
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class FinalState:
    """``at``: since when it is final, as was signed; else ``pending``, the word for what stands in the way."""

    at: int | None
    pending: Pending | None


def final_states(deps: Dependencies, entries: Sequence[ErasureEntry]) -> Mapping[UUID, FinalState]:
    """Where these erasures of one ledger stand."""
    if not entries:
        return {}
    signed = statements_of(deps, "final", entries)
    rest = [entry for entry in entries if entry.erasure_id not in signed]
    states = {erasure_id: FinalState(statement.at, None) for erasure_id, statement in signed.items()}
    for entry, finality in zip(rest, deps.vault.finality(rest, ask_keeper=False), strict=True):
        states[entry.erasure_id] = FinalState(None, finality.pending or "unsigned")
    return states


def subject_final_at(deps: Dependencies, ledger_id: UUID, ref: bytes) -> int | None:
    """Since when an erased subject's erasures are all final; None as long as one is not. As for ``erased_at``, an
    erasure of nothing but what it did as an actor does not count."""
    entries = [
        entry for entry in deps.vault.erasures_of(ledger_id, ref) if tuple(entry.purposes or ()) != (ACTOR_PURPOSE,)
    ]
    signed = statements_of(deps, "final", entries)
    if not entries or len(signed) < len(entries):
        return None
    return max(statement.at for statement in signed.values())


def sign_final_erasures(deps: Dependencies) -> Mapping[UUID, Exception | None]:
    """Sign the statement of every erasure of any ledger that has become final. Gives each, with the error that stood
    in the way, or None.

    A crash leaves some unsigned, for the next call; the first statement about an erasure is the one that stays. Nothing
    is signed about an erasure that the ledger has not recorded, whatever the vault holds (I9).
    """
    outcomes: dict[UUID, Exception | None] = {}
    for page in _pages(deps):
        entries = recorded_ones(deps, page)
        for entry, finality in zip(entries, deps.vault.finality(entries, ask_keeper=True), strict=True):
            if finality.since is None:
                continue
            try:
                make_statement(deps, entry, "final", _payload(entry, finality, finality.since))
            except Exception as error:  # noqa: BLE001 - a ledger that is damaged must not keep the others
                outcomes[entry.erasure_id] = error
            else:
                outcomes[entry.erasure_id] = None
    return outcomes


def _payload(entry: ErasureEntry, finality: Finality, final_at: int) -> JsonObject:
    return {
        "kind": "final",
        "erasure_id": str(entry.erasure_id),
        "ledger_id": str(entry.ledger_id),
        "subject_ref": format_ref("sub", entry.subject_ref),
        "final_at": format_time(final_at),
        "epochs": [
            {
                "epoch": epoch.epoch,
                "destroyed_at": format_time(epoch.destroyed_at),
                "gone_at": format_time(epoch.gone_at),
            }
            for epoch in finality.epochs
        ],
    }


def _pages(deps: Dependencies) -> Iterator[Sequence[ErasureEntry]]:
    after = None
    while entries := deps.vault.erasures_without("final", after=after, limit=_PAGE):
        yield entries
        after = entries[-1].erasure_id
