"""One try to append a batch of events, and what has become of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from ledger.domain.events import NewEvent, RecordedEvent, SealedEvent
from ledger.ports import CatalogueMark, Mark
from ledger.services.appending.preparation import Candidate
from ledger.services.dependencies import Dependencies

Admission = Callable[[Dependencies, UUID, CatalogueMark, Sequence[NewEvent]], Sequence[NewEvent]]
"""Looks at new events that are not recorded yet, before anything is minted for them: gives them back, perhaps marked,
or raises ``InvalidError``."""

Inspection = Callable[[Sequence[SealedEvent]], None]
"""Looks at what is about to be recorded, before the head is locked, and raises if that must not be."""


@dataclass(slots=True, eq=False)
class Attempt:
    """It stays ``open`` until it is known what has become of it: what was ``recorded``, or the ``error`` that stands in
    its way. All or nothing, whoever it shares a transaction with.

    ``dead``: keys not to be used, whatever the vault says. ``claims``: stream → the subject of the first event that was
    sent for it, which owns the stream if it is its first at all.
    """

    deps: Dependencies
    events: Sequence[NewEvent]
    ids: Sequence[UUID]
    recorded_by: UUID
    admit: Admission
    inspect: Inspection | None
    dead: frozenset[bytes]
    candidates: Sequence[Candidate] = ()
    claims: Mapping[str, str | None] = field(default_factory=dict)
    sealed: Sequence[SealedEvent] = ()
    recorded: Sequence[RecordedEvent] | None = None
    error: Exception | None = None

    def become(self, candidates: Sequence[Candidate]) -> None:
        """What was sent turned out to be this."""
        claims: dict[str, str | None] = {}
        for candidate in candidates:
            subject = candidate.event.subject
            claims.setdefault(candidate.stream, subject.subject if subject is not None else None)
        self.candidates, self.claims = candidates, claims

    @property
    def open(self) -> bool:
        """Whether it can still be recorded."""
        return self.recorded is None and self.error is None


def still_open(attempts: Iterable[Attempt]) -> list[Attempt]:
    """Those that can still be recorded."""
    return [attempt for attempt in attempts if attempt.open]


@contextmanager
def failing_alone(attempt: Attempt) -> Iterator[None]:
    """What fails in the block is this attempt, and not those that it shares a transaction with."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the attempt was made
        attempt.error = error


@dataclass(frozen=True, slots=True)
class Prepared:
    """Attempts whose events are sealed, and how far the vault was when their keys were looked up."""

    attempts: Sequence[Attempt]
    seen: Mark
