"""Verify a ledger: the one thing that puts together what others have checked.

1. The rows of all positions, range by range, in any process (``ranges``).
2. The tree that they make, in order: against the roots that were kept at erasures, against the published checkpoints,
   and against the head.
3. ``event_keys`` both ways (``keys``), and what was counted of it beforehand (``windows``); dead keys, streams and the
   key vault's record of erasures (``books``).

What was verified before need not be read again: a ``Verified`` says how far that was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from ledger.domain.verdicts import VerifyReport
from ledger.services.dependencies import Dependencies
from ledger.services.verifying.ranges import RANGE
from ledger.services.verifying.verification import Verification, Verified

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called with (events checked, events in all)."""


class Job(Protocol[T_co]):
    """A piece of work that any process can do."""

    def work(self, deps: Dependencies) -> T_co: ...


class Workers(Protocol):
    """Whoever does the pieces of work."""

    def results(self, jobs: Iterable[Job[T]]) -> Iterator[T]:
        """What each gives, in their order. Takes only a few of ``jobs`` ahead. Raises what a job raises."""


@dataclass(frozen=True, slots=True)
class Here:
    """Does all of it in this thread."""

    deps: Dependencies

    def results(self, jobs: Iterable[Job[T]]) -> Iterator[T]:
        """One after another."""
        return (job.work(self.deps) for job in jobs)


def _nobody(_: Verified) -> None:
    """Nobody wants to know how far it is."""


def verify_ledger(
    deps: Dependencies,
    ledger_id: UUID,
    progress: Progress,
    *,
    opening: bool = True,
    workers: Workers | None = None,
    since: Verified | None = None,
    keep: Callable[[Verified], None] = _nobody,
    width: int = RANGE,
) -> VerifyReport:
    """Check all that is known of a ledger.

    ``opening`` False: parts are not opened and signatures not checked, so that no KEK is needed. ``since``: rows that
    were verified then are not read again. ``keep`` is told how far the rows are right, now and then, and at the end of
    a run that found nothing that the rest is, too. ``width``: of a piece of work, in positions; a power of two. Raises
    errors of dependencies: a vault that is down is no verdict.
    """
    verification = Verification(deps, ledger_id, opening=opening, since=since, width=width)
    hands = workers if workers is not None else Here(deps)
    for result in hands.results(verification.range_jobs()):
        verification.take_range(result)
        if verification.is_right_so_far:
            keep(verification.so_far())
        progress(result.beyond, verification.head.size)
    verification.check_ends()
    for sums in hands.results(verification.key_jobs()):
        verification.take_keys(sums)
    for findings in hands.results(verification.naming_jobs()):
        verification.findings.take(findings)
    for findings in hands.results(verification.window_jobs()):
        verification.findings.take(findings)
    for books in hands.results([verification.books_job()]):
        verification.take_books(books)
    report = verification.report()
    if report.intact:
        keep(verification.so_far())
    return report
