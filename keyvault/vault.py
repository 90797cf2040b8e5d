"""The key vault: what the ledger's ``KeyVault`` port asks for, put together from its parts.

What each method promises is written there. Every method raises :class:`~keyvault.errors.VaultUnavailableError` when the
database, the key provider or (for ``finish_erasure``) the journal cannot be reached, and
:class:`~keyvault.errors.UnknownLedgerError` for a ledger whose secrets were never made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from keyvault import (
    clear_names,
    database,
    epochs,
    erasing,
    erasure_store,
    finality,
    linking,
    lookup,
    mark_store,
    name_store,
    reinstating,
    statement_store,
    store,
)
from keyvault import documents as sealing
from keyvault import reserve as reserving
from keyvault.cache import UnwrapCache
from keyvault.documents import Document
from keyvault.envelope import WrapKind
from keyvault.epochs import Epochs, reread
from keyvault.erasing import ErasureRequest
from keyvault.finality import Custody, Erased
from keyvault.guard import RestoreGuard
from keyvault.inspection import Inspection
from keyvault.journal import Journal
from keyvault.keyring import LEDGER_SECRETS, SERVICE, Keyring, LedgerKeys
from keyvault.providers import KeyProvider
from keyvault.reinstating import ReinstatementRequest
from keyvault.signatures import verify_ed25519
from keyvault.signed_checkpoints import SignedCheckpointFolder
from keyvault.store import FenceRow, SecretRow
from keyvault.values import (
    ErasureEntry,
    Finality,
    KeyView,
    Linkage,
    Reinstatement,
    Reservation,
    Statement,
    StatementKind,
    StreamEntry,
    SubjectEntry,
    VaultMark,
)

T = TypeVar("T")


class Vault:
    """The separate store of keys and names. Safe to use from several threads."""

    def __init__(
        self,
        engine: Engine,
        provider: KeyProvider,
        journal: Journal,
        clock: Callable[[], int],
        cache: UnwrapCache | None = None,
        custody: Custody | None = None,
        journal_key: bytes | None = None,
    ) -> None:
        """``journal_key``: the public key that the journal's lines must verify under, 32 bytes; None: the vault's own,
        whichever that is."""
        self.engine = engine
        self.journal = journal
        self._keyring = Keyring(provider, cache if cache is not None else UnwrapCache())
        self._clock = clock
        self._custody = custody if custody is not None else Custody()
        self.epochs = Epochs(engine, self._keyring, journal, clock)
        self.inspection = Inspection(engine, self._keyring, journal)
        self.guard = RestoreGuard(engine, self._keyring, journal, clock, journal_key)
        self.signed_checkpoints = SignedCheckpointFolder(journal.path.with_name(f"{journal.path.name}.checkpoints"))

    def initialise(self) -> None:
        """Make epoch 1 and the service's signing key, after the migrations. See :func:`keyvault.epochs.initialise`."""
        epochs.initialise(self.engine, self._keyring, self.journal, self._clock)

    def check(self) -> None:
        """Raise unless the database answers, the provider has the current KEK, and the journal takes a line behind the
        last one that the vault has seen."""
        self._reread(lambda: epochs.probe(self.engine, self._keyring))
        mark = database.read(self.engine, mark_store.journal_mark)
        self.journal.check(self._signing_key(SERVICE).public_key(), mark)

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()

    @property
    def kek_place(self) -> Path | None:
        """The folder that the KEKs lie in, where they are files."""
        return self._keyring.provider.place

    def kek_epochs(self) -> frozenset[int]:
        """The epochs whose KEK the provider has. Raises :class:`~keyvault.errors.ProviderError`."""
        return self._keyring.provider.epochs()

    def journal_verifying_key(self) -> bytes:
        """The 32-byte Ed25519 public key that the journal's lines verify under."""
        return self.verifying_key(SERVICE)

    # Ledgers

    def create_ledger(self, ledger_id: UUID) -> None:
        """Make the ledger's own secrets: name key, data key, signing key. Doing it again changes nothing."""
        if ledger_id == SERVICE:
            raise ValueError("the nil UUID stands for the service itself")
        if database.read(self.engine, lambda connection: store.secrets_of(connection, ledger_id)):
            return
        with database.writing(self.engine) as connection:
            epoch = epochs.held_epoch(connection)
            secrets = [self._keyring.new_secret(ledger_id, kind, epoch) for kind in LEDGER_SECRETS]
            store.insert_secrets(connection, secrets, self._clock())
            mark_store.insert_ledger(connection, ledger_id)

    def mark(self, ledger_id: UUID) -> VaultMark:
        """How far the vault is now, as this ledger is to remember it."""
        return database.read(self.engine, lambda connection: mark_store.vault_mark(connection, ledger_id))

    def verifying_key(self, ledger_id: UUID) -> bytes:
        """The 32-byte Ed25519 public key of the ledger's signing key."""
        return self._signing_key(ledger_id).public_key().public_bytes_raw()

    def sign(self, ledger_id: UUID, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of ``message`` by the ledger's signing key."""
        return self._signing_key(ledger_id).sign(message)

    @staticmethod
    def check_signature(public_key: bytes, signature: bytes, message: bytes) -> None:
        """Raise ``ValueError`` unless the 64-byte Ed25519 signature of the message is by this 32-byte key."""
        verify_ed25519(public_key, signature, message)

    def derive_ids(self, ledger_id: UUID, label: str, numbers: Sequence[int]) -> Sequence[UUID]:
        """Event ids from label and numbers, not to be guessed back without the ledger's name key."""
        ledger = self._ledger_keys(ledger_id)
        return [ledger.event_id(label, number) for number in numbers]

    # Names and keys

    def reserve(
        self,
        ledger_id: UUID,
        streams: Mapping[str, str | None],
        keys: Collection[tuple[str, str]],
        *,
        mint: bool,
    ) -> Reservation:
        """Turn names into refs and keys for one append.

        A stream that is not made because of its owner leaves (owner's ref, "") in ``refused``, even while that key
        lives. Raises :class:`~keyvault.errors.DamagedKeyError` when a key that is needed does not unwrap.
        """
        request = reserving.Request(streams, keys)
        return self._reread(
            lambda: reserving.reserve(self.engine, self._keyring, self._clock, ledger_id, request, mint=mint)
        )

    def replace_stream(self, ledger_id: UUID, name: str, old_ref: bytes) -> None:
        """Forget the index row of a stream that never got an event, if it still leads to ``old_ref``."""
        digest = self._ledger_keys(ledger_id).stream_hash(name)

        def replace() -> None:
            with database.writing(self.engine) as connection:
                row = name_store.streams_by_hash(connection, ledger_id, [digest]).get(digest)
                entry = None if row is None else linking.stream_of(self._keyring, ledger_id, row)
                if row is not None and entry is not None and entry.ref == old_ref:
                    name_store.delete_stream(connection, ledger_id, row)

        self._reread(replace)

    def find_streams(self, ledger_id: UUID, names: Collection[str]) -> Mapping[str, StreamEntry]:
        """The streams of these names, as far as they are in the index and it leads on."""
        return self._reread(lambda: lookup.find_streams(self.engine, self._keyring, ledger_id, names))

    def find_subjects(self, ledger_id: UUID, names: Collection[str]) -> Mapping[str, SubjectEntry]:
        """The subjects of these names, as far as they are in the index and it leads on."""
        return self._reread(lambda: lookup.find_subjects(self.engine, self._keyring, ledger_id, names))

    def unlinked_among(self, ledger_id: UUID, names: Collection[str]) -> Collection[str]:
        """The names of subjects that were erased and whose names were forgotten: nothing leads on from there."""
        return self._reread(lambda: lookup.unlinked_among(self.engine, self._keyring, ledger_id, names))

    def subject(self, ledger_id: UUID, ref: bytes) -> SubjectEntry | None:
        """The subject of this ref."""
        return self._reread(lambda: lookup.subject(self.engine, self._keyring, ledger_id, ref))

    def look_up_keys(
        self, ledger_id: UUID, key_ids: Collection[bytes], *, recording: bool = False
    ) -> Mapping[bytes, KeyView]:
        """What is known of these keys now, the ledger's own among them. Never from memory (I7)."""
        return self._reread(
            lambda: lookup.look_up_keys(self.engine, self._keyring, ledger_id, key_ids, recording=recording)
        )

    def fences(self, ledger_id: UUID, after: bytes | None, limit: int) -> Sequence[FenceRow]:
        """The next fences of a ledger in order of their keys."""
        return database.read(self.engine, lambda connection: store.fences_after(connection, ledger_id, after, limit))

    def fenced(self, ledger_id: UUID, key_ids: Collection[bytes]) -> Collection[bytes]:
        """Those of these keys that have a fence."""
        found = database.read(self.engine, lambda connection: store.fences_by_id(connection, ledger_id, key_ids))
        return frozenset(row.key_id for row in found)

    def stored_keys(self, ledger_id: UUID, key_ids: Collection[bytes]) -> Collection[bytes]:
        """Those of these keys of which there is a wrapped copy, whatever else is said of them."""
        return database.read(self.engine, lambda connection: store.stored_among(connection, ledger_id, key_ids))

    # Derived documents

    def seal_documents(self, ledger_id: UUID, documents: Sequence[Document]) -> Sequence[bytes | None]:
        """Seal derived documents. None for one of which a key is gone, restricted or damaged now."""
        return self._reread(lambda: sealing.seal_documents(self.engine, self._keyring, ledger_id, documents))

    def open_documents(self, ledger_id: UUID, documents: Sequence[Document]) -> Sequence[bytes | None]:
        """Open derived documents. None for one of which a key is gone, restricted or damaged now, or that is not
        authentic."""
        return self._reread(lambda: sealing.open_documents(self.engine, self._keyring, ledger_id, documents))

    # Subjects' states

    def restrict(self, ledger_id: UUID, ref: bytes, now: int) -> None:
        """Active → restricted; while a part of the subject is being erased, from the end of that on."""
        self._change_restriction(ledger_id, ref, "active", "restricted", now)

    def lift_restriction(self, ledger_id: UUID, ref: bytes, now: int) -> None:
        """Restricted → active; while a part of the subject is being erased, from the end of that on."""
        self._change_restriction(ledger_id, ref, "restricted", "active", now)

    def reinstate(
        self, ledger_id: UUID, name: str, *, reason: str | None, reinstated_at: int, reinstated_by: UUID
    ) -> Reinstatement:
        """Let the name of an erased subject begin anew. Raises :class:`~keyvault.errors.UnknownSubjectError`,
        :class:`~keyvault.errors.NotErasedError`, or :class:`~keyvault.errors.BusyError` while an erasure is open."""
        request = ReinstatementRequest(ledger_id, reason, reinstated_at, reinstated_by)
        return self._reread(lambda: reinstating.reinstate(self.engine, self._keyring, name, request))

    def finish_reinstatement(self, ledger_id: UUID, ref: bytes) -> None:
        """The journal's line; then nothing is left to be said."""
        self._reread(
            lambda: reinstating.finish(self.engine, self._keyring, self.journal, ledger_id, ref, self._clock())
        )

    def open_reinstatements(self) -> Sequence[Reinstatement]:
        """Reinstatements in any ledger that are not finished, oldest first."""
        return reinstating.open_ones(self.engine)

    def begin_erasure(
        self,
        ledger_id: UUID,
        subject: str | bytes,
        *,
        erasure_id: UUID,
        purposes: Collection[str] | None,
        ground: str | None,
        reference: str | None,
        name_commitment: bytes | None,
        requested_at: int,
        requested_by: UUID,
        block_unknown: bool,
    ) -> ErasureEntry:
        """Step 1. Raises :class:`~keyvault.errors.UnknownSubjectError`,
        :class:`~keyvault.errors.UnknownPurposeError`, or :class:`ValueError` for no purposes at all.

        An erasure of the same subject that is open already is given back as it is, whatever it asks for: finish it, and
        ask again. A ref that nobody has is never made, not even with ``block_unknown``.
        """
        distinct = erasing.distinct(purposes)
        request = ErasureRequest(
            erasure_id, ledger_id, distinct, ground, reference, name_commitment, requested_at, requested_by
        )
        return self._reread(
            lambda: erasing.begin(self.engine, self._keyring, subject, request, block_unknown=block_unknown)
        )

    def finish_erasure(self, ledger_id: UUID, erasure_id: UUID, erased_at: int) -> ErasureEntry:
        """Steps 3 and 4. Raises :class:`~keyvault.errors.UnknownErasureError`."""
        return self._reread(
            lambda: erasing.finish(
                self.engine, self._keyring, self.journal, ledger_id, erasure_id, erased_at, self._clock()
            )
        )

    def open_erasures(self) -> Sequence[ErasureEntry]:
        """Erasures of any ledger that have begun and are not done, oldest first."""
        return erasing.open_ones(self.engine)

    def erasure(self, ledger_id: UUID, erasure_id: UUID) -> ErasureEntry | None:
        """The erasure of this id."""
        return erasing.find(self.engine, ledger_id, erasure_id)

    def erasures(
        self, ledger_id: UUID, *, reference: str | None, done: bool | None, after: UUID | None, limit: int
    ) -> Sequence[ErasureEntry]:
        """Erasures in order of their ids."""
        return database.read(
            self.engine,
            lambda connection: erasure_store.list_erasures(
                connection, ledger_id, reference=reference, done=done, after=after, limit=limit
            ),
        )

    def erasures_of(self, ledger_id: UUID, ref: bytes) -> Sequence[ErasureEntry]:
        """Every erasure of this subject."""
        return database.read(
            self.engine, lambda connection: erasure_store.erasures_of_subject(connection, ledger_id, ref)
        )

    # Forgetting names

    def unlink(self, ledger_id: UUID, ref: bytes, now: int) -> int:
        """Cut the way from the names of an erased subject. Raises :class:`~keyvault.errors.UnknownSubjectError`,
        :class:`~keyvault.errors.NotErasedError`, :class:`~keyvault.errors.KeysLiveError`, or
        :class:`~keyvault.errors.BusyError` while an erasure is open. See :mod:`keyvault.linking`."""
        return self._reread(
            lambda: linking.unlink(self.engine, self._keyring, self.journal, ledger_id, ref, now, self._clock())
        )

    def erasures_to_unlink(
        self, ledger_id: UUID, *, erased_until: int, after: UUID | None, limit: int
    ) -> Sequence[ErasureEntry]:
        """Erasures of which the name can be forgotten, in order of their ids. Finds nothing at once, however many
        there have been."""
        return database.read(
            self.engine,
            lambda connection: erasure_store.to_unlink(connection, ledger_id, erased_until, after, limit),
        )

    def linkages(self, ledger_id: UUID, refs: Collection[bytes]) -> Mapping[bytes, Linkage]:
        """Ref → what decides whether the name of that subject can be forgotten."""
        return database.read(self.engine, lambda connection: erasure_store.linkages(connection, ledger_id, refs))

    def seal_clear_names(self, follower: Callable[[int], None] = lambda sealed: None) -> int:
        """See :func:`keyvault.clear_names.seal`."""
        return clear_names.seal(self.engine, self._keyring, follower)

    # What is stated about them later

    def finality(self, entries: Sequence[Erased], *, ask_keeper: bool) -> Sequence[Finality]:
        """For each of these erasures, whether it is final. See :mod:`keyvault.finality`."""
        provider = self._keyring.provider if ask_keeper else None
        return finality.look_up(self.engine, entries, provider, self._custody, self._clock())

    def erasures_without(self, kind: StatementKind, *, after: UUID | None, limit: int) -> Sequence[ErasureEntry]:
        """Erasures of any ledger that are done and about which nothing of this kind was stated, in order of id."""
        return database.read(
            self.engine, lambda connection: statement_store.done_without(connection, kind, after, limit)
        )

    def count_erasures_without(self, kind: StatementKind, *, erased_before: int | None = None) -> int:
        """How many such erasures there are; with ``erased_before``: that were carried out before then."""
        return database.read(
            self.engine, lambda connection: statement_store.count_done_without(connection, kind, erased_before)
        )

    def statements(self, ledger_id: UUID, erasure_ids: Collection[UUID]) -> Mapping[UUID, Sequence[Statement]]:
        """Erasure → what was stated about it."""
        return database.read(
            self.engine, lambda connection: statement_store.statements_about(connection, ledger_id, erasure_ids)
        )

    def add_statement(
        self, ledger_id: UUID, erasure_id: UUID, kind: StatementKind, at: int, payload: str, signature: bytes
    ) -> None:
        """Keep a statement for good, unless there is one of this kind: the first one stays."""
        with database.writing(self.engine) as connection:
            statement_store.insert_statement(connection, ledger_id, Statement(erasure_id, kind, at, payload, signature))
            if kind == "unlinked":
                erasure_store.mark_unlinked(connection, ledger_id, erasure_id, at)

    def _change_restriction(
        self,
        ledger_id: UUID,
        ref: bytes,
        old: Literal["active", "restricted"],
        new: Literal["active", "restricted"],
        now: int,
    ) -> None:
        self._reread(
            lambda: erasing.change_restriction(self.engine, self._keyring, self.journal, ledger_id, ref, old, new, now)
        )

    def _ledger_keys(self, ledger_id: UUID) -> LedgerKeys:
        return self._reread(lambda: self._keyring.open_ledger(self._secrets(ledger_id)))

    def _signing_key(self, ledger_id: UUID) -> Ed25519PrivateKey:
        return self._reread(lambda: self._keyring.open_signing_key(self._secrets(ledger_id)))

    def _secrets(self, ledger_id: UUID) -> Mapping[WrapKind, SecretRow]:
        return database.read(self.engine, lambda connection: store.secrets_of(connection, ledger_id))

    def _reread(self, work: Callable[[], T]) -> T:
        return reread(self.engine, work)
