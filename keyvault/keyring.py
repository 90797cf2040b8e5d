"""Wrapping and unwrapping what stands in the vault's rows, by way of the key provider and the unwrap cache."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyvault import envelope
from keyvault.cache import UnwrapCache
from keyvault.envelope import DataKey, LinkKey, NameKey, WrapKind
from keyvault.errors import DamagedKeyError, NotAuthenticError, ProviderError, UnknownLedgerError
from keyvault.link_store import LinkRow
from keyvault.providers import KeyProvider
from keyvault.store import FIRST_GENERATION, KeyRow, SecretRow

# The service's own signing key, which signs the journal, stands among the secrets under the id of no ledger.
SERVICE: Final = UUID(int=0)
LEDGER_SECRETS: Final = (WrapKind.LEDGER_DEK, WrapKind.NAME_KEY, WrapKind.SIGNING_KEY)


@dataclass(frozen=True, slots=True)
class LedgerKeys:
    """A ledger's own data key and name key, opened, and the two rows that they stand in. As short-lived as any data
    key."""

    rows: tuple[SecretRow, SecretRow]
    data_key: DataKey
    _name_key: NameKey = field(repr=False)

    def subject_hash(self, name: str) -> bytes:
        """What stands for a subject's name in the index."""
        return self._name_key.subject_hash(name)

    def stream_hash(self, name: str) -> bytes:
        """What stands for a stream's name in the index."""
        return self._name_key.stream_hash(name)

    def event_id(self, label: str, number: int) -> UUID:
        """See :func:`keyvault.envelope.derive_event_id`."""
        return self._name_key.event_id(label, number)


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
        return bare._replace(wrapped=wrapped)

    def open_key(self, row: KeyRow) -> DataKey:
        """The key of a row. Raises :class:`DamagedKeyError` when the row does not unwrap to the key that it names."""
        return self.open_keys([row])[0]

    def open_keys(self, rows: Sequence[KeyRow]) -> list[DataKey]:
        """The same for several."""
        return self._cache.opened([(row.key_id, row) for row in rows], self._opened_key)

    def rewrapped_key(self, row: KeyRow, epoch: int) -> KeyRow:
        """The same key, wrapped for its row under another epoch; past the cache, which many keys would flush.

        Raises :class:`DamagedKeyError` as :meth:`open_key` does: a row that is damaged is never made to look whole.
        """
        dek = self._unwrap(row.wrapped, row.epoch, _key_aad(row))
        if not hmac.compare_digest(envelope.key_id_of(dek), row.key_id):
            raise DamagedKeyError("a row of the vault holds another key than it names")
        bare = row._replace(wrapped=b"", epoch=epoch)
        return bare._replace(wrapped=self.provider.wrap(epoch, dek, _key_aad(bare)))

    def rewrapped_secret(self, row: SecretRow, epoch: int) -> SecretRow:
        """The same secret, wrapped for its row under another epoch. Raises as :meth:`rewrapped_key` does."""
        secret = self._unwrap(row.wrapped, row.epoch, _secret_aad(row))
        if row.key_id is not None and not hmac.compare_digest(envelope.key_id_of(secret), row.key_id):
            raise DamagedKeyError("a row of the vault holds another key than it names")
        bare = row._replace(wrapped=b"", epoch=epoch)
        return bare._replace(wrapped=self.provider.wrap(epoch, secret, _secret_aad(bare)))

    def new_link(self, ledger_id: UUID, ref: bytes, epoch: int) -> tuple[LinkKey, LinkRow, LinkRow]:
        """A fresh link key of 32 random bytes, wrapped for the way from the names and for the way from the ref."""
        key = os.urandom(envelope.KEY_SIZE)
        link = LinkKey.of(key)
        from_names = LinkRow(ledger_id, link.link_id, None, b"", epoch)
        from_ref = LinkRow(ledger_id, None, ref, b"", epoch)
        return link, self._wrapped_link(from_names, key), self._wrapped_link(from_ref, key)

    def open_link(self, row: LinkRow) -> LinkKey:
        """The link key of a row, of either side. Raises :class:`DamagedKeyError` when the row does not unwrap to it."""
        return self.open_links([row])[0]

    def open_links(self, rows: Sequence[LinkRow]) -> list[LinkKey]:
        """The same for several."""
        return self._cache.opened([(_link_name(row), row) for row in rows], self._opened_link)

    def rewrapped_link(self, row: LinkRow, epoch: int) -> LinkRow:
        """The same link key, wrapped for its row under another epoch. Raises as :meth:`rewrapped_key` does."""
        key = self._unwrap(row.wrapped, row.epoch, _link_aad(row))
        if row.link_id is not None and not hmac.compare_digest(envelope.key_id_of(key), row.link_id):
            raise DamagedKeyError("a row of the vault holds another key than it names")
        return self._wrapped_link(row._replace(epoch=epoch), key)

    def forget_link(self, link_id: bytes, ref: bytes) -> None:
        """Drop a link key from the cache, by both ways."""
        self._cache.forget([("link", link_id), ("link of", ref)])

    def _wrapped_link(self, bare: LinkRow, key: bytes) -> LinkRow:
        return bare._replace(wrapped=self.provider.wrap(bare.epoch, key, _link_aad(bare)))

    def forget(self, key_ids: Iterable[bytes]) -> None:
        """Drop keys from the cache, which would otherwise hold them for a little longer."""
        self._cache.forget(key_ids)

    def new_secret(self, ledger_id: UUID, kind: WrapKind, epoch: int) -> SecretRow:
        """A fresh secret of 32 random bytes (for a signing key: the Ed25519 seed), wrapped for its row."""
        secret = os.urandom(envelope.KEY_SIZE)
        key_id = envelope.key_id_of(secret) if kind is WrapKind.LEDGER_DEK else None
        bare = SecretRow(ledger_id, kind, key_id, b"", epoch)
        return bare._replace(wrapped=self.provider.wrap(epoch, secret, _secret_aad(bare)))

    def open_ledger(self, rows: Mapping[WrapKind, SecretRow]) -> LedgerKeys:
        """A ledger's data key and name key. Raises :class:`UnknownLedgerError` when it has none."""
        if WrapKind.LEDGER_DEK not in rows or WrapKind.NAME_KEY not in rows:
            raise UnknownLedgerError("the vault has no secrets of this ledger")
        row, name_row = rows[WrapKind.LEDGER_DEK], rows[WrapKind.NAME_KEY]
        name_key = self._cache.opened([(_secret_name(name_row), name_row)], self._opened_name_key)[0]
        return LedgerKeys((row, name_row), self.open_ledger_key(row), name_key)

    def recent_ledger(self, ledger_id: UUID) -> LedgerKeys | None:
        """A ledger's two keys as far as both are remembered: those that it had a moment ago. Whoever uses them asks
        the vault whether it still has the rows that they stand in."""
        found = self._cache.recent([(ledger_id, WrapKind.LEDGER_DEK), (ledger_id, WrapKind.NAME_KEY)])
        if len(found) < 2:
            return None
        (row, data_key), (name_row, name_key) = found
        return LedgerKeys((row, name_row), data_key, name_key)

    def open_ledger_key(self, row: SecretRow) -> DataKey:
        """A ledger's own data key."""
        return self._cache.opened([(_secret_name(row), row)], self._opened_ledger_key)[0]

    def open_signing_key(self, rows: Mapping[WrapKind, SecretRow]) -> Ed25519PrivateKey:
        """The signing key of a ledger, or of the service."""
        if WrapKind.SIGNING_KEY not in rows:
            raise UnknownLedgerError("the vault has no signing key of this ledger")
        row = rows[WrapKind.SIGNING_KEY]
        seed = self._cache.unwrap(_secret_name(row), row.wrapped, _secret_aad(row), lambda: self._opened_secret(row))
        return Ed25519PrivateKey.from_private_bytes(seed)

    # What follows is done once for a row: the cache gives it again for that very row alone, for its lifetime.

    def _opened_key(self, row: KeyRow) -> DataKey:
        return _data_key(row.key_id, self._unwrap(row.wrapped, row.epoch, _key_aad(row)))

    def _opened_ledger_key(self, row: SecretRow) -> DataKey:
        return _data_key(row.key_id or b"", self._opened_secret(row))

    def _opened_name_key(self, row: SecretRow) -> NameKey:
        return NameKey.of(self._opened_secret(row))

    def _opened_secret(self, row: SecretRow) -> bytes:
        return self._unwrap(row.wrapped, row.epoch, _secret_aad(row))

    def _opened_link(self, row: LinkRow) -> LinkKey:
        link = LinkKey.of(self._unwrap(row.wrapped, row.epoch, _link_aad(row)))
        # The row of a ref names no link id: AAD and tag alone vouch for it.
        if row.link_id is not None and not hmac.compare_digest(link.link_id, row.link_id):
            raise DamagedKeyError("a row of the vault holds another key than it names")
        return link

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


def _data_key(key_id: bytes, dek: bytes) -> DataKey:
    # I9: a wrap that opens to another key than the row names must never serve under that name.
    if not hmac.compare_digest(envelope.key_id_of(dek), key_id):
        raise DamagedKeyError("a row of the vault holds another key than it names")
    return DataKey(dek, key_id)


def _secret_name(row: SecretRow) -> tuple[UUID, WrapKind]:
    return (row.ledger_id, row.kind)


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
