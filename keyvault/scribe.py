"""Writing the journal's lines: each signed by the service's own key, and each behind the last line that the vault saw.

A line is written before the vault notes that it is there. A crash in between leaves a journal that is ahead of the
vault's mark: its lines are then found to be true of the vault, and the mark goes on (``guard.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Engine

from keyvault import database, mark_store, store
from keyvault.journal import Journal, JournalMark
from keyvault.keyring import SERVICE, Keyring


def write_line(
    engine: Engine, keyring: Keyring, journal: Journal, kind: str, fields: Mapping[str, Any], now: int
) -> JournalMark:
    """Append a line. When this returns it survives a crash; the caller notes the mark in its next transaction
    (:func:`keyvault.mark_store.note_journal`)."""

    def look(connection: Connection) -> tuple[Ed25519PrivateKey, JournalMark]:
        return keyring.open_signing_key(store.secrets_of(connection, SERVICE)), mark_store.journal_mark(connection)

    key, mark = database.read(engine, look)
    return journal.append(kind, fields, at=now, key=key, after=mark)


def write_line_in(
    connection: Connection, keyring: Keyring, journal: Journal, kind: str, fields: Mapping[str, Any], now: int
) -> JournalMark:
    """The same within a transaction that holds what the line says, and that notes the mark itself."""
    key = keyring.open_signing_key(store.secrets_of(connection, SERVICE))
    mark = journal.append(kind, fields, at=now, key=key, after=mark_store.journal_mark(connection))
    mark_store.note_journal(connection, mark)
    return mark
