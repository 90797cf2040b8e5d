"""Wrapping and unwrapping what stands in the vault's rows, by way of the key provider and the unwrap cache."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyvault import envelope
from keyvault.cache import UnwrapCache
from keyvault.envelope import DataKey, LinkKey, WrapKind
from keyvault.errors import DamagedKeyError, NotAuthenticError, ProviderError, UnknownLedgerError
from keyvault.link_store import LinkRow
from keyvault.providers import KeyProvider
from keyvault.store import FIRST_GENERATION, KeyRow, SecretRow

# The service's own signing key, which signs the journal, stands among the secrets under the id of no ledger.
SERVICE: Final = UUID(int=0)
LEDGER_SECRETS: Final = (WrapKind.LEDGER_DEK, WrapKind.NAME_KEY, WrapKind.SIGNING_KEY)


@dataclass(frozen=True, slots=True)
class LedgerKeys:
    """A ledger's own data key and name key, opened. As short-lived as any data key."""

    data_key: DataKey
    _name_key: bytes = field(repr=False)

    def subject_hash(self, name: str) -> bytes:
        """What stands for a subject's name in the index."""
        return envelope.name_hash(self._name_key, "subject", name)

    def stream_hash(self, name: str) -> bytes:
        """What stands for a stream's name in the index."""
        return envelope.name_hash(self._name_key, "stream", name)

    def event_id(self, label: str, number: int) -> UUID:
        """See :func:`keyvault.envelope.derive_event_id`."""
        return envelope.derive_event_id(self._name_key, label, number)


class Keyring:
    """The one place where wraps are made and undone."""

    def __init__(self, provider: KeyProvider, cache: UnwrapCache) -> None:
        self.provider = provider
        self._cache = cache

    def new_key(self, ledger_id: UUID, ref: bytes, purpose: str, epoch: int) -> KeyRow:
        """A fresh DEK of 32 random bytes, wrapped for its row."""
        dek = os.urandom(envelope.KEY_SIZE)
        bare = KeyRow(envelope.key_id_of(dek), ledger_id, ref, purpose, FIRST_GENERATION, b"", epoch)
        wrapped = self.provider.wrap(epoch, dek, _key_aad(bare))
        return KeyRow(bare.key_id, ledger_id, ref, purpose, bare.generation, wrapped, epoch)

    def open_key(self, row: KeyRow) -> DataKey:
        """The key of a row. Raises :class:`DamagedKeyError` when the row does not unwrap to the key that it names."""
        return self._data_key(row.key_id, row.key_id, row.wrapped, row.epoch, _key_aad(row))

    def rewrapped_key(self, row: KeyRow, epoch: int) -> KeyRow:
        """The same key, wrapped for its row under another epoch; past the cache, which many keys would flush.

        Raises :class:`DamagedKeyError` as :meth:`open_key` does: a row that is damaged is never made to look whole.
        """
        dek = self._unwrap(row.wrapped, row.epoch, _key_aad(row))
        if not hmac.compare_digest(envelope.key_id_of(dek), row.key_id):
            raise DamagedKeyError("a row of the vault holds another key than it names")
        bare = replace(row, wrapped=b"", epoch=epoch)
        return replace(bare, wrapped=self.provider.wrap(epoch, dek, _key_aad(bare)))

    def rewrapped_secret(self, row: SecretRow, epoch: int) -> SecretRow:
        """The same secret, wrapped for its row under another epoch. Raises as :meth:`rewrapped_key` does."""
        secret = self._unwrap(row.wrapped, row.epoch, _secret_aad(row))
        if row.key_id is not None and not hmac.compare_digest(envelope.key_id_of(secret), row.key_id):
            raise DamagedKeyError("a row of the vault holds another key than it names")
        bare = replace(row, wrapped=b"", epoch=epoch)
        return replace(bare, wrapped=self.provider.wrap(epoch, secret, _secret_aad(bare)))

    def new_link(self, ledger_id: UUID, ref: bytes, epoch: int) -> tuple[LinkKey, LinkRow, LinkRow]:
        """A fresh link key of 32 random bytes, wrapped for the way from the names and for the way from the ref."""
        key = os.urandom(envelope.KEY_SIZE)
        link = LinkKey.of(key)
        from_names = LinkRow(ledger_id, link.link_id, None, b"", epoch)
        from_ref = LinkRow(ledger_id, None, ref, b"", epoch)
        return link, self._wrapped_link(from_names, key), self._wrapped_link(from_ref, key)

    def open_link(self, row: LinkRow) -> LinkKey:
        """The link key of a row, of either side. Raises :class:`DamagedKeyError` when the row does not unwrap to it."""
        aad = _link_aad(row)
        link = LinkKey.of(self._undo(_link_name(row), row.wrapped, row.epoch, aad))
        # The row of a ref names no link id: AAD and tag alone vouch for it.
        if row.link_id is not None and not hmac.compare_digest(link.link_id, row.link_id):
            raise DamagedKeyError("a row of the vault holds another key than it names")
        return link

    def rewrapped_link(self, row: LinkRow, epoch: int) -> LinkRow:
        """The same link key, wrapped for its row under another epoch. Raises as :meth:`rewrapped_key` does."""
        key = self._unwrap(row.wrapped, row.epoch, _link_aad(row))
        if row.link_id is not None and not hmac.compare_digest(envelope.key_id_of(key), row.link_id):
            raise DamagedKeyError("a row of the vault holds another key than it names")
        return self._wrapped_link(replace(row, epoch=epoch), key)

    def forget_link(self, link_id: bytes, ref: bytes) -> None:
        """Drop a link key from the cache, by both ways."""
        self._cache.forget([("link", link_id), ("link of", ref)])

    def _wrapped_link(self, bare: LinkRow, key: bytes) -> LinkRow:
        return replace(bare, wrapped=self.provider.wrap(bare.epoch, key, _link_aad(bare)))

    def forget(self, key_ids: Iterable[bytes]) -> None:
        """Drop keys from the cache, which would otherwise hold them for a little longer."""
        self._cache.forget(key_ids)

    def new_secret(self, ledger_id: UUID, kind: WrapKind, epoch: int) -> SecretRow:
        """A fresh secret of 32 random bytes (for a signing key: the Ed25519 seed), wrapped for its row."""
        secret = os.urandom(envelope.KEY_SIZE)
        key_id = envelope.key_id_of(secret) if kind is WrapKind.LEDGER_DEK else None
        bare = SecretRow(ledger_id, kind, key_id, b"", epoch)
        return SecretRow(ledger_id, kind, key_id, self.provider.wrap(epoch, secret, _secret_aad(bare)), epoch)

    def open_ledger(self, rows: Mapping[WrapKind, SecretRow]) -> LedgerKeys:
        """A ledger's data key and name key. Raises :class:`UnknownLedgerError` when it has none."""
        if WrapKind.LEDGER_DEK not in rows or WrapKind.NAME_KEY not in rows:
            raise UnknownLedgerError("the vault has no secrets of this ledger")
        return LedgerKeys(self.open_ledger_key(rows[WrapKind.LEDGER_DEK]), self._open_secret(rows[WrapKind.NAME_KEY]))

    def open_ledger_key(self, row: SecretRow) -> DataKey:
        """A ledger's own data key."""
        name = (row.ledger_id, row.kind)
        return self._data_key(name, row.key_id or b"", row.wrapped, row.epoch, _secret_aad(row))

    def open_signing_key(self, rows: Mapping[WrapKind, SecretRow]) -> Ed25519PrivateKey:
        """The signing key of a ledger, or of the service."""
        if WrapKind.SIGNING_KEY not in rows:
            raise UnknownLedgerError("the vault has no signing key of this ledger")
        return Ed25519PrivateKey.from_private_bytes(self._open_secret(rows[WrapKind.SIGNING_KEY]))

    def _open_secret(self, row: SecretRow) -> bytes:
        aad = _secret_aad(row)
        return self._undo((row.ledger_id, row.kind), row.wrapped, row.epoch, aad)

    def _data_key(self, name: object, key_id: bytes, wrapped: bytes, epoch: int, aad: bytes) -> DataKey:
        dek = self._undo(name, wrapped, epoch, aad)
        # I9: a wrap that opens to another key than the row names must never serve under that name.
        if not hmac.compare_digest(envelope.key_id_of(dek), key_id):
            raise DamagedKeyError("a row of the vault holds another key than it names")
        return DataKey(dek, key_id)

    def _undo(self, name: object, wrapped: bytes, epoch: int, aad: bytes) -> bytes:
        return self._cache.unwrap(name, wrapped, aad, lambda: self._unwrap(wrapped, epoch, aad))

    def _unwrap(self, wrapped: bytes, epoch: int, aad: bytes) -> bytes:
        try:
            plaintext = self.provider.unwrap(epoch, wrapped, aad)
            if len(plaintext) != envelope.KEY_SIZE:
                raise NotAuthenticError("what was wrapped is not a key")
        except NotAuthenticError as error:
            raise DamagedKeyError(f"a row of the vault does not unwrap: {error}") from None
        except ProviderError as error:
            error.epoch = epoch
            raise
        return plaintext


def _key_aad(row: KeyRow) -> bytes:
    return _checked_aad(
        WrapKind.DEK, row.key_id, row.ledger_id, row.subject_ref, row.purpose, row.generation, row.epoch
    )


def _secret_aad(row: SecretRow) -> bytes:
    key_id = envelope.ABSENT_KEY_ID if row.key_id is None else row.key_id
    return _checked_aad(row.kind, key_id, row.ledger_id, envelope.ABSENT_REF, "", 0, row.epoch)


def _link_name(row: LinkRow) -> tuple[str, bytes | None]:
    return ("link", row.link_id) if row.subject_ref is None else ("link of", row.subject_ref)


def _link_aad(row: LinkRow) -> bytes:
    link_id = envelope.ABSENT_KEY_ID if row.link_id is None else row.link_id
    ref = envelope.ABSENT_REF if row.subject_ref is None else row.subject_ref
    return _checked_aad(WrapKind.LINK_KEY, link_id, row.ledger_id, ref, "", 0, row.epoch)


def _checked_aad(
    kind: WrapKind, key_id: bytes, ledger_id: UUID, ref: bytes, purpose: str, generation: int, epoch: int
) -> bytes:
    try:
        return envelope.wrap_aad(
            kind,
            key_id=key_id,
            ledger_id=ledger_id,
            subject_ref=ref,
            purpose=purpose,
            generation=generation,
            epoch=epoch,
        )
    except (ValueError, OverflowError):
        raise DamagedKeyError("a row of the vault has a field that no key can have") from None
