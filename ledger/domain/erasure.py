"""An erasure as a state machine: from what can be seen of it follow its state and its next step.

    requested ──begin──▶ shredding ──record──▶ shredding ──finish──▶ erased
                             └───── its id is taken ─────▶ failed

What the vault calls done and the ledger has never recorded has failed, too.

Nothing is kept in memory between two steps: whoever drives it, the request that asked for it or the worker that finds
it open, looks at the vault and at the log, and does what comes next. It can die anywhere, and anybody can drive it on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ledger.domain.events import RecordedEvent
from ledger.domain.names import LEDGER_CATEGORY

ErasureState = Literal["requested", "shredding", "erased", "failed"]

ErasureStep = Literal["begin", "record", "finish"]
"""``begin``: the vault sets the subject ``erasing`` and writes down the final list of keys. ``record``: the ledger
records ``SubjectErased`` and the dead keys. ``finish``: the vault deletes the keys, and writes the journal line."""


@dataclass(frozen=True, slots=True)
class ErasureEvidence:
    """What can be seen of an erasure. ``begun``, ``done``: by the vault. ``event``: the event under its id."""

    begun: bool
    done: bool
    event: RecordedEvent | None

    @property
    def recorded(self) -> bool:
        """Whether the ledger has recorded it (I9). A writer's event under its id shreds nothing."""
        return self.event is not None and self.event.envelope.category == LEDGER_CATEGORY


def erasure_state(evidence: ErasureEvidence) -> ErasureState:
    """Where it stands."""
    if evidence.done:
        # I9: the vault alone cannot say so. A hand in it may have.
        return "erased" if evidence.recorded else "failed"
    if evidence.event is not None and not evidence.recorded:
        return "failed"
    return "shredding" if evidence.begun else "requested"


def next_step(evidence: ErasureEvidence) -> ErasureStep | None:
    """What comes next; None when there is nothing left that could be done."""
    match erasure_state(evidence):
        case "requested":
            return "begin"
        case "shredding":
            return "finish" if evidence.recorded else "record"
        case _:
            return None
