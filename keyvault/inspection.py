"""What a drill asks of the vault: one subject's keys while they live, and whether anything opens them afterwards.

The only place that gives a data key out raw, and only to be looked for (``audit-ledger drill erase``). Everything else
of the service is handed a :class:`~keyvault.envelope.DataKey`, which seals and opens and shows nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, Engine, select
from typing_extensions import override

from keyvault import database, envelope, epoch_store, journal, store
from keyvault.envelope import DataKey, WrapKind
from keyvault.errors import NotAuthenticError, UnknownSubjectError
from keyvault.journal import Journal, JournalEntry
from keyvault.keyring import SERVICE, Keyring
from keyvault.providers.file import FileProvider
from keyvault.store import KeyRow
from keyvault.tables import subject_keys


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Exhibit:
    """Copies of one subject's keys, taken while they live: the wrapped rows, and what they open to.

    For a subject that was made up for the purpose. Kept in memory by whoever took it, and nowhere else.
    """

    ledger_id: UUID
    rows: tuple[KeyRow, ...]
    _opened: Mapping[bytes, bytes]

    @property
    def key_ids(self) -> tuple[bytes, ...]:
        """Of its keys, in order of their rows."""
        return tuple(row.key_id for row in self.rows)

    @property
    def raw_keys(self) -> tuple[bytes, ...]:
        """What must stand nowhere. To be looked for, and for nothing else."""
        return tuple(self._opened.values())

    @property
    def data_keys(self) -> tuple[DataKey, ...]:
        """The keys as the service would use them."""
        return tuple(DataKey.of(dek) for dek in self._opened.values())

    @override
    def __reduce__(self) -> NoReturn:
        raise TypeError("an exhibit holds keys and is never pickled or copied")


class Inspection:
    """Looks, and changes nothing. Raises :class:`~keyvault.errors.VaultUnavailableError` as the vault does."""

    def __init__(self, engine: Engine, keyring: Keyring, lines: Journal) -> None:
        self._engine = engine
        self._keyring = keyring
        self._journal = lines

    def exhibit(self, ledger_id: UUID, subject_ref: bytes) -> Exhibit:
        """The keys of a subject that lives. Raises :class:`~keyvault.errors.UnknownSubjectError` when it has none, and
        :class:`~keyvault.errors.NotAuthenticError` when one does not unwrap."""
        rows = tuple(
            database.read(self._engine, lambda connection: store.stored_keys_of(connection, ledger_id, subject_ref))
        )
        if not rows:
            raise UnknownSubjectError("the subject has no keys")
        provider = self._keyring.provider
        opened = {row.key_id: provider.unwrap(row.epoch, row.wrapped, _aad(row, row.epoch)) for row in rows}
        return Exhibit(ledger_id, rows, opened)

    def kept_epochs(self) -> frozenset[int]:
        """The epochs whose KEK the provider has now, whatever the vault's tables say of them."""
        return self._keyring.provider.epochs()

    def stray_keks(self) -> tuple[str, ...]:
        """Files beside the KEKs that hold one under another name, where KEKs are files."""
        provider = self._keyring.provider
        return provider.strays() if isinstance(provider, FileProvider) else ()

    def keys_opened_by(self, exhibit: Exhibit, wraps: Collection[bytes]) -> Sequence[DataKey]:
        """Which of the exhibit's keys these blobs open to, each tried as every one of its rows, as of every epoch that
        there ever was, with every KEK that the provider has."""
        living = sorted(self.kept_epochs())
        known = [row.epoch for row in database.read(self._engine, epoch_store.all_epochs)]
        named = range(1, max((*living, *known), default=0) + 1)
        found: dict[bytes, DataKey] = {}
        for row in exhibit.rows:
            aads = [_aad(row, epoch) for epoch in named]
            if any(self._opens_to(row, wrap, aads, living) for wrap in wraps):
                found[row.key_id] = DataKey.of(exhibit._opened[row.key_id])
        return list(found.values())

    def _opens_to(self, row: KeyRow, wrap: bytes, aads: Sequence[bytes], living: Sequence[int]) -> bool:
        return any(
            envelope.key_id_of(plaintext) == row.key_id
            for aad in aads
            for epoch in living
            if len(plaintext := self._unwrapped(epoch, wrap, aad)) == envelope.KEY_SIZE
        )

    def _unwrapped(self, epoch: int, wrap: bytes, aad: bytes) -> bytes:
        try:
            return self._keyring.provider.unwrap(epoch, wrap, aad)
        except NotAuthenticError:
            return b""

    def keys_of_ledger(self, ledger_id: UUID) -> Sequence[DataKey]:
        """Every key of the ledger that lives: its own, and those of its subjects. For the small ledger of a drill."""

        def look(connection: Connection) -> Sequence[KeyRow]:
            statement = select(subject_keys).where(subject_keys.c.ledger_id == ledger_id)
            return [store.key_row(row, ledger_id) for row in connection.execute(statement)]

        secrets = database.read(self._engine, lambda connection: store.secrets_of(connection, ledger_id))
        rows = database.read(self._engine, look)
        return [
            self._keyring.open_ledger_key(secrets[WrapKind.LEDGER_DEK]),
            *(self._keyring.open_key(row) for row in rows),
        ]

    def journal_lines(self) -> Iterator[JournalEntry]:
        """Every line of the journal, verified. Raises :class:`~keyvault.errors.JournalError`."""
        yield from journal.read(self._journal.path, self._verifying_key(SERVICE))

    def verify(self, ledger_id: UUID, message: bytes, signature: bytes) -> None:
        """Raise :class:`~keyvault.errors.NotAuthenticError` unless this is the ledger's signature of the message."""
        try:
            self._verifying_key(ledger_id).verify(signature, message)
        except InvalidSignature:
            raise NotAuthenticError("the signature is not the ledger's own, or not of this text") from None

    def _verifying_key(self, ledger_id: UUID) -> Ed25519PublicKey:
        secrets = database.read(self._engine, lambda connection: store.secrets_of(connection, ledger_id))
        return self._keyring.open_signing_key(secrets).public_key()


def _aad(row: KeyRow, epoch: int) -> bytes:
    """What a wrap of this row is bound to, were it wrapped under ``epoch``."""
    return envelope.wrap_aad(
        WrapKind.DEK,
        key_id=row.key_id,
        ledger_id=row.ledger_id,
        subject_ref=row.subject_ref,
        purpose=row.purpose,
        generation=row.generation,
        epoch=epoch,
    )
