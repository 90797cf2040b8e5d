"""The witnesses of the setting ``AUDIT_LEDGER_WITNESSES``, over HTTP. Satisfies ``ledger.ports.witness``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from api import evidence
from api.config import STOP, Settings, SettingsError
from api.evidence import keep_evidence
from api.logs import LOGGER
from api.outgoing import BadAddressError, Remote, UnreachableError
from keyvault.signatures import verify_ed25519
from ledger.domain.notes import VerifierKey, Verify
from ledger.domain.witness_policy import PolicyError, PolicyKey, WitnessPolicy, parse_policy
from ledger.ports.witness import Witness, WitnessAnswer, Witnesses, WitnessOutcome, WitnessUnavailableError

EVIDENCE_FOLDER: Final = "evidence"
POLICY_BYTES: Final = 2**20
ANSWER_BYTES: Final = 64 * 1024
WITNESS_SECONDS: Final = 5.0
"""How long a witness may take. In ``stop`` mode somebody may be waiting for a checkpoint meanwhile."""

FIRST_REST: Final = 1.0
LONGEST_REST: Final = 30.0
"""Seconds in which a witness is left alone that was away; doubled each time."""

CountFailure = Callable[[str, str], None]
"""Called with a witness's name and the outcome."""

_log = logging.getLogger(LOGGER)


class HttpWitness:
    """One witness, below its submission prefix."""

    def __init__(self, configured: PolicyKey, remote: Remote) -> None:
        self._configured = configured
        self._remote = remote
        self._lock = threading.Lock()
        self._rest = 0.0
        self._until = 0.0

    @property
    def name(self) -> str:
        """In the policy."""
        return self._configured.name

    @property
    def label(self) -> str:
        """The name as it can be printed."""
        return self._configured.label

    @property
    def key(self) -> VerifierKey:
        """Its public key."""
        return self._configured.key

    @property
    def is_resting(self) -> bool:
        """It was away a moment ago."""
        return time.monotonic() < self._until

    def add_checkpoint(self, body: bytes) -> WitnessAnswer:
        """Ask it to cosign. Those who ask at the same time do it one after the other, and need not all find out that it
        is away."""
        with self._lock:
            if self.is_resting:
                raise WitnessUnavailableError("it was away a moment ago")
            return self._add_checkpoint(body)

    def _add_checkpoint(self, body: bytes) -> WitnessAnswer:
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        try:
            reply = self._remote.ask("POST", "add-checkpoint", body, headers, limit=ANSWER_BYTES)
        except UnreachableError as error:
            self._leave_alone()
            raise WitnessUnavailableError(str(error)) from error
        if reply.status >= 500 or reply.status == 429:
            self._leave_alone()
            raise WitnessUnavailableError(f"it has answered with the status {reply.status}")
        self._rest = 0.0
        return WitnessAnswer(reply.status, reply.body)

    def close(self) -> None:
        """Give the connection back."""
        self._remote.close()

    def _leave_alone(self) -> None:
        self._rest = min(max(FIRST_REST, 2 * self._rest), LONGEST_REST)
        self._until = time.monotonic() + self._rest


class HttpWitnesses:
    """All of them. What it tells, it tells when it changes."""

    def __init__(self, policy: WitnessPolicy, *, required: bool, evidence: Path, count: CountFailure | None) -> None:
        self.policy = policy
        self.required = required
        self.verify: Verify = verify_ed25519
        self._witnesses = [HttpWitness(one, _remote(one)) for one in policy.witnesses]
        self._evidence = evidence
        self._count = count
        self._lock = threading.Lock()
        self._outcomes: dict[tuple[UUID, str], WitnessOutcome] = {}
        self._quorum: dict[UUID, bool] = {}
        self._failed: dict[UUID, float] = {}

    def all(self) -> Sequence[Witness]:
        """In the order of the policy."""
        return self._witnesses

    def note(self, ledger_id: UUID, witness: Witness, outcome: WitnessOutcome, detail: str) -> bool:
        """One line for each change."""
        # It has cosigned what another process has published since.
        good = outcome in (WitnessOutcome.COSIGNED, WitnessOutcome.OVERTAKEN)
        outcome = WitnessOutcome.COSIGNED if good else outcome
        label = self._label(witness)
        if not good and self._count is not None:
            self._count(label, outcome)
        with self._lock:
            before = self._outcomes.get((ledger_id, witness.name), WitnessOutcome.COSIGNED)
            self._outcomes[ledger_id, witness.name] = outcome
        if outcome == before:
            return False
        extra = {"ledger_id": str(ledger_id), "witness": label, "outcome": str(outcome), "why": detail}
        if good:
            _log.info("witness-cosigns-again", extra=extra)
        else:
            _log.warning("witness-does-not-cosign", extra=extra)
        return True

    def note_quorum(self, ledger_id: UUID, missing: Collection[str], *, reached: bool) -> None:
        """One line for each change."""
        with self._lock:
            before = self._quorum.get(ledger_id, True)
            self._quorum[ledger_id] = reached
            self._failed[ledger_id] = -FIRST_REST if reached else time.monotonic()
        if reached != before:
            labels = [one.label for one in self._witnesses if one.name in missing]
            event = "witness-quorum-reached" if reached else "witness-quorum-missing"
            extra = {"ledger_id": str(ledger_id), "missing": labels, "publishing_waits": self.required and not reached}
            _log.log(logging.INFO if reached else logging.WARNING, event, extra=extra)

    def keep_evidence(self, ledger_id: UUID, witness: Witness, size: int, text: str) -> None:
        """In the folder ``evidence`` of the home folder."""
        kind = f"{ledger_id}-{witness.key.key_id.hex()}"
        try:
            # As long as nobody does anything about it, there is another one with each checkpoint.
            keep_evidence(self._evidence, kind, str(size), text, newest=evidence.NEWEST)
        except OSError as error:
            # The alarm is raised all the same, and the witness keeps what it has seen.
            extra = {"ledger_id": str(ledger_id), "witness": self._label(witness), "why": error.strerror}
            _log.error("evidence-not-kept", extra=extra)

    def close(self) -> None:
        """Give the connections back."""
        for witness in self._witnesses:
            witness.close()

    def has_just_failed(self, ledger_id: UUID) -> bool:
        """Whether the quorum was missed a moment ago."""
        with self._lock:
            return time.monotonic() < self._failed.get(ledger_id, -FIRST_REST) + FIRST_REST

    @property
    def is_waited_for(self) -> bool:
        """Whether publishing waits for the quorum of some ledger."""
        with self._lock:
            return self.required and not all(self._quorum.values())

    def _label(self, witness: Witness) -> str:
        return next((one.label for one in self._witnesses if one.name == witness.name), "")


def open_witnesses(settings: Settings, count: CountFailure | None) -> Witnesses | None:
    """The witnesses that the settings name; connects to none yet. Raises ``SettingsError``."""
    if settings.witnesses is None:
        return None
    try:
        with settings.witnesses.open("rb") as file:
            policy = parse_policy(file.read(POLICY_BYTES))
        _require_names(policy)
        return HttpWitnesses(
            policy,
            required=settings.witnesses_away == STOP,
            evidence=settings.home / EVIDENCE_FOLDER,
            count=count,
        )
    except PolicyError as error:
        raise SettingsError(f"AUDIT_LEDGER_WITNESSES: {error.detail}") from None
    except OSError as error:
        raise SettingsError(f"AUDIT_LEDGER_WITNESSES: {settings.witnesses}: {error.strerror}") from None


def _require_names(policy: WitnessPolicy) -> None:
    """Raise unless each witness has a key of its own and a name of its own in it: what it signs is kept under that."""
    names: dict[str, str] = {}
    for one in policy.witnesses:
        other = names.setdefault(one.key.name, one.label)
        if other != one.label:
            raise SettingsError(
                f"AUDIT_LEDGER_WITNESSES: the keys of the witnesses {other} and {one.label} have the same name, "
                f"{one.key.name}; where a witness has a new key, leave the old one out"
            )


def _remote(witness: PolicyKey) -> Remote:
    if witness.url is None:
        raise SettingsError(f"AUDIT_LEDGER_WITNESSES: the witness {witness.label} has no URL to be asked at")
    try:
        return Remote(witness.url, seconds=WITNESS_SECONDS)
    except BadAddressError as error:
        raise SettingsError(f"AUDIT_LEDGER_WITNESSES: the URL of the witness {witness.label}: {error}") from None
