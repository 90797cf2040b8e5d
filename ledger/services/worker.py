"""Do the work that follows the logs, for all ledgers: projections, snapshots, checkpoints, processes and their timers,
and erasures that a crash has left open.

A worker owns nothing. Each piece of work is a bounded step that takes a lease, and whoever writes is checked by the
store (``Cursors``): so any number of workers may run, and any of them may be killed at any time. One that is told to
stop finishes the steps it is in, and gives its leases back so that the others need not wait for them to run out.

Ledgers get their turns in the order in which they have work, one step of each duty a turn, on a few threads. So a
ledger that is far behind, or slow, does not keep the others waiting.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

from ledger.domain.process import ProcessManager
from ledger.domain.projection import Projection
from ledger.errors import StoreUnavailableError
from ledger.services.commanding import processes as commanding
from ledger.services.counting import filling
from ledger.services.dependencies import Dependencies
from ledger.services.erase import resume_erasures
from ledger.services.projecting import runner
from ledger.services.projecting.shipped import SHIPPED
from ledger.services.proving import publishing
from ledger.services.reinstating import resume_reinstatements
from ledger.services.timetravel import snapshotting
from ledger.services.verifying.background import Background

THREADS: Final = 4
"""Ledgers that are worked on at the same time."""

POLL_SECONDS: Final = 0.25
"""How often the sizes of all ledgers are looked at, so that no growth goes unnoticed for longer."""

LOOK_SECONDS: Final = 1.0
"""How often a ledger gets a turn that has not grown: timers come due, leases of the dead run out, rebuilds are asked
for."""

LOOKS_PER_SECOND: Final = 50
"""Such turns of all ledgers together, at most: with more ledgers than that, each gets them less often."""

ERASURES_SECONDS: Final = 10.0
"""How often open erasures are looked for."""

FIRST_REST: Final = 1.0
LONGEST_REST: Final = 30.0
"""Seconds before a duty that failed is tried again; doubled each time."""

Step = Callable[[UUID], bool]
"""One bounded piece of work for a ledger; False when there was nothing to do."""


class Report(Protocol):
    """Who is told what happens. ``duty``: a word of the program. Must not raise."""

    def failed(self, duty: str, ledger_id: UUID | None, error: Exception) -> None:
        """A duty has begun to fail in this way; it is tried again, and not reported again before it has worked."""

    def recovered(self, duty: str) -> None:
        """A duty that failed works again, everywhere."""

    def resumed(self, erasure_id: UUID) -> None:
        """An erasure that was left open is complete."""


class Silent:
    """Satisfies ``Report`` for those who do not want to know."""

    def failed(self, duty: str, ledger_id: UUID | None, error: Exception) -> None:
        """Say nothing."""

    def recovered(self, duty: str) -> None:
        """Say nothing."""

    def resumed(self, erasure_id: UUID) -> None:
        """Say nothing."""


SILENT: Final = Silent()


def run_worker(
    deps: Dependencies,
    *,
    stop: threading.Event,
    projections: Sequence[Projection] = tuple(SHIPPED.values()),
    processes: Sequence[ProcessManager] = (),
    ledgers: Collection[UUID] | None = None,
    report: Report = SILENT,
    verify_days: int = 0,
) -> None:
    """Work until ``stop`` is set.

    ``verify_days``: every ledger is verified all through after so many days, and what comes meanwhile; 0: never.
    ``ledgers``: only these; None: all, and those that are made meanwhile. A dependency that is down is waited for.
    """
    holder = deps.new_id()
    duties: dict[str, Step] = {
        "projections": lambda ledger_id: runner.step(deps, ledger_id, projections, holder),
        "snapshots": lambda ledger_id: snapshotting.step(deps, ledger_id, holder),
        "checkpoints": lambda ledger_id: publishing.step(deps, ledger_id),
        "key windows": lambda ledger_id: filling.step(deps, ledger_id, holder),
    }
    if verify_days:
        duties["verification"] = Background(deps, holder, verify_days).step
    if processes:
        duties["processes"] = lambda ledger_id: commanding.step(deps, ledger_id, processes, holder)
    try:
        Worker(deps, duties, report, ledgers).run(stop)
    finally:
        _release(deps, holder)


def _release(deps: Dependencies, holder: UUID) -> None:
    """Give back what a worker has leased, where it has not run out yet."""
    try:
        now = deps.clock()
        for follower in deps.store.followers():
            cursor = follower.cursor
            if cursor.holder == holder and cursor.lease_until > now:
                deps.derived.cursors.release_cursor(follower.ledger_id, cursor.key, holder)
    except StoreUnavailableError:
        # They run out by themselves.
        return


@dataclass
class _Turns:
    """What a worker knows of one ledger. Guarded by the worker's lock."""

    size: int
    due: float
    """When it gets a turn even if it does not grow (``time.monotonic``)."""
    busy: bool = False
    grown: bool = False
    """It has grown since its turn began."""


class Worker:
    """Gives ledgers their turns."""

    def __init__(
        self, deps: Dependencies, duties: Mapping[str, Step], report: Report, ledgers: Collection[UUID] | None = None
    ) -> None:
        self._deps = deps
        self._duties = duties
        self._report = report
        self._only = frozenset(ledgers) if ledgers is not None else None
        self._lock = threading.Lock()
        self._ledgers: dict[UUID, _Turns] = {}
        self._last_grown: UUID | None = None
        self._troubles = _Troubles(report)

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set; then the steps that have begun are finished."""
        erasures: Future[None] | None = None
        erasures_due = 0.0
        with ThreadPoolExecutor(THREADS + 1, thread_name_prefix="audit-ledger-worker") as pool:
            while not stop.is_set():
                if time.monotonic() >= erasures_due and (erasures is None or erasures.done()):
                    erasures_due = time.monotonic() + ERASURES_SECONDS
                    erasures = pool.submit(self._resume_erasures)
                try:
                    self._look(pool, stop)
                    self._wait(stop)
                except Exception as error:  # noqa: BLE001 - a worker outlives whatever its dependencies do
                    stop.wait(self._troubles.note("ledgers", None, error))
                else:
                    self._troubles.clear("ledgers", None)

    def _look(self, pool: ThreadPoolExecutor, stop: threading.Event) -> None:
        """Give a turn to every ledger that has grown, or is new, or has not had one for long enough."""
        sizes = self._deps.store.sizes()
        now = time.monotonic()
        with self._lock:
            for ledger_id, size in sizes.items():
                if self._only is not None and ledger_id not in self._only:
                    continue
                turns = self._ledgers.setdefault(ledger_id, _Turns(-1, now))
                grown = size > turns.size
                if grown:
                    self._last_grown = ledger_id
                    turns.size = size
                if turns.busy:
                    turns.grown |= grown
                elif grown or now >= turns.due:
                    turns.busy = True
                    pool.submit(self._turn, pool, stop, ledger_id, turns)

    def _wait(self, stop: threading.Event) -> None:
        """Until the next look. Growth of the ledger that grew last, which is the likeliest to grow next, ends it."""
        if self._last_grown is None:
            stop.wait(POLL_SECONDS)
            return
        size = self._ledgers[self._last_grown].size
        self._deps.store.wait_for_growth(self._last_grown, size, POLL_SECONDS)

    def _turn(self, pool: ThreadPoolExecutor, stop: threading.Event, ledger_id: UUID, turns: _Turns) -> None:
        """One step of each duty. A ledger with more to do goes to the end of the queue."""
        worked = False
        for duty, step in self._duties.items():
            if not stop.is_set():
                worked |= self._do(duty, step, ledger_id)
        with self._lock:
            again = (worked or turns.grown) and not stop.is_set()
            turns.grown = False
            turns.busy = again
            turns.due = time.monotonic() + max(LOOK_SECONDS, len(self._ledgers) / LOOKS_PER_SECOND)
        if again:
            pool.submit(self._turn, pool, stop, ledger_id, turns)

    def _do(self, duty: str, step: Step, ledger_id: UUID) -> bool:
        if self._troubles.rests(duty, ledger_id):
            return False
        try:
            worked = step(ledger_id)
        except Exception as error:  # noqa: BLE001 - one duty of one ledger must not keep the others from theirs
            self._troubles.note(duty, ledger_id, error)
            return False
        self._troubles.clear(duty, ledger_id)
        return worked

    def _resume_erasures(self) -> None:
        self._resume_reinstatements()
        try:
            outcomes = resume_erasures(self._deps)
        except Exception as error:  # noqa: BLE001 - the vault may be down; it is asked again
            self._troubles.note("erasures", None, error)
            return
        stuck = next((error for error in outcomes.values() if error is not None), None)
        if stuck is not None:
            self._troubles.note("erasures", None, stuck)
        else:
            self._troubles.clear("erasures", None)
        for erasure_id, failure in outcomes.items():
            if failure is None:
                self._report.resumed(erasure_id)

    def _resume_reinstatements(self) -> None:
        try:
            stuck = next((error for error in resume_reinstatements(self._deps).values() if error is not None), None)
        except Exception as error:  # noqa: BLE001 - the vault may be down; it is asked again
            stuck = error
        if stuck is not None:
            self._troubles.note("reinstatements", None, stuck)
        else:
            self._troubles.clear("reinstatements", None)


@dataclass
class _Trouble:
    kind: type[Exception]
    rest: float
    until: float


@dataclass
class _Troubles:
    """What fails now, and until when it rests. A failure is told once: not for each ledger, and not at each try."""

    report: Report
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[tuple[str, UUID | None], _Trouble] = field(default_factory=dict)

    def rests(self, duty: str, ledger_id: UUID | None) -> bool:
        """Whether it is too early to try this again."""
        with self._lock:
            trouble = self._known.get((duty, ledger_id))
            return trouble is not None and time.monotonic() < trouble.until

    def note(self, duty: str, ledger_id: UUID | None, error: Exception) -> float:
        """It failed. Gives the seconds to leave it alone."""
        with self._lock:
            new = not any(known == duty and trouble.kind is type(error) for (known, _), trouble in self._known.items())
            before = self._known.get((duty, ledger_id))
            rest = FIRST_REST if before is None else min(2 * before.rest, LONGEST_REST)
            self._known[duty, ledger_id] = _Trouble(type(error), rest, time.monotonic() + rest)
        if new:
            self.report.failed(duty, ledger_id, error)
        return rest

    def clear(self, duty: str, ledger_id: UUID | None) -> None:
        """It worked."""
        with self._lock:
            if self._known.pop((duty, ledger_id), None) is None:
                return
            over = not any(known == duty for known, _ in self._known)
        if over:
            self.report.recovered(duty)
