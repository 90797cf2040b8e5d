"""What a worker does about epochs: rotate when it is time, complete what was interrupted, sign what has become final,
say when an erasure stays open to old copies for too long; and forget the names of those who were erased."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

from api.guard import Guard
from api.logs import LOGGER
from api.readiness import NotReadyError
from api.wiring import Service
from keyvault.errors import BusyError, KeyVaultError
from keyvault.finality import DAY
from ledger.errors import LedgerError
from ledger.services.finality import sign_final_erasures
from ledger.services.unlinking import unlink_due

EVERY_SECONDS: Final = 30.0

_log = logging.getLogger(LOGGER)


class EpochDuties:
    """Does them in a thread of its own, one after the other. Any number of workers may: one works, the others leave it
    alone."""

    def __init__(self, service: Service, stop: threading.Event, guard: Guard) -> None:
        self._service = service
        self._guard = guard
        self._stop = stop
        self._failing: set[str] = set()
        self._alarmed_at: int | None = None
        self.duties: Mapping[str, Callable[[], None]] = {
            "epoch-destruction": self._complete_destructions,
            "epoch-rotation": self._rotate,
            "final-statements": self._sign,
            "final-alarm": self._raise_alarm,
            "unlinking": self._unlink,
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """From here to the end of the block, which the event ends; what is under way then stops at its next step."""
        thread = threading.Thread(target=self._run, name="audit-ledger-epochs", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def do_all(self) -> None:
        """Each of them once. A failure is told once, and does not keep the others from their turn. Nothing is done
        beside what came back from an older copy."""
        # A dependency that is down is no reason to leave them: each duty finds that out, and says it.
        with suppress(KeyVaultError, LedgerError):
            try:
                self._guard.require()
            except NotReadyError:
                return
        for name, duty in self.duties.items():
            if self._stop.is_set():
                return
            try:
                duty()
            except BusyError:
                continue
            except Exception as error:  # noqa: BLE001 - a worker outlives whatever its dependencies do
                if name not in self._failing:
                    _log.error("worker-duty-failed", extra={"duty": name, "ledger_id": None}, exc_info=error)
                self._failing.add(name)
            else:
                if name in self._failing:
                    _log.info("worker-duty-recovered", extra={"duty": name})
                self._failing.discard(name)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.do_all()
            self._stop.wait(EVERY_SECONDS)

    def _complete_destructions(self) -> None:
        for epoch in self._service.vault.epochs.complete_destructions():
            _log.warning("epoch-destroyed", extra={"epoch": epoch})

    def _rotate(self) -> None:
        days = self._service.settings.rotate_days
        # 0: what somebody has begun by hand is finished all the same.
        not_since = self._service.deps.clock() - days * DAY if days else 0
        outcome = self._service.vault.epochs.rotate(not_since=not_since, follower=_UntilStopped(self._stop))
        if outcome is None:
            return
        # A new KEK that nobody keeps a copy of: everything would be lost with it.
        _log.warning(
            "epoch-rotated" if outcome.finished else "epoch-rotation-interrupted",
            extra={"epoch": outcome.epoch, "rewrapped": outcome.rewrapped, "damaged": outcome.damaged},
        )

    def _sign(self) -> None:
        failures = _tell("erasure-final", sign_final_erasures(self._service.deps))
        if failures:
            raise failures[0]

    def _unlink(self) -> None:
        failures: list[Exception] = []
        for ledger in self._service.store.ledgers():
            if self._stop.is_set():
                break
            outcomes = unlink_due(self._service.deps, ledger.ledger_id, lambda: not self._stop.is_set())
            failures += _tell("erasure-unlinked", outcomes)
        if failures:
            raise failures[0]

    def _raise_alarm(self) -> None:
        """Once a day, as long as it lasts."""
        days, now = self._service.settings.final_alarm_days, self._service.deps.clock()
        if not days or (self._alarmed_at is not None and now - self._alarmed_at < DAY):
            return
        overdue = self._service.vault.count_erasures_without("final", erased_before=now - days * DAY)
        if overdue:
            self._alarmed_at = now
            _log.error("erasures-not-final", extra={"erasures": overdue, "days": days})


def _tell(done: str, outcomes: Mapping[UUID, Exception | None]) -> list[Exception]:
    """Log the erasures of which something was stated; gives what stood in the way of the others."""
    for erasure_id, error in outcomes.items():
        if error is None:
            _log.info(done, extra={"erasure_id": str(erasure_id)})
    return [error for error in outcomes.values() if error is not None]


class _UntilStopped:
    """Satisfies ``keyvault.rotation.Follower``."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def begins(self, epoch: int, rows: int) -> None:
        """Say so."""
        _log.info("epoch-rewrapping", extra={"epoch": epoch, "rows": rows})

    def moves(self, rows: int) -> None:
        """Say nothing."""

    def finds_damaged(self, what: str, epoch: int) -> None:
        """Name it."""
        _log.error("damaged-key", extra={"what": what, "epoch": epoch})

    def goes_on(self) -> bool:
        """Until the worker is told to stop; the next one finishes it."""
        return not self._stop.is_set()
