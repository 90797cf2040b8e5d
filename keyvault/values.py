"""What the vault answers with: frozen values that satisfy the Protocols of ``ledger/ports`` by their shape."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from keyvault.envelope import DataKey

SubjectState = Literal["active", "restricted", "erasing", "erased"]
KeyStatus = Literal["living", "restricted", "fenced", "damaged"]
Refusal = Literal["erased", "erasing", "full"]
StatementKind = Literal["final", "unlinked"]
Pending = Literal["open", "shared-place", "epochs-alive", "keeper-waits", "copies-kept", "unsigned"]

ACTOR_PURPOSE = "actor"


@dataclass(frozen=True, slots=True)
class KeyView:
    """What is known of one key at the moment of the call. ``key`` is there only when it is living."""

    status: KeyStatus
    subject_ref: bytes | None
    purpose: str
    changed_at: int | None = None
    erasure_id: UUID | None = None
    key: DataKey | None = None


@dataclass(frozen=True, slots=True)
class VaultMark:
    """How far the vault is, as a ledger notes it: how often keys or refs were made for that ledger, the last line that
    it has seen of the journal; and how far it has seen the ledger to be."""

    mints: int
    journal: int
    size: int


@dataclass(frozen=True, slots=True)
class KnownLedger:
    """How often keys or refs were made for a ledger, and how far it was when the vault last saw it: how many events,
    and the leaf hash of the last one (None: it had none)."""

    mints: int
    size: int
    leaf_hash: bytes | None


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """The ref of a stream and of its owner, 16 bytes each."""

    ref: bytes
    owner_ref: bytes | None


@dataclass(frozen=True, slots=True)
class SubjectEntry:
    """A subject: its state, how many names lead to it (None: its link key is damaged, so nobody can tell), and every
    key it has or had as (key_id, purpose). ``next_state``: what an open erasure leads to; else the state itself."""

    ref: bytes
    state: SubjectState
    changed_at: int
    names: int | None
    key_ids: tuple[tuple[bytes, str], ...]
    next_state: SubjectState


@dataclass(frozen=True, slots=True, repr=False)
class Reservation:
    """The refs and keys that one append needs. Has no repr, because it holds names. ``unlinked``,
    ``unlinked_streams``: names of people who were erased, from which nothing leads on any more."""

    complete: bool
    streams: Mapping[str, StreamEntry]
    subjects: Mapping[str, bytes]
    unlinked: Collection[str]
    unlinked_streams: Collection[str]
    keys: Mapping[tuple[bytes, str], DataKey]
    refused: Mapping[tuple[bytes, str], Refusal]
    ledger_key: DataKey
    mark: VaultMark


@dataclass(frozen=True, slots=True)
class ErasureEntry:
    """An erasure as the vault keeps it. ``next_state``: the state its subject gets when the keys are gone. ``epoch``:
    the newest that existed when they were."""

    erasure_id: UUID
    ledger_id: UUID
    subject_ref: bytes
    key_ids: tuple[tuple[bytes, str], ...]
    purposes: tuple[str, ...] | None
    ground: str | None
    reference: str | None
    name_commitment: bytes | None
    next_state: Literal["active", "restricted", "erased"]
    requested_at: int
    requested_by: UUID
    erased_at: int | None
    epoch: int | None
    state: Literal["begun", "shredded", "done"]

    @property
    def done(self) -> bool:
        """True once fences, keys and journal line are in place."""
        return self.state == "done"


@dataclass(frozen=True, slots=True)
class LostErasure:
    """Satisfies :class:`keyvault.erasing.Lost`: what a line of the journal tells."""

    erasure_id: UUID
    ledger_id: UUID
    subject_ref: bytes
    keys: tuple[tuple[bytes, str | None], ...]
    requested_at: int
    requested_by: UUID | None = None
    next_state: Literal["active", "restricted", "erased"] | None = None
    purposes: tuple[str, ...] | None = None
    request_known: bool = False
    ground: str | None = None
    reference: str | None = None
    name_commitment: bytes | None = None


@dataclass(frozen=True, slots=True)
class Linkage:
    """What decides whether the name of a subject can be forgotten. ``erased_at``: when it was erased as a whole."""

    erased_at: int | None
    keys_live: bool


@dataclass(frozen=True, slots=True)
class Reinstatement:
    """A name that begins anew, with this ref. Which one it had before is not kept."""

    ledger_id: UUID
    subject_ref: bytes
    reason: str | None
    reinstated_at: int
    reinstated_by: UUID


@dataclass(frozen=True, slots=True)
class Statement:
    """Something that was signed about an erasure after it was done. ``payload``: the canonical JSON that was signed."""

    erasure_id: UUID
    kind: StatementKind
    at: int
    payload: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class DestroyedEpoch:
    """An epoch whose KEK is gone: when its destruction was ordered, and when its keeper's last copy was gone."""

    epoch: int
    destroyed_at: int
    gone_at: int


@dataclass(frozen=True, slots=True)
class Finality:
    """Whether no copy of an erasure's keys that is known can be opened. ``since``: from when on, or None and
    ``pending`` is the word for what stands in the way. ``epochs``: what had to go for it."""

    since: int | None
    pending: Pending | None
    epochs: tuple[DestroyedEpoch, ...] = ()
