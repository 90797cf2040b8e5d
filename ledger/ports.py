"""What the ledger needs from outside, as Protocols whose docstrings are the contracts.

Nothing here is implemented by inheriting: ``keyvault.vault.Vault`` happens to satisfy :class:`KeyVault`, and
``api/wiring.py`` is where the type checker sees that it does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from ledger.domain.access import ApiKey, LedgerInfo
from ledger.domain.events import Head, RecordedEvent, StreamVersions
from ledger.domain.query import EventFilter, Place

SubjectState = Literal["active", "restricted", "erasing", "erased"]
KeyStatus = Literal["living", "restricted", "fenced", "damaged"]
Refusal = Literal["erased", "erasing", "full"]


@dataclass(frozen=True, slots=True)
class Shredding:
    """The ledger's own record that a key is dead: from ``position``, recorded at ``at`` (microseconds), on."""

    position: int
    at: int
    erasure_id: UUID


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """The events that have parts under some keys: how many, and the first and last position (None: no events)."""

    events: int
    first: int | None
    last: int | None


KeyRow = tuple[int, int, int, bytes]
"""A row of ``event_keys``: position, part, role, key_id."""


class DataKey(Protocol):
    """A living key of one subject and purpose (or a ledger's own), opened.

    Lives no longer than the request that asked for it, and is never logged, stored or compared.
    """

    @property
    def key_id(self) -> bytes:
        """32 bytes that commit to the key."""

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Seal ``plaintext`` under a fresh single-use key; every call gives other bytes."""

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Give the plaintext back. Raises ``ValueError`` when the part is not authentic under this key and AAD."""


class KeyView(Protocol):
    """What the vault knows of one key at the moment of the call.

    ``living``: ``key`` is there. ``restricted``: the key exists but may not be used for reading now (its subject is
    restricted, or an erasure of it has begun). ``fenced``: the key is gone and its fence says whose it was.
    ``damaged``: a row is there and does not unwrap to the key that it names. A key of which the vault knows nothing
    has no view at all.
    """

    @property
    def status(self) -> KeyStatus: ...
    @property
    def subject_ref(self) -> bytes | None:
        """16 bytes; None for the ledger's own key."""

    @property
    def purpose(self) -> str: ...
    @property
    def changed_at(self) -> int | None:
        """Microseconds since 1970 UTC: when the subject got its state, or the key its fence."""

    @property
    def erasure_id(self) -> UUID | None:
        """The erasure that shreds or has shredded this key."""

    @property
    def key(self) -> DataKey | None: ...


class StreamEntry(Protocol):
    """A row of the name index: the ref of a stream and of its owner (16 bytes each; no owner: None)."""

    @property
    def ref(self) -> bytes: ...
    @property
    def owner_ref(self) -> bytes | None: ...


class SubjectEntry(Protocol):
    """A subject as the vault knows it."""

    @property
    def ref(self) -> bytes: ...
    @property
    def state(self) -> SubjectState: ...
    @property
    def changed_at(self) -> int: ...
    @property
    def names(self) -> int:
        """How many names lead to this subject."""

    @property
    def key_ids(self) -> Sequence[tuple[bytes, str]]:
        """Every key that this subject has or had, living and fenced, as (key_id, purpose)."""


class Reservation(Protocol):
    """The refs and keys that one append needs."""

    @property
    def complete(self) -> bool:
        """False when something was missing and ``mint`` was false; then ask again with ``mint``."""

    @property
    def streams(self) -> Mapping[str, StreamEntry]:
        """By stream name. A name that is not in the index is absent."""

    @property
    def subjects(self) -> Mapping[str, bytes]:
        """Subject name → ref. A name that is not in the index is absent."""

    @property
    def keys(self) -> Mapping[tuple[bytes, str], DataKey]:
        """(subject ref, purpose) → key; holds what was asked for and, for every owned stream, its owner's ``""``."""

    @property
    def refused(self) -> Mapping[tuple[bytes, str], Refusal]:
        """(subject ref, purpose) for which no key may be minted: any more (``erased``), now (``erasing``), or because
        the subject has as many purposes as it can have (``full``: 60)."""

    @property
    def ledger_key(self) -> DataKey:
        """The ledger's own key, for nonpersonal parts and for names of streams without an owner."""


class ErasureEntry(Protocol):
    """An erasure as the vault keeps it, from its first step on."""

    @property
    def erasure_id(self) -> UUID: ...
    @property
    def ledger_id(self) -> UUID: ...
    @property
    def subject_ref(self) -> bytes: ...
    @property
    def key_ids(self) -> Sequence[tuple[bytes, str]]:
        """The final list: (key_id, purpose) of each key that this erasure shreds, in order of key_id."""

    @property
    def purposes(self) -> Sequence[str] | None:
        """As requested: None = everything but what the person did as an actor."""

    @property
    def ground(self) -> str | None: ...
    @property
    def reference(self) -> str | None: ...
    @property
    def name_commitment(self) -> bytes | None:
        """SHA-256(32-byte salt ‖ name); the salt is stored nowhere. None when the request gave a ref whose name could
        not be read."""

    @property
    def requested_at(self) -> int: ...
    @property
    def requested_by(self) -> UUID: ...
    @property
    def erased_at(self) -> int | None:
        """The recorded-at of its ``SubjectErased``; known from step 3 on."""

    @property
    def done(self) -> bool:
        """True once fences, keys and journal line are in place: steps 1 to 4."""


class KeyVault(Protocol):
    """The separate store of keys and names.

    Durability: what a method has returned survives a crash. Every method is one short transaction of the vault's
    database, sees what other processes have committed before the call, and holds no lock when it returns. Any of them
    raises the vault's own "unavailable" error when database or key provider cannot be reached, and never answers
    in their place from memory. Names are handed over in clear and never stored.
    """

    def create_ledger(self, ledger_id: UUID) -> None:
        """Make the ledger's own secrets: name key, data key, signing key. Doing it again changes nothing."""

    def verifying_key(self, ledger_id: UUID) -> bytes:
        """The 32-byte Ed25519 public key of the ledger's signing key."""

    def sign(self, ledger_id: UUID, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of ``message`` by the ledger's signing key."""

    def derive_ids(self, ledger_id: UUID, label: str, numbers: Sequence[int]) -> Sequence[UUID]:
        """Event ids (UUID version 8) from HMAC(name key, "event-id" ‖ 0 ‖ label ‖ 0 ‖ number as u64): the same for the
        same arguments, and not to be guessed back without the key."""

    def reserve(
        self,
        ledger_id: UUID,
        streams: Mapping[str, str | None],
        keys: Collection[tuple[str, str]],
        *,
        mint: bool,
    ) -> Reservation:
        """Turn names into refs and keys for one append.

        ``streams``: stream name → the name of the subject that owns it if this append creates it (None: nobody).
        ``keys``: (subject name, purpose). With ``mint``, what is missing is made and committed before this returns:
        a subject's ref, a stream's ref and owner, a key. A key is minted only in a transaction that sees its subject
        active (or restricted) and holds that row and the current epoch's row (I8). Of concurrent first writers exactly
        one mints. A subject that is erasing or erased, or a purpose with a fence, gets no new key and stands in
        ``refused`` unless the key still lives. Where a subject's own state refuses, a stream that it would own is not
        made.
        """

    def replace_stream(self, ledger_id: UUID, name: str, old_ref: bytes) -> None:
        """Forget the index row of a stream that was reserved but never got an event, if it still leads to
        ``old_ref``."""

    def find_streams(self, ledger_id: UUID, names: Collection[str]) -> Mapping[str, StreamEntry]:
        """The streams of these names, as far as they are in the index. Mints nothing."""

    def find_subjects(self, ledger_id: UUID, names: Collection[str]) -> Mapping[str, SubjectEntry]:
        """The subjects of these names, as far as they are in the index. Mints nothing."""

    def subject(self, ledger_id: UUID, ref: bytes) -> SubjectEntry | None:
        """The subject of this ref."""

    def look_up_keys(self, ledger_id: UUID, key_ids: Collection[bytes]) -> Mapping[bytes, KeyView]:
        """What is known of these keys now, in one round trip. Whether a key exists is read from the database each
        time."""

    def restrict(self, ledger_id: UUID, ref: bytes, now: int) -> None:
        """Active → restricted. Doing it again changes nothing."""

    def lift_restriction(self, ledger_id: UUID, ref: bytes, now: int) -> None:
        """Restricted → active. Doing it again changes nothing."""

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
        """Step 1: lock the subject (a name, or a ref), set it ``erasing`` and write down the final list of its keys.

        Gives back the erasure that is already open for this subject, or that has already shredded all that is asked
        for, instead of a new one. Raises the vault's "unknown subject" (or "unknown purpose") when there is nothing of
        that name.
        """

    def finish_erasure(self, ledger_id: UUID, erasure_id: UUID, erased_at: int) -> ErasureEntry:
        """Steps 3 and 4: fences in, key rows out, state settled, committed; then the journal line, fsynced.
        Call it only when the ledger has recorded the shredding. Doing it again changes nothing."""

    def open_erasures(self) -> Sequence[ErasureEntry]:
        """Erasures of any ledger that have begun and are not done, oldest first."""

    def erasure(self, ledger_id: UUID, erasure_id: UUID) -> ErasureEntry | None: ...

    def erasures(
        self, ledger_id: UUID, *, reference: str | None, done: bool | None, after: UUID | None, limit: int
    ) -> Sequence[ErasureEntry]:
        """Erasures in order of their ids (UUIDv7: of time), from the one after ``after``."""


class HeadLock(Protocol):
    """The head of one ledger, locked: nobody else appends to it or erases in it until the block ends."""

    @property
    def head(self) -> Head:
        """As committed by the previous holder."""

    def find_ids(self, event_ids: Collection[UUID]) -> frozenset[UUID]:
        """Which of these ids are recorded."""

    def versions(self, stream_refs: Collection[bytes]) -> StreamVersions:
        """The versions of these streams; one without events is absent."""

    def shredded(self, key_ids: Collection[bytes]) -> frozenset[bytes]:
        """Which of these keys are dead."""

    def abandoned(self, stream_refs: Collection[bytes]) -> frozenset[bytes]:
        """Which of these refs were given up before their stream had an event."""

    def abandon(self, stream_ref: bytes) -> None:
        """Give a ref up. The caller has seen under this lock that its stream has no event."""

    def write(self, events: Sequence[RecordedEvent], head: Head) -> None:
        """Add the rows of these events and their keys, and move the head."""

    def shred(self, key_ids: Collection[bytes], position: int, erasure_id: UUID, root: bytes) -> None:
        """Record that these keys are dead from ``position`` on, and the root of the tree that ends there."""


class Store(Protocol):
    """The ledger database.

    Durability: what a call (or a block of ``locked_head``) has returned from survives a crash of process and server
    (I11). Every other method is one short read that sees all that was committed before it. Raises
    ``StoreUnavailableError`` when the database cannot be reached or does not answer in time.
    """

    def locked_head(self, ledger_id: UUID) -> AbstractContextManager[HeadLock]:
        """One transaction that holds the head lock: the only order between writers and erasers (I2).

        Committed when the block ends, rolled back when it raises. Whoever waits here waits for the holder's commit.
        """

    def add_ledger(self, ledger: LedgerInfo) -> None:
        """Add a ledger and its empty head. Raises ``AlreadyExistsError``."""

    def ledgers(self) -> Sequence[LedgerInfo]:
        """All ledgers in order of their names."""

    def ledger(self, name: str) -> LedgerInfo | None: ...

    def head(self, ledger_id: UUID, *, settled: bool = False) -> Head:
        """The committed head. ``settled``: wait for those who hold its lock now, so that whatever they have already
        given a recorded-at is in."""

    def find_events(self, ledger_id: UUID, event_ids: Collection[UUID]) -> Mapping[UUID, RecordedEvent]:
        """The recorded events of these ids."""

    def select_events(
        self, ledger_id: UUID, which: EventFilter, after: Place | None, limit: int
    ) -> Sequence[RecordedEvent]:
        """The next ``limit`` events that match, in the filter's order, from the one behind ``after``."""

    def position_at(self, ledger_id: UUID, time: int, size: int) -> int:
        """The last position below ``size`` with recorded-at ≤ ``time``; -1 when there is none."""

    def recorded_at(self, ledger_id: UUID, position: int) -> int:
        """The recorded-at of one event that exists."""

    def versions(self, ledger_id: UUID, stream_refs: Collection[bytes]) -> StreamVersions:
        """The versions of these streams; one without events is absent."""

    def shreddings(self, ledger_id: UUID, key_ids: Collection[bytes]) -> Mapping[bytes, Shredding]:
        """For those of these keys that are dead: since when and by which erasure (I9)."""

    def key_usage(self, ledger_id: UUID, key_ids: Collection[bytes]) -> KeyUsage:
        """How many events have a part sealed under one of these keys, and the first and last position of them."""

    def events_at(self, ledger_id: UUID, positions: Collection[int]) -> Sequence[RecordedEvent]:
        """The events at these positions, as far as they exist, in any order."""

    def event_keys(self, ledger_id: UUID, first: int, last: int, key_ids: Collection[bytes]) -> Sequence[KeyRow]:
        """The rows of ``event_keys`` of these keys at the positions from ``first`` to ``last``."""

    def count_event_keys(self, ledger_id: UUID) -> int:
        """How many rows of ``event_keys`` a ledger has."""

    def scan_event_keys(self, ledger_id: UUID, after: KeyRow | None, limit: int) -> Sequence[KeyRow]:
        """The next rows of ``event_keys`` in order of key_id, position and part."""

    def shredded_keys(self, ledger_id: UUID) -> Mapping[bytes, Shredding]:
        """Every dead key of a ledger."""

    def erasure_root(self, ledger_id: UUID, erasure_id: UUID) -> bytes:
        """The root of the tree that ends with this erasure's ``SubjectErased``. Raises ``IntegrityError`` when it is
        not there."""

    def erasure_roots(self, ledger_id: UUID) -> Mapping[UUID, bytes]:
        """The root of the tree that ends with each erasure's ``SubjectErased``, by erasure id."""

    def add_api_key(self, key: ApiKey) -> None: ...

    def api_keys(self) -> Sequence[ApiKey]:
        """All keys, oldest first."""

    def api_key(self, key_id: UUID) -> ApiKey | None: ...

    def revoke_api_key(self, key_id: UUID, now: int) -> bool:
        """Revoke a key; False when there is none. A key that is revoked stays so, with its first time."""

    def touch_api_key(self, key_id: UUID, now: int) -> None:
        """Note that a key was used."""

    def check(self) -> None:
        """Raise ``StoreUnavailableError`` unless the database answers and has the tables of this version."""


class Clock(Protocol):
    """Microseconds since 1970-01-01 UTC. May stand still or go back; a ledger's recorded-at never does."""

    def __call__(self) -> int: ...


class Entropy(Protocol):
    """So many random bytes, fit for secrets."""

    def __call__(self, size: int, /) -> bytes: ...


class Alarms(Protocol):
    """Where integrity alarms go. Must not raise, and gets no personal data. ``part`` None: the whole event."""

    def __call__(self, ledger_id: UUID, position: int, part: int | None, what: str, /) -> None: ...
