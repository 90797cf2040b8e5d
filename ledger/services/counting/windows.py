"""Seal and open the windows of keys.

They hold nothing that ``event_keys`` does not say in clear. They are sealed under the ledger's own key so that nobody
can make one who has only the database: a receipt is signed over what they say. An old one that a hand puts back covers
less and is as true as it was, since what it covers does not change; so does one that is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from ledger.domain.encoding import encode_document_aad
from ledger.domain.key_windows import Window, decode_bits, encode_bits
from ledger.ports import Document, KeyWindow
from ledger.services.dependencies import Dependencies
from ledger.services.documents import DocumentKind

_LABEL: Final = "key-window/1"


def seal_windows(
    deps: Dependencies, ledger_id: UUID, windows: Sequence[Window], leaf_hash: bytes
) -> Sequence[KeyWindow]:
    """Seal windows that all end with the event of this leaf hash."""
    documents = [
        _document(ledger_id, window, leaf_hash, encode_bits(window.bits, window.first, window.beyond))
        for window in windows
    ]
    bodies = deps.vault.seal_documents(ledger_id, documents) if documents else []
    return [
        KeyWindow(window.key_id, window.first, window.beyond, leaf_hash, body)
        for window, body in zip(windows, bodies, strict=True)
        if body is not None
    ]


def open_windows(deps: Dependencies, ledger_id: UUID, stored: Sequence[KeyWindow]) -> Sequence[Window | None]:
    """Open windows; None for one that this ledger has not sealed for these positions of this log."""
    fitting = [one for one in stored if one.leaf_hash is not None and 0 <= one.first < one.beyond]
    documents = [_document(ledger_id, one, one.leaf_hash or b"", one.sealed) for one in fitting]
    bodies = deps.vault.open_documents(ledger_id, documents) if documents else []
    opened = {
        (one.key_id, one.first): window
        for one, body in zip(fitting, bodies, strict=True)
        if body is not None and (window := _window(one, body)) is not None
    }
    return [opened.get((one.key_id, one.first)) for one in stored]


def _window(stored: KeyWindow, body: bytes) -> Window | None:
    try:
        bits = decode_bits(body, stored.first, stored.beyond)
    except ValueError:
        return None
    return Window(stored.key_id, stored.first, stored.beyond, bits)


def _document(ledger_id: UUID, of: Window | KeyWindow, leaf_hash: bytes, body: bytes) -> Document:
    key = of.key_id + of.first.to_bytes(8, "big")
    aad = encode_document_aad(ledger_id, DocumentKind.KEY_WINDOW, _LABEL, key, of.beyond - 1, leaf_hash, ())
    return Document((), body, aad)
