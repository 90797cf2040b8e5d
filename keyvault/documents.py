"""Derived documents: sealed under a key from all the keys that went into them (design §5).

So they need no erasure of their own: with any one of those keys they are gone, and are computed again from the events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from sqlalchemy import Connection, Engine

from keyvault import database, envelope, store
from keyvault.envelope import DataKey, WrapKind
from keyvault.errors import NotAuthenticError, UnknownFormatError, UnknownLedgerError
from keyvault.keyring import Keyring
from keyvault.lookup import view_of
from keyvault.store import KeyInContext, SecretRow


class Document(Protocol):
    """A document on its way in (``body`` to be sealed) or out (``body`` sealed)."""

    @property
    def key_ids(self) -> Sequence[bytes]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def aad(self) -> bytes: ...


def seal_documents(
    engine: Engine, keyring: Keyring, ledger_id: UUID, documents: Sequence[Document]
) -> list[bytes | None]:
    """See ``KeyVault.seal_documents``. A key that is shredded just after it was looked up leaves a document that nobody
    can ever open: nothing comes back by it (I8)."""
    return _each(engine, keyring, ledger_id, documents, _seal)


def open_documents(
    engine: Engine, keyring: Keyring, ledger_id: UUID, documents: Sequence[Document]
) -> list[bytes | None]:
    """See ``KeyVault.open_documents``."""
    return _each(engine, keyring, ledger_id, documents, _open)


Work = Callable[[DataKey, Sequence[DataKey], Document], bytes | None]


def _each(
    engine: Engine, keyring: Keyring, ledger_id: UUID, documents: Sequence[Document], work: Work
) -> list[bytes | None]:
    if not documents:
        return []
    wanted = {key_id for document in documents for key_id in document.key_ids}

    def look(connection: Connection) -> tuple[Mapping[WrapKind, SecretRow], Sequence[KeyInContext]]:
        secrets = store.secrets_of(connection, ledger_id)
        return secrets, store.keys_in_context(connection, ledger_id, wanted) if wanted else []

    secrets, found = database.read(engine, look)
    if WrapKind.LEDGER_DEK not in secrets:
        raise UnknownLedgerError("the vault has no secrets of this ledger")
    own = keyring.open_ledger_key(secrets[WrapKind.LEDGER_DEK])
    living = {key.row.key_id: opened for key in found if (opened := view_of(keyring, key).key) is not None}
    return [_with_keys(own, living, document, work) for document in documents]


def _with_keys(own: DataKey, living: Mapping[bytes, DataKey], document: Document, work: Work) -> bytes | None:
    key_ids = _in_order(document.key_ids)
    if any(key_id not in living for key_id in key_ids):
        return None
    return work(own, [living[key_id] for key_id in key_ids], document)


def _seal(own: DataKey, keys: Sequence[DataKey], document: Document) -> bytes:
    return envelope.seal_document(own, keys, document.body, document.aad)


def _open(own: DataKey, keys: Sequence[DataKey], document: Document) -> bytes | None:
    try:
        return envelope.open_document(own, keys, document.body, document.aad)
    except (NotAuthenticError, UnknownFormatError):
        return None


def _in_order(key_ids: Iterable[bytes]) -> list[bytes]:
    return sorted(set(key_ids))
