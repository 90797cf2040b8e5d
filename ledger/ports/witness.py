"""Witnesses: who outside vouches that of a ledger there is one history."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from ledger.domain.notes import VerifierKey, Verify
from ledger.domain.witness_policy import WitnessPolicy
from ledger.errors import DependencyError


class WitnessUnavailableError(DependencyError):
    """A witness was not reached, did not answer in time, or is left alone for a while because of that."""


@dataclass(frozen=True, slots=True)
class WitnessAnswer:
    """What a witness has answered (https://c2sp.org/tlog-witness). Nothing of it is to be believed before it is
    verified."""

    status: int
    body: bytes


class WitnessOutcome(StrEnum):
    """How it went with one witness and one checkpoint."""

    COSIGNED = "cosigned"
    AWAY = "away"
    REFUSED = "refused"
    """It does not know the ledger, or its key; or it answers in a way that the protocol does not have."""
    FALSE = "false-cosignature"
    NOT_KEPT = "not-kept"
    """It has cosigned, and what stands in the ledger database in the place of that is something else."""
    OVERTAKEN = "overtaken"
    """It has cosigned a later checkpoint of this ledger."""
    OTHER_HISTORY = "other-history"
    """It has seen what this ledger has never been: somebody was shown another one under the same key."""


class Witness(Protocol):
    """One witness. Shared by threads."""

    @property
    def name(self) -> str:
        """In the policy."""

    @property
    def key(self) -> VerifierKey: ...

    @property
    def is_resting(self) -> bool:
        """It was away a moment ago, and is not asked now."""

    def add_checkpoint(self, body: bytes) -> WitnessAnswer:
        """Ask it to cosign; takes some seconds at most. May be repeated. Raises ``WitnessUnavailableError``."""


class Witnesses(Protocol):
    """All witnesses of the policy. Shared by threads."""

    @property
    def policy(self) -> WitnessPolicy: ...

    @property
    def required(self) -> bool:
        """Whether nothing is published before the quorum has cosigned it."""

    @property
    def is_waited_for(self) -> bool:
        """Whether publishing waits for the quorum now, as far as this process knows."""

    @property
    def verify(self) -> Verify:
        """Checks Ed25519 signatures."""

    def all(self) -> Sequence[Witness]:
        """In the order of the policy."""

    def note(self, ledger_id: UUID, witness: Witness, outcome: WitnessOutcome, detail: str) -> bool:
        """How it went; whether it had gone otherwise before, which is worth telling. Must not raise."""

    def has_just_failed(self, ledger_id: UUID) -> bool:
        """Whether the quorum was missed for a ledger a moment ago, so that it is too early to ask again."""

    def note_quorum(self, ledger_id: UUID, missing: Collection[str], *, reached: bool) -> None:
        """Whether the quorum was reached, and who has not cosigned. Must not raise."""

    def keep_evidence(self, ledger_id: UUID, witness: Witness, size: int, text: str) -> None:
        """Keep it where nobody overwrites it; the first text of a size stays. Must not raise."""

    def close(self) -> None:
        """Give the connections back."""
