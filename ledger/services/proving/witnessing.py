"""Have witnesses cosign what is published, and believe them nothing that does not verify.

A witness cosigns a checkpoint only if it is proven to begin with the one that it cosigned before. Where it finds that
it is not, or where it knows a longer ledger than there is, somebody has signed two histories with the ledger's key:
that is an integrity alarm, and what shows it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from uuid import UUID

from ledger.domain.checkpoints import parse_size
from ledger.domain.notes import Note, NoteError, VerifierKey, parse_note, parse_signature_lines, verify_cosignature
from ledger.domain.tiles import consistency_proof
from ledger.domain.witness_policy import satisfied
from ledger.domain.witnessing import format_add_checkpoint
from ledger.ports import PublishedCheckpoint
from ledger.ports.witness import Witness, Witnesses, WitnessOutcome, WitnessUnavailableError
from ledger.services.dependencies import Dependencies
from ledger.services.proving.tiles import tile_reader

ASKING_SECONDS: Final = 5.0
"""How long it takes at most to ask all of them. Who answers later is not waited for; what it signs is kept all the
same."""

_TRIES: Final = 3
"""A witness tells once which size it has; it may get another one from another process meanwhile."""


class _OutcomeError(Exception):
    """The checkpoint was not cosigned."""

    def __init__(self, outcome: WitnessOutcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


@dataclass(frozen=True, slots=True)
class _Cosignature:
    line: str
    timestamp: int


def is_stuck(deps: Dependencies, ledger_id: UUID) -> bool:
    """Whether nothing can be published now, because too many witnesses were away, or refused, a moment ago. Else
    everybody who looks for a checkpoint would have one signed and sent around."""
    witnesses = deps.witnesses
    if witnesses is None or not witnesses.required:
        return False
    if witnesses.has_just_failed(ledger_id):
        return True
    return not satisfied(witnesses.policy, {one.name for one in witnesses.all() if not one.is_resting})


def may_publish(deps: Dependencies, checkpoint: PublishedCheckpoint) -> bool:
    """Whether a signed checkpoint may be shown. Where the quorum must have cosigned it, it is asked to."""
    witnesses = deps.witnesses
    return witnesses is None or not witnesses.required or satisfied(witnesses.policy, cosign(deps, checkpoint))


def cosign(deps: Dependencies, checkpoint: PublishedCheckpoint) -> frozenset[str]:
    """Ask the witnesses that have not cosigned a checkpoint, all at once, and keep what they sign.

    Gives the names of those that have by now. A witness that is away, or does not cosign, is told of and is no error.
    """
    witnesses = deps.witnesses
    if witnesses is None:
        return frozenset()
    having = kept_cosigners(deps, witnesses, checkpoint)
    missing = [one for one in witnesses.all() if one.name not in having]
    if missing:
        signed = _ask_all(deps, witnesses, missing, checkpoint)
        # What counts is what everybody is shown.
        having = kept_cosigners(deps, witnesses, checkpoint)
        for witness in signed:
            _tell_signed(deps, witnesses, witness, checkpoint, is_kept=witness.name in having)
        absent = [one.name for one in missing if one.name not in having]
        witnesses.note_quorum(checkpoint.ledger_id, absent, reached=satisfied(witnesses.policy, having))
    return having


def kept_cosigners(deps: Dependencies, witnesses: Witnesses, checkpoint: PublishedCheckpoint) -> frozenset[str]:
    """The names of the witnesses whose cosignatures are kept. A line that does not verify is nobody's, and takes none
    of the others with it."""
    text = parse_note(checkpoint.note).text
    lines = deps.transparency.cosignatures(checkpoint.ledger_id, checkpoint.origin, checkpoint.size)
    return frozenset(
        one.name for one in witnesses.policy.witnesses if any(_is_by(line, text, one.key, witnesses) for line in lines)
    )


def _is_by(line: str, text: str, key: VerifierKey, witnesses: Witnesses) -> bool:
    try:
        verify_cosignature(Note(text, parse_signature_lines(line)), key, witnesses.verify)
    except NoteError:
        return False
    return True


def _ask_all(
    deps: Dependencies, witnesses: Witnesses, missing: Sequence[Witness], checkpoint: PublishedCheckpoint
) -> list[Witness]:
    """Those that have signed in time."""
    pool = ThreadPoolExecutor(len(missing), thread_name_prefix="audit-ledger-witnesses")
    try:
        asked = {pool.submit(_ask, deps, witnesses, witness, checkpoint): witness for witness in missing}
        done, _ = wait(asked, timeout=ASKING_SECONDS)
    finally:
        pool.shutdown(wait=False)
    return [witness for future, witness in asked.items() if future in done and future.result()]


def _tell_signed(
    deps: Dependencies, witnesses: Witnesses, witness: Witness, checkpoint: PublishedCheckpoint, *, is_kept: bool
) -> None:
    if is_kept:
        witnesses.note(checkpoint.ledger_id, witness, WitnessOutcome.COSIGNED, "")
        return
    why = f"of {checkpoint.size} events another line has its place in the ledger database, which does not verify"
    if witnesses.note(checkpoint.ledger_id, witness, WitnessOutcome.NOT_KEPT, why):
        position = max(checkpoint.size - 1, 0)
        deps.alarm(checkpoint.ledger_id, position, None, f"a witness's cosignature is not kept: {why}")


def _ask(deps: Dependencies, witnesses: Witnesses, witness: Witness, checkpoint: PublishedCheckpoint) -> bool:
    ledger_id = checkpoint.ledger_id
    try:
        found = _exchange(deps, witnesses, witness, checkpoint)
    except WitnessUnavailableError as error:
        witnesses.note(ledger_id, witness, WitnessOutcome.AWAY, error.detail)
        return False
    except _OutcomeError as error:
        other_history = error.outcome == WitnessOutcome.OTHER_HISTORY
        if other_history:
            # Before anybody is told: who is killed here finds it again, and not only a line that it was there.
            witnesses.keep_evidence(ledger_id, witness, checkpoint.size, _evidence(witness, checkpoint, error.detail))
        if witnesses.note(ledger_id, witness, error.outcome, error.detail) and other_history:
            position = max(checkpoint.size - 1, 0)
            deps.alarm(ledger_id, position, None, f"a witness has seen another history: {error.detail}")
        return False
    deps.transparency.add_cosignature(
        ledger_id,
        checkpoint.origin,
        checkpoint.size,
        name=witness.key.name,
        line=found.line,
        timestamp=found.timestamp,
    )
    return True


def _exchange(
    deps: Dependencies, witnesses: Witnesses, witness: Witness, checkpoint: PublishedCheckpoint
) -> _Cosignature:
    """Raises ``WitnessUnavailableError`` and ``_OutcomeError``."""
    ledger_id, size = checkpoint.ledger_id, checkpoint.size
    # That it is larger is for the witness to say.
    old = min(deps.transparency.last_cosigned(ledger_id, checkpoint.origin, witness.key.name), size)
    for _ in range(_TRIES):
        if old > size:
            raise _beyond(deps, checkpoint, old)
        proof = consistency_proof(tile_reader(deps, ledger_id, size), old, size)
        answer = witness.add_checkpoint(format_add_checkpoint(old, proof, checkpoint.note))
        match answer.status:
            case HTTPStatus.OK:
                return _verified(witnesses, witness, checkpoint, answer.body)
            case HTTPStatus.CONFLICT:
                old = _size(answer.body)
            case HTTPStatus.UNPROCESSABLE_ENTITY:
                raise _OutcomeError(
                    WitnessOutcome.OTHER_HISTORY,
                    f"the first {size} events do not begin with the {old} events that it cosigned",
                )
            case _:
                raise _OutcomeError(WitnessOutcome.REFUSED, f"it has answered with the status {answer.status}")
    raise _OutcomeError(WitnessOutcome.OVERTAKEN, "its size has changed at every try")


def _beyond(deps: Dependencies, checkpoint: PublishedCheckpoint, old: int) -> _OutcomeError:
    # The head is read after the witness has answered, so all that was ever signed lies below it.
    if old > deps.store.head(checkpoint.ledger_id).size:
        return _OutcomeError(
            WitnessOutcome.OTHER_HISTORY, f"it has cosigned {old} events, and so many never were there"
        )
    return _OutcomeError(WitnessOutcome.OVERTAKEN, f"it has cosigned {old} events already")


def _size(body: bytes) -> int:
    try:
        text = body.decode("ascii")
        return parse_size(text.removesuffix("\n"))
    except (UnicodeDecodeError, NoteError):
        raise _OutcomeError(WitnessOutcome.REFUSED, "it has not said which size it has") from None


def _verified(witnesses: Witnesses, witness: Witness, checkpoint: PublishedCheckpoint, body: bytes) -> _Cosignature:
    try:
        lines = parse_signature_lines(body.decode())
        note = Note(parse_note(checkpoint.note).text, tuple(line for line in lines if line.is_by(witness.key)))
        timestamp = verify_cosignature(note, witness.key, witnesses.verify)
    except (UnicodeDecodeError, NoteError) as error:
        why = error.detail if isinstance(error, NoteError) else "it is no text"
        raise _OutcomeError(WitnessOutcome.FALSE, f"what it has answered is no cosignature by its key: {why}") from None
    return _Cosignature(note.signatures[0].line, timestamp)


def _evidence(witness: Witness, checkpoint: PublishedCheckpoint, detail: str) -> str:
    return (
        f"The witness {witness.key.text} has seen another history of this ledger: {detail}.\n"
        "Ask its operator for the checkpoint that it cosigned last: it bears the ledger's own signature.\n"
        "Then find out who else can sign with that key, and whether the ledger was restored from an older copy.\n"
        f"What was shown to the witness:\n\n{checkpoint.note}"
    )
