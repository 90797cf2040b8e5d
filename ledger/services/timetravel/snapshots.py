"""Use and keep snapshots.

A snapshot is a derived document: it does not open once one of the keys that went into it is gone or restricted. So
whoever starts from one gets what the events would give now, only sooner.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from ledger.domain.fold import Fold, Folded
from ledger.domain.shapes import still_fit
from ledger.domain.snapshot import EVERY, content_of, folded_from
from ledger.ports import Snapshot
from ledger.services import documents
from ledger.services.dependencies import Dependencies
from ledger.services.documents import DocumentKind, Draft, Sealed
from ledger.services.evolution.rules import rules_of


def nearest(
    deps: Dependencies, ledger_id: UUID, stream_refs: Collection[bytes], position: int, fold: Fold
) -> Mapping[bytes, Folded]:
    """What to start from for the state at ``position``: for each stream that has one, the newest snapshot that opens.

    Costs two statements and one look at the vault for all of them, and three more for each stream whose nearest does
    not open.
    """
    found = deps.derived.snapshots.nearest_snapshots(ledger_id, fold.label, stream_refs, position)
    opened = _open(deps, ledger_id, list(found.values()))
    for ref in found.keys() - opened.keys():
        # Before the first there is none.
        if found[ref].stream_version > EVERY and (older := _older(deps, ledger_id, found[ref])) is not None:
            opened.update(_open(deps, ledger_id, [older]))
    return opened


def _older(deps: Dependencies, ledger_id: UUID, failed: Snapshot) -> Snapshot | None:
    """The newest snapshot before one that does not open whose keys are all alive."""
    stored = deps.derived.snapshots.snapshots_of(ledger_id, failed.fold, failed.stream_ref, failed.position - 1)
    key_ids = {key_id for snapshot in stored for key_id in snapshot.key_ids}
    views = deps.vault.look_up_keys(ledger_id, key_ids) if key_ids else {}
    # I9: what the ledger says goes first, whatever the vault holds.
    dead = deps.store.shreddings(ledger_id, key_ids) if key_ids else {}
    living = {key_id for key_id, view in views.items() if view.key is not None and key_id not in dead}
    for snapshot in stored:
        if living.issuperset(snapshot.key_ids):
            return deps.derived.snapshots.snapshot(
                ledger_id, snapshot.fold, snapshot.stream_ref, snapshot.stream_version
            )
    return None


def _open(deps: Dependencies, ledger_id: UUID, stored: Sequence[Snapshot]) -> dict[bytes, Folded]:
    """Those that open, and whose events would still be shown in the shapes that they had then."""
    if not stored:
        return {}
    sealed = [
        Sealed(
            fold_label=snapshot.fold,
            key=snapshot.stream_ref,
            position=snapshot.position,
            leaf_hash=snapshot.leaf_hash,
            key_ids=snapshot.key_ids,
            body=snapshot.sealed,
        )
        for snapshot in stored
    ]
    catalogue = rules_of(deps, ledger_id).catalogue
    opened = {}
    for snapshot, content in zip(stored, documents.open_(deps, ledger_id, DocumentKind.SNAPSHOT, sealed), strict=True):
        if content is None:
            continue
        try:
            folded = folded_from(content, snapshot.position, snapshot.leaf_hash, snapshot.key_ids)
        except ValueError:
            continue
        if still_fit(folded.shapes, catalogue, deps.upcasters):
            opened[snapshot.stream_ref] = folded
    return opened


def keep(deps: Dependencies, ledger_id: UUID, fold: Fold, states: Iterable[tuple[bytes, Folded]]) -> None:
    """Seal and add snapshots of (stream, state).

    Left out are those that could be different tomorrow without a new event (``Folded.final``), and those of which a key
    has gone meanwhile. Raises ``StoreUnavailableError``, and ``TypeError`` for a state that is not JSON.
    """
    kept = [(ref, folded) for ref, folded in states if folded.final]
    drafts = [
        Draft(
            fold_label=fold.label,
            key=ref,
            position=folded.position,
            leaf_hash=folded.leaf_hash,
            key_ids=folded.key_ids,
            content=content_of(folded),
        )
        for ref, folded in kept
    ]
    bodies = documents.seal(deps, ledger_id, DocumentKind.SNAPSHOT, drafts)
    snapshots = [
        Snapshot(
            stream_ref=ref,
            fold=fold.label,
            stream_version=folded.stream_version,
            position=folded.position,
            leaf_hash=folded.leaf_hash,
            key_ids=folded.key_ids,
            sealed=body,
        )
        for (ref, folded), body in zip(kept, bodies, strict=True)
        if body is not None
    ]
    if snapshots:
        deps.derived.snapshots.add_snapshots(ledger_id, snapshots)
