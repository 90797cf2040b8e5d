"""The erasure as a state machine: its state and its next step follow from what can be seen of it."""

from __future__ import annotations

from uuid import UUID

import pytest

from ledger.domain.erasure import ErasureEvidence, erasure_state, next_step
from ledger.domain.events import Envelope, RecordedEvent
from ledger.domain.names import LEDGER_CATEGORY, SUBJECT_ERASED

ID = UUID("0193a5e0-7c00-7000-8000-0000000000cc")


def an_event(category: str = LEDGER_CATEGORY) -> RecordedEvent:
    """The event under an erasure's id."""
    envelope = Envelope(ID, ID, ID.bytes, category, SUBJECT_ERASED, 1, None, None, None)
    return RecordedEvent(envelope, (), ID, 0, 1, 5, b"")


@pytest.mark.parametrize(
    ("evidence", "state", "step"),
    [
        (ErasureEvidence(begun=False, done=False, event=None), "requested", "begin"),
        (ErasureEvidence(begun=True, done=False, event=None), "shredding", "record"),
        (ErasureEvidence(begun=True, done=False, event=an_event()), "shredding", "finish"),
        (ErasureEvidence(begun=True, done=True, event=an_event()), "erased", None),
        (ErasureEvidence(begun=True, done=False, event=an_event("patient")), "failed", None),
        (ErasureEvidence(begun=False, done=False, event=an_event("patient")), "failed", None),
        (ErasureEvidence(begun=True, done=True, event=None), "failed", None),
        (ErasureEvidence(begun=True, done=True, event=an_event("patient")), "failed", None),
    ],
)
def test_state_and_next_step_follow_from_the_evidence(evidence: ErasureEvidence, state: str, step: str | None) -> None:
    """Requested, shredding, erased; or failed: a writer's event has taken its id, or only the vault calls it done."""
    assert (erasure_state(evidence), next_step(evidence)) == (state, step)


def test_every_step_leads_on() -> None:
    """From the request to the end in three steps, each of which changes the evidence as its name says."""
    evidence = ErasureEvidence(begun=False, done=False, event=None)
    taken = []
    while (step := next_step(evidence)) is not None:
        taken.append(step)
        evidence = ErasureEvidence(
            begun=True,
            done=step == "finish",
            event=an_event() if step in ("record", "finish") else None,
        )
    assert taken == ["begin", "record", "finish"]
    assert erasure_state(evidence) == "erased"
