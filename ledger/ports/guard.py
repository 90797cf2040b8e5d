"""What the ledger needs of the key vault to notice what was restored from an old copy, and to mend it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from ledger.domain.marks import KnownLedger
from ledger.ports.vault import ErasureEntry


class JournalMark(Protocol):
    """How far the journal was: the number of its last line."""

    @property
    def n(self) -> int: ...


class VaultMarks(Protocol):
    """How far the vault has seen the journal and each ledger to be."""

    @property
    def journal(self) -> JournalMark: ...
    @property
    def ledgers(self) -> Mapping[UUID, KnownLedger]: ...


class Lost(Protocol):
    """An erasure that somebody else than the vault tells of."""

    @property
    def erasure_id(self) -> UUID: ...
    @property
    def ledger_id(self) -> UUID: ...
    @property
    def subject_ref(self) -> bytes: ...
    @property
    def keys(self) -> Sequence[tuple[bytes, str | None]]:
        """(key_id, purpose); None: the purpose is not known."""

    @property
    def requested_at(self) -> int: ...
    @property
    def requested_by(self) -> UUID | None: ...
    @property
    def next_state(self) -> Literal["active", "restricted", "erased"] | None:
        """The state that its subject got; None: not known."""

    @property
    def purposes(self) -> tuple[str, ...] | None:
        """As requested; see ``request_known``."""

    @property
    def request_known(self) -> bool:
        """Whether ``purposes`` says what was requested. If not, it follows from what became of the subject."""

    @property
    def ground(self) -> str | None: ...
    @property
    def reference(self) -> str | None: ...
    @property
    def name_commitment(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class LostErasure:
    """Satisfies :class:`Lost`: what an event or a receipt tells."""

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


class Restored(Protocol):
    """What the journal's newest lines say and is not true of the vault, because the vault is older. False when there is
    nothing."""

    def __bool__(self) -> bool: ...
    @property
    def erasures(self) -> Sequence[Lost]: ...
    @property
    def states(self) -> Mapping[tuple[UUID, bytes], str]:
        """Who is restricted, or not any more."""

    @property
    def unlinked(self) -> Sequence[tuple[UUID, bytes]]:
        """Whose names were forgotten, and lead there again."""

    @property
    def created(self) -> Mapping[int, int]:
        """Epochs that the vault does not know."""

    @property
    def destroyed(self) -> Mapping[int, int]:
        """Epochs that are destroyed, and that the vault takes for living."""

    @property
    def reinstated(self) -> int:
        """Names that began anew, and lead to the erased subject again."""

    @property
    def ledgers(self) -> Mapping[UUID, KnownLedger]:
        """Ledgers of which the journal has seen more than the vault has noted."""


class RestoreGuard(Protocol):
    """The vault's half of the restore guard. Every method raises the vault's "unavailable" errors, and its "journal"
    error for a journal that is missing, shorter than it was, or altered."""

    def marks(self) -> VaultMarks: ...

    def note_ledgers(self, seen: Mapping[UUID, tuple[int, bytes]]) -> None:
        """Ledgers have so many events, and the last of each has this leaf hash. Nothing is ever noted backwards."""

    def restored(self) -> Restored: ...

    def returned_keks(self, *, ask_keeper: bool) -> frozenset[int]:
        """Destroyed epochs whose KEK is there again. Without ``ask_keeper`` only KEKs in files are looked for: other
        keepers take their time."""

    def unknown_keys(self, ledger_id: UUID, key_ids: Collection[bytes]) -> frozenset[bytes]:
        """Those of these keys of which the vault has neither a row nor a fence."""

    def unknown_erasures(self, ledger_id: UUID, erasure_ids: Collection[UUID]) -> frozenset[UUID]:
        """Those of these erasures of which the vault knows nothing."""

    def was_lifted(self, ledger_id: UUID, ref: bytes, since: int) -> bool:
        """Whether the journal's last line about this subject's restriction lifts it, and is not from before then."""

    def begin_again(self, lost: Lost) -> ErasureEntry:
        """Begin an erasure again under its own id; it is then driven on as any other. Raises "busy" while another
        erasure of the subject is open."""

    def settle(self) -> Restored:
        """Set restrictions and epochs as the journal says, and forget names; gives what is not true yet. If nothing is
        left, the vault goes on from the journal's last line."""

    def adopt_streams(self, ledger_id: UUID, streams: Mapping[str, tuple[bytes, bytes | None]]) -> int:
        """Let the names of streams lead to these refs and owners, where they lead nowhere. Gives how many."""

    def destroy_returned_keks(self) -> frozenset[int]:
        """Destroy them again. Gives the epochs."""

    def accept(self, ledgers: Mapping[UUID, tuple[int, int, bytes | None]]) -> JournalMark:
        """From here on what is there counts: the journal as it is, and the ledgers as given (mints, size, leaf)."""
