"""Between the documents that a projection folds and the rows that they are kept in."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from ledger.domain.catalogue import Catalogue
from ledger.domain.events import JsonObject
from ledger.domain.projection import DocumentFold, Projection, label_of
from ledger.ports import ReadModelRow
from ledger.services.dependencies import Dependencies
from ledger.services.documents import DocumentKind, Draft, Sealed, open_, seal
from ledger.services.evolution.rules import rules_of
from ledger.services.projecting.rebuilding import FoldFailedError


def open_rows(
    deps: Dependencies, ledger_id: UUID, projection: Projection, version: int, rows: Sequence[ReadModelRow]
) -> dict[bytes, DocumentFold | None]:
    """The documents in these rows by key; None for one that has to be made again. Costs one look at the vault and one
    at the ledger's dead keys, if anything is sealed.

    ``version``: of the generation that they are from, which another version of the program may have made.
    """
    # What is in clear holds no personal data. A sealed projection has no such row, but for one that a hand put there.
    sealed = [row for row in rows if not row.clear]
    drafts = [
        Sealed(label_of(projection.name, version), row.key, row.position, row.leaf_hash, row.key_ids, row.body)
        for row in sealed
    ]
    contents = dict(
        zip((row.key for row in sealed), open_(deps, ledger_id, DocumentKind.READ_MODEL, drafts), strict=True)
    )
    if projection.in_clear:
        contents.update((row.key, _in_clear(row.body)) for row in rows if row.clear)
    # What is in clear has no shape: nothing of an event was opened for it.
    catalogue = rules_of(deps, ledger_id).catalogue if sealed else Catalogue()
    folds = {row.key: _fold_of(row, contents.get(row.key)) for row in rows}
    # Folded again, events go in in the shapes in which they are shown now.
    return {
        key: fold if fold is not None and fold.fits(catalogue, deps.upcasters) else None for key, fold in folds.items()
    }


def _in_clear(body: bytes) -> JsonObject | None:
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _fold_of(row: ReadModelRow, content: JsonObject | None) -> DocumentFold | None:
    if content is None:
        return None
    try:
        return DocumentFold.from_json(
            content, bucket=row.bucket, position=row.position, leaf_hash=row.leaf_hash, key_ids=row.key_ids
        )
    except ValueError:
        return None


def seal_folds(
    deps: Dependencies, ledger_id: UUID, projection: Projection, folds: Mapping[bytes, DocumentFold]
) -> list[ReadModelRow] | None:
    """The rows of documents; None when a key that went into one is gone or restricted by now: fold again, from events
    that are opened anew. Raises ``FoldFailedError`` for a document that is no JSON."""
    for fold in folds.values():
        _check(fold)
    if projection.in_clear:
        bodies: list[bytes | None] = [
            json.dumps(fold.to_json(), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
            for fold in folds.values()
        ]
    else:
        drafts = [
            Draft(projection.label, key, fold.position, fold.leaf_hash, sorted(fold.key_ids), fold.to_json())
            for key, fold in folds.items()
        ]
        bodies = seal(deps, ledger_id, DocumentKind.READ_MODEL, drafts)
    rows = [
        _row(projection, key, fold, body)
        for (key, fold), body in zip(folds.items(), bodies, strict=True)
        if body is not None
    ]
    return rows if len(rows) == len(folds) else None


def _check(fold: DocumentFold) -> None:
    """What comes back from the store must be what was folded: a tuple or a number as a key would come back changed."""
    try:
        same = json.loads(json.dumps(fold.document, allow_nan=False)) == fold.document
    except (TypeError, ValueError, RecursionError):
        same = False
    if not same:
        raise FoldFailedError(TypeError.__name__, fold.position)


def _row(projection: Projection, key: bytes, fold: DocumentFold, body: bytes) -> ReadModelRow:
    return ReadModelRow(
        key=key,
        bucket=fold.bucket,
        position=fold.position,
        leaf_hash=fold.leaf_hash,
        key_ids=tuple(sorted(fold.key_ids)),
        body=body,
        clear=projection.in_clear,
        provisional=fold.provisional,
    )


def held_keys_changed(deps: Dependencies, ledger_id: UUID, folds: Collection[DocumentFold]) -> frozenset[bytes]:
    """Which keys that were restricted when these documents were made are not so any more: readable again, or dead."""
    held = {key_id for fold in folds for key_id in fold.held}
    if not held:
        return frozenset()
    views = deps.vault.look_up_keys(ledger_id, held)
    dead = deps.store.shreddings(ledger_id, held)
    return frozenset(
        key_id
        for key_id in held
        if key_id in dead or (view := views.get(key_id)) is None or view.status != "restricted"
    )
