"""Witnesses in memory, which decide as the real ones do, and who collects what a ledger tells of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from keyvault.signatures import SigningKey, verify_ed25519
from ledger.domain.notes import COSIGNATURE, VerifierKey, Verify, cosignature, cosigned_message
from ledger.domain.witness_policy import WitnessPolicy, parse_policy
from ledger.domain.witnessing import (
    NOTHING_SEEN,
    RefusalError,
    Seen,
    check_signatures,
    decide,
    parse_add_checkpoint,
)
from ledger.ports.witness import Witness, WitnessAnswer, WitnessOutcome, WitnessUnavailableError

TIMESTAMP = 1_700_000_000


@dataclass
class MemoryWitness:
    """One witness. ``seen``: what it has cosigned last; ``answers``: instead of its own decisions, one by one."""

    name: str
    trusted: list[VerifierKey] = field(default_factory=list)
    signer: SigningKey = field(default_factory=SigningKey.generate)
    seen: Seen = NOTHING_SEEN
    is_away: bool = False
    is_resting: bool = False
    answers: list[WitnessAnswer] = field(default_factory=list)
    asked: int = 0

    @property
    def key(self) -> VerifierKey:
        """Its public key."""
        return VerifierKey(f"{self.name}.example", COSIGNATURE, self.signer.public_key)

    def add_checkpoint(self, body: bytes) -> WitnessAnswer:
        """As https://c2sp.org/tlog-witness tells."""
        self.asked += 1
        if self.is_away:
            raise WitnessUnavailableError("away")
        if self.answers:
            return self.answers.pop(0)
        request = parse_add_checkpoint(body)
        try:
            check_signatures(request, self.trusted, verify_ed25519)
            self.seen = decide(self.seen, request)
        except RefusalError as refusal:
            return WitnessAnswer(refusal.status, f"{refusal.size}\n".encode() if refusal.size is not None else b"no\n")
        signature = self.signer.sign(cosigned_message(request.note.text, TIMESTAMP))
        return WitnessAnswer(200, cosignature(self.key, TIMESTAMP, signature).line.encode())


@dataclass
class MemoryWitnesses:
    """All of them, with a quorum of ``threshold``."""

    witnesses: Sequence[MemoryWitness]
    threshold: int
    required: bool = False
    told: list[tuple[str, WitnessOutcome]] = field(default_factory=list)
    reached: list[bool] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    verify: Verify = field(default=verify_ed25519)
    is_waited_for: bool = False
    is_too_early: bool = False

    @property
    def policy(self) -> WitnessPolicy:
        """Any ``threshold`` of them."""
        names = " ".join(one.name for one in self.witnesses)
        lines = [f"witness {one.name} {one.key.text}" for one in self.witnesses]
        return parse_policy(
            "\n".join([*lines, f"group all-of-them {self.threshold} {names}", "quorum all-of-them", ""]).encode()
        )

    def all(self) -> Sequence[Witness]:
        """In the order of the policy."""
        return self.witnesses

    def note(self, ledger_id: UUID, witness: Witness, outcome: WitnessOutcome, detail: str) -> bool:
        """Collect it; new is what is not like the last one of this witness."""
        before = [known for name, known in self.told if name == witness.name]
        self.told.append((witness.name, outcome))
        return before[-1:] != [outcome]

    def has_just_failed(self, ledger_id: UUID) -> bool:
        """As the test says."""
        return self.is_too_early

    def note_quorum(self, ledger_id: UUID, missing: Collection[str], *, reached: bool) -> None:
        """Collect it."""
        self.reached.append(reached)

    def keep_evidence(self, ledger_id: UUID, witness: Witness, size: int, text: str) -> None:
        """Collect it, once."""
        if text not in self.evidence:
            self.evidence.append(text)

    def close(self) -> None:
        """Do nothing."""
