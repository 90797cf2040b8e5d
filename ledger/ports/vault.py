"""What the ledger needs of a key vault."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

SubjectState = Literal["active", "restricted", "erasing", "erased"]
KeyStatus = Literal["living", "restricted", "fenced", "damaged"]
Refusal = Literal["erased", "erasing", "full"]
StatementKind = Literal["final", "unlinked"]
Pending = Literal["open", "shared-place", "epochs-alive", "keeper-waits", "copies-kept", "unsigned"]


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

    def disclose(self, sealed: bytes, aad: bytes) -> tuple[bytes, bytes]:
        """Open a part, and give the 32 bytes of its single-use key beside the plaintext. Raises as ``open`` does.

        Whoever has that key can open this part, for good, and no other; an erasure does not reach it. So it is for
        somebody who may read the part now and asked for a proof, and is never logged or stored.
        """


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
    def names(self) -> int | None:
        """How many names lead to this subject: 0 once its name was forgotten or began anew; None where the vault's row
        is damaged and nobody can tell."""

    @property
    def key_ids(self) -> Sequence[tuple[bytes, str]]:
        """Every key that this subject has or had, living and fenced, as (key_id, purpose)."""

    @property
    def next_state(self) -> SubjectState:
        """The state; of a subject that is ``erasing``, the one that it has when that is done."""


class Mark(Protocol):
    """How far the vault is, for one ledger to remember, and how far it has seen that ledger to be."""

    @property
    def mints(self) -> int:
        """How often keys or refs were made for this ledger."""

    @property
    def journal(self) -> int:
        """The last line of the journal that the vault has seen."""

    @property
    def size(self) -> int:
        """How many events the ledger had when the vault last saw it."""


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
    def unlinked(self) -> Collection[str]:
        """Names of subjects that were erased and whose names were forgotten: nothing leads on, and nothing may be
        appended."""

    @property
    def unlinked_streams(self) -> Collection[str]:
        """The same of streams."""

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

    @property
    def mark(self) -> Mark:
        """How far the vault was."""


@dataclass(frozen=True, slots=True)
class Document:
    """A derived document (design §5) on its way to or from the vault.

    ``key_ids``: of the subjects' keys that went into it; the ledger's own always does. ``body``: the plaintext to seal,
    or the sealed bytes to open. ``aad``: what it is bound to.
    """

    key_ids: tuple[bytes, ...]
    body: bytes
    aad: bytes


class Fence(Protocol):
    """The vault's record that a key is gone."""

    @property
    def key_id(self) -> bytes: ...
    @property
    def erasure_id(self) -> UUID: ...


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
    def next_state(self) -> Literal["active", "restricted", "erased"]:
        """The state that its subject has when the keys are gone."""

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
    def epoch(self) -> int | None:
        """The newest epoch that existed when the keys were shredded: no copy of them is under a later one."""

    @property
    def done(self) -> bool:
        """True once fences, keys and journal line are in place: steps 1 to 4."""


class Linkage(Protocol):
    """What decides whether the name of a subject can be forgotten."""

    @property
    def erased_at(self) -> int | None:
        """When it was erased as a whole; None: it is not."""

    @property
    def keys_live(self) -> bool:
        """Whether it has a key that lives: what that opens tells the name beside the ref."""


class Reinstatement(Protocol):
    """The name of an erased subject begins anew, with this ref. Which one it had before is kept nowhere."""

    @property
    def ledger_id(self) -> UUID: ...
    @property
    def subject_ref(self) -> bytes: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def reinstated_at(self) -> int: ...
    @property
    def reinstated_by(self) -> UUID: ...


class DestroyedEpoch(Protocol):
    """An epoch whose KEK is gone: when its destruction was ordered, and when its keeper's last copy was gone."""

    @property
    def epoch(self) -> int: ...
    @property
    def destroyed_at(self) -> int: ...
    @property
    def gone_at(self) -> int: ...


class Finality(Protocol):
    """Whether no copy of an erasure's keys that is known can be opened any more.

    ``since``: from when on; or None, and ``pending`` is the word for what stands in the way. ``epochs``: what had to
    go.
    """

    @property
    def since(self) -> int | None: ...
    @property
    def pending(self) -> Pending | None: ...
    @property
    def epochs(self) -> Sequence[DestroyedEpoch]: ...


class Statement(Protocol):
    """Something that was signed about an erasure after it was done. ``payload``: the canonical JSON that was signed."""

    @property
    def kind(self) -> StatementKind: ...
    @property
    def at(self) -> int: ...
    @property
    def payload(self) -> str: ...
    @property
    def signature(self) -> bytes: ...


class KeyVault(Protocol):
    """The separate store of keys and names. ``ledger/ports/guard.py`` has what else the restore guard needs of it.

    Durability: what a method has returned survives a crash. Every method is one short transaction of the vault's
    database, sees what other processes have committed before the call, and holds no lock when it returns. Any of them
    raises the vault's own "unavailable" error when database or key provider cannot be reached, and never answers
    in their place from memory. Names are handed over in clear and never stored.
    """

    def create_ledger(self, ledger_id: UUID) -> None:
        """Make the ledger's own secrets: name key, data key, signing key. Doing it again changes nothing."""

    def mark(self, ledger_id: UUID) -> Mark:
        """How far the vault is now. Never from memory."""

    def verifying_key(self, ledger_id: UUID) -> bytes:
        """The 32-byte Ed25519 public key of the ledger's signing key."""

    def sign(self, ledger_id: UUID, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of ``message`` by the ledger's signing key."""

    def check_signature(self, public_key: bytes, signature: bytes, message: bytes) -> None:
        """Raise ``ValueError`` unless the 64-byte Ed25519 signature of the message is by this 32-byte key. Needs
        neither database nor key provider."""

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
        """The streams of these names, as far as they are in the index and it leads on. Mints nothing."""

    def find_subjects(self, ledger_id: UUID, names: Collection[str]) -> Mapping[str, SubjectEntry]:
        """The subjects of these names, as far as they are in the index and it leads on. Mints nothing."""

    def unlinked_among(self, ledger_id: UUID, names: Collection[str]) -> Collection[str]:
        """Those of these names from which nothing leads on, because their subjects were erased and they were
        forgotten."""

    def subject(self, ledger_id: UUID, ref: bytes) -> SubjectEntry | None:
        """The subject of this ref."""

    def look_up_keys(
        self, ledger_id: UUID, key_ids: Collection[bytes], *, recording: bool = False
    ) -> Mapping[bytes, KeyView]:
        """What is known of these keys now, in one round trip. Whether a key exists is read from the database each
        time. With ``recording`` the key of a restricted subject is ``living``: for an append that has only a ref and
        needs the name to seal it again. What it opens must be shown to nobody."""

    def fences(self, ledger_id: UUID, after: bytes | None, limit: int) -> Sequence[Fence]:
        """The next fences of a ledger in order of key_id, from the one behind ``after``."""

    def fenced(self, ledger_id: UUID, key_ids: Collection[bytes]) -> Collection[bytes]:
        """Those of these keys that have a fence."""

    def stored_keys(self, ledger_id: UUID, key_ids: Collection[bytes]) -> Collection[bytes]:
        """Those of these keys of which there is a wrapped copy, whatever else is said of them."""

    def seal_documents(self, ledger_id: UUID, documents: Sequence[Document]) -> Sequence[bytes | None]:
        """Seal derived documents, each under a key from *all* the keys that went into it; every call gives other bytes.

        None for a document of which a key is gone, restricted or damaged now. All keys are looked up in one round trip.
        """

    def open_documents(self, ledger_id: UUID, documents: Sequence[Document]) -> Sequence[bytes | None]:
        """Open derived documents. None for one of which a key is gone, restricted or damaged now, or that is not
        authentic: it has to be computed again. All keys are looked up in one round trip, never from memory (I7).

        The vault knows nothing of the ledger's ``shredded_keys``: whoever calls this looks there too (I9)."""

    def restrict(self, ledger_id: UUID, ref: bytes, now: int) -> None:
        """Active → restricted; from here on nothing of the subject is read. Then the journal line, fsynced. Doing it
        again changes nothing."""

    def lift_restriction(self, ledger_id: UUID, ref: bytes, now: int) -> None:
        """Restricted → active. Then the journal line, fsynced. Doing it again changes nothing."""

    def reinstate(
        self, ledger_id: UUID, name: str, *, reason: str | None, reinstated_at: int, reinstated_by: UUID
    ) -> Reinstatement:
        """Let the name of an erased subject lead to a new one, active, with a fresh random ref and no keys yet; the
        names of the streams that the old one owned lead nowhere any more. One transaction, and of two at once exactly
        one makes a subject. The old subject, its fences and its erasures stay, and nothing leads there.

        Gives back the reinstatement that is already open for this name instead of a new one. Raises the vault's
        "unknown subject", "not erased", or "busy" while an erasure of the subject is open.
        """

    def finish_reinstatement(self, ledger_id: UUID, ref: bytes) -> None:
        """The journal line, fsynced; then the reinstatement is not open any more. Call it only when the ledger has
        recorded it. Doing it again changes nothing."""

    def open_reinstatements(self) -> Sequence[Reinstatement]:
        """Reinstatements in any ledger that are not finished, oldest first."""

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
        that name, and "unlinked" when it was forgotten.
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

    def erasures_of(self, ledger_id: UUID, ref: bytes) -> Sequence[ErasureEntry]:
        """Every erasure of this subject."""

    def unlink(self, ledger_id: UUID, ref: bytes, now: int) -> int:
        """Forget the names of an erased subject: cut the way from them, and from those of its own streams, to their
        refs. Their hashes stay, so that they are refused and can begin anew. Then the journal line, fsynced. Gives
        since when nothing leads there; doing it again changes nothing, gives the same, and writes the line again.

        Raises the vault's "unknown subject", "not erased", "keys live", or "busy" while an erasure of it is open.
        """

    def erasures_to_unlink(
        self, ledger_id: UUID, *, erased_until: int, after: UUID | None, limit: int
    ) -> Sequence[ErasureEntry]:
        """Erasures of everything, done by then, about which nothing of kind ``unlinked`` was stated, of subjects
        without a living key, in order of id. That there are none is found at once, however many there have been."""

    def linkages(self, ledger_id: UUID, refs: Collection[bytes]) -> Mapping[bytes, Linkage]:
        """Ref → what decides whether the name of that subject can be forgotten."""

    def finality(self, entries: Sequence[ErasureEntry], *, ask_keeper: bool) -> Sequence[Finality]:
        """For each of these erasures, whether it is final. With ``ask_keeper`` the keeper of the KEKs is asked which it
        has, and what is to be signed needs that."""

    def erasures_without(self, kind: StatementKind, *, after: UUID | None, limit: int) -> Sequence[ErasureEntry]:
        """Erasures of any ledger that are done and about which nothing of this kind was stated, in order of id."""

    def count_erasures_without(self, kind: StatementKind, *, erased_before: int | None = None) -> int:
        """How many such erasures there are; with ``erased_before``: that were carried out before then."""

    def statements(self, ledger_id: UUID, erasure_ids: Collection[UUID]) -> Mapping[UUID, Sequence[Statement]]:
        """Erasure → what was stated about it. An erasure about which nothing was stated is absent."""

    def add_statement(
        self, ledger_id: UUID, erasure_id: UUID, kind: StatementKind, at: int, payload: str, signature: bytes
    ) -> None:
        """Keep a statement for good, unless there is one of this kind: the first one stays."""
