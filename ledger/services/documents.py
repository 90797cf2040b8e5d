"""Seal and open derived documents: snapshots and read models.

A document is JSON that was computed from events. It is sealed under the ledger's own key and every subject's key that
parts of those events were opened with, so an erasure needs to know nothing of it: without one of the keys it does not
open, and whoever wants it computes it again from the events, less what has been forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

from ledger.domain.encoding import PADDING_BLOCK, encode_document_aad
from ledger.domain.events import JsonObject
from ledger.ports import Document
from ledger.services.dependencies import Dependencies


class DocumentKind(IntEnum):
    """What a document is. The numbers stand in what documents are bound to and cannot change."""

    SNAPSHOT = 1
    READ_MODEL = 2
    KEY_WINDOW = 3


@dataclass(frozen=True, slots=True)
class Draft:
    """A document before it is sealed. ``leaf_hash``: of the event at ``position``, the last that went into it.
    ``key_ids``: of the subjects' keys that went into it, in any order."""

    fold_label: str
    key: bytes
    position: int
    leaf_hash: bytes
    key_ids: Sequence[bytes]
    content: JsonObject


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed document. ``leaf_hash`` is what the *log* has at ``position`` now: a document that was made from another
    log, or from this one before somebody put an old copy of it in place, does not open."""

    fold_label: str
    key: bytes
    position: int
    leaf_hash: bytes
    key_ids: Sequence[bytes]
    body: bytes


def seal(deps: Dependencies, ledger_id: UUID, kind: DocumentKind, drafts: Sequence[Draft]) -> list[bytes | None]:
    """Seal documents; None for one of which a key is gone or restricted by now: compute it again, from events that are
    opened anew."""
    documents = [_document(ledger_id, kind, draft, _encode(draft.content)) for draft in drafts]
    return list(deps.vault.seal_documents(ledger_id, documents)) if documents else []


def open_(deps: Dependencies, ledger_id: UUID, kind: DocumentKind, sealed: Sequence[Sealed]) -> list[JsonObject | None]:
    """Open documents; None for one that has to be computed again.

    The vault is asked first, then the ledger's own ``shredded_keys``: an erasure that was acknowledged before this call
    holds for it (I7), even where a restored vault has the keys back (I9).
    """
    if not sealed:
        return []
    documents = [_document(ledger_id, kind, document, document.body) for document in sealed]
    opened = deps.vault.open_documents(ledger_id, documents)
    dead = deps.store.shreddings(ledger_id, {key_id for document in documents for key_id in document.key_ids})
    return [
        json.loads(content) if content is not None and dead.keys().isdisjoint(document.key_ids) else None
        for document, content in zip(documents, opened, strict=True)
    ]


def _document(ledger_id: UUID, kind: DocumentKind, of: Draft | Sealed, body: bytes) -> Document:
    key_ids = tuple(sorted(set(of.key_ids)))
    aad = encode_document_aad(ledger_id, kind, of.fold_label, of.key, of.position, of.leaf_hash, key_ids)
    return Document(key_ids, body, aad)


def _encode(content: JsonObject) -> bytes:
    """JSON, padded with spaces: a sealed document lies around for a while after an erasure, and so does its length."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return text.ljust(-(-len(text) // PADDING_BLOCK) * PADDING_BLOCK)
