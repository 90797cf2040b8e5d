"""Verify ledgers behind the log, all the time and without haste: what the worker does.

A round goes through a whole ledger, piece by piece; between rounds what has come since is checked as it comes. What a
round knows (the tree so far, the key of its fingerprints) is kept in memory only: whoever can write to the database
cannot tell a worker that something was verified. So a worker that starts begins with a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from ledger.domain.verdicts import MOST_LISTED, Finding, Findings
from ledger.errors import IntegrityError, LeaseLostError
from ledger.ports import CursorKey
from ledger.services.dependencies import Dependencies
from ledger.services.verifying.books import BooksResult
from ledger.services.verifying.keys import KeysResult
from ledger.services.verifying.ranges import RangeResult
from ledger.services.verifying.running import Job
from ledger.services.verifying.verification import Verification, Verified

CURSOR: Final = CursorKey("verification", "log")
"""Up to where a ledger was found to be right. Of use to the metrics only."""

DAY: Final = 86_400_000_000
LEASE: Final = 120_000_000
"""Microseconds."""

WIDTH: Final = 1 << 11
"""Positions of a piece: what one step reads."""

SHARE: Final = 0.1
"""Of its time that a worker verifies, at most."""

REST_SECONDS: Final = 10.0
"""How long what has come since may wait, at the least."""


@dataclass
class _Round:
    """A ledger on its way through a verification."""

    verification: Verification
    whole: bool
    began_at: int
    jobs: Iterator[Job[Any]]
    job: Job[Any] | None = None
    """The next one; what failed is tried again."""


@dataclass
class _Known:
    """What this worker knows of a ledger."""

    due: float = 0.0
    """When the next step may be (``time.monotonic``)."""
    round: _Round | None = None
    verified: Verified | None = None
    whole_since: int | None = None
    """When the last round through all of it began, in microseconds."""
    alarmed: set[Finding] = field(default_factory=set)


class Background:
    """Verifies any number of ledgers, each a step at a time. Used by one worker's threads, one a ledger."""

    def __init__(
        self, deps: Dependencies, holder: UUID, days: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``days``: after so many another round through everything begins."""
        self._deps = deps
        self._holder = holder
        self._every = days * DAY
        self._clock = clock
        self._ledgers: dict[UUID, _Known] = {}

    def step(self, ledger_id: UUID) -> bool:
        """Check a piece. False when there is nothing to check, it is not time yet, or another worker does it."""
        known = self._ledgers.setdefault(ledger_id, _Known())
        began = self._clock()
        if began < known.due or not self._has_work(ledger_id, known):
            return False
        known.due = began + REST_SECONDS
        if not self._lease(ledger_id):
            return False
        going = known.round or self._begin(ledger_id, known)
        known.round = going
        over = self._advance(ledger_id, known, going)
        took = self._clock() - began
        rest = max(took * (1 / SHARE - 1), REST_SECONDS if over else 0.0)
        known.due = began + took + rest
        # Never a reason for the worker to come back at once.
        return False

    def _has_work(self, ledger_id: UUID, known: _Known) -> bool:
        if known.round is not None or known.verified is None or self._is_whole_due(known):
            return True
        return self._deps.store.head(ledger_id).size != known.verified.size

    def _is_whole_due(self, known: _Known) -> bool:
        return known.whole_since is None or self._deps.clock() - known.whole_since >= self._every

    def _lease(self, ledger_id: UUID) -> bool:
        cursors, now = self._deps.derived.cursors, self._deps.clock()
        cursors.add_cursor(ledger_id, CURSOR, 1, "running", -1)
        return cursors.take_cursor(ledger_id, CURSOR, self._holder, now, now + LEASE) is not None

    def _begin(self, ledger_id: UUID, known: _Known) -> _Round:
        whole = known.verified is None or self._is_whole_due(known)
        since = None if whole else known.verified
        verification = Verification(self._deps, ledger_id, opening=True, since=since, width=WIDTH)
        return _Round(verification, whole, self._deps.clock(), _jobs(verification, whole=whole))

    def _advance(self, ledger_id: UUID, known: _Known, going: _Round) -> bool:
        """Do the next piece. True when there was none."""
        going.job = going.job or next(going.jobs, None)
        over = going.job is None
        if going.job is not None:
            _take(going.verification, going.job.work(self._deps))
            going.job = None
        else:
            known.round = None
            self._finish(ledger_id, known, going)
        self._alarm(ledger_id, known, going.verification.findings)
        return over

    def _finish(self, ledger_id: UUID, known: _Known, going: _Round) -> None:
        if going.whole:
            known.whole_since = going.began_at
        known.verified = going.verification.so_far()
        with suppress(LeaseLostError):  # who has it now finds the same
            self._note(ledger_id, going, known.verified.size)

    def _note(self, ledger_id: UUID, going: _Round, size: int) -> None:
        cursors, now = self._deps.derived.cursors, self._deps.clock()
        (cursor,) = cursors.cursors(ledger_id, CURSOR.kind, CURSOR.name)
        if not going.verification.is_right_so_far:
            # The cursor stays: only a round through everything that finds nothing says that all is right again.
            error = IntegrityError.__name__
            cursors.note_failure(ledger_id, CURSOR, self._holder, cursor.position, error, retry_at=now, stop=False)
        elif going.whole or cursor.error is None:
            new = max(cursor.position, size - 1)
            cursors.move_cursor(ledger_id, CURSOR, self._holder, cursor.position, new, now, now + LEASE)

    def _alarm(self, ledger_id: UUID, known: _Known, findings: Findings) -> None:
        """Once for each finding, however often it is found."""
        for finding in findings.listed:
            if finding not in known.alarmed and len(known.alarmed) < MOST_LISTED:
                known.alarmed.add(finding)
                self._deps.alarm(ledger_id, finding.position, None, finding.what)


def _jobs(verification: Verification, *, whole: bool) -> Iterator[Job[Any]]:
    """The pieces of a verification. ``event_keys``, as large as the log, is left to the rounds through everything."""
    yield from verification.range_jobs()
    verification.check_ends()
    if whole:
        yield from verification.key_jobs()
        yield from verification.naming_jobs()
        yield from verification.window_jobs()
    yield verification.books_job()


def _take(verification: Verification, result: object) -> None:
    match result:
        case RangeResult():
            verification.take_range(result)
        case KeysResult():
            verification.take_keys(result)
        case BooksResult():
            verification.take_books(result)
        case Findings():
            verification.findings.take(result)
