"""What a worker does about witnesses: have cosigned what is published. In a thread of its own, because a witness that
does not answer must not keep read models waiting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

from api.guard import Guard
from api.logs import LOGGER
from api.readiness import NotReadyError
from api.wiring import Service
from keyvault.errors import KeyVaultError
from ledger.errors import LedgerError
from ledger.services.proving.publishing import log_name
from ledger.services.proving.witnessing import cosign

EVERY_SECONDS: Final = 1.0
LONGEST_REST: Final = 30.0
_DUTY: Final = "witnesses"

_log = logging.getLogger(LOGGER)


class WitnessDuty:
    """Any number of workers may: a witness that has cosigned is not asked again."""

    def __init__(self, service: Service, stop: threading.Event, guard: Guard) -> None:
        self._deps = service.deps
        self._service = service
        self._stop = stop
        self._guard = guard
        self._failing = False
        self._due: dict[UUID, tuple[int, float, float]] = {}
        """For each ledger: the size of the checkpoint that was asked about, when to ask again, and the pause."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """From here to the end of the block, where witnesses are configured."""
        if self._deps.witnesses is None:
            yield
            return
        thread = threading.Thread(target=self._run, name="audit-ledger-witnesses", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def do_all(self) -> None:
        """The newest checkpoint of each ledger once. A failure is told once."""
        with suppress(KeyVaultError, LedgerError):
            try:
                self._guard.require()
            except NotReadyError:
                return
        failure: Exception | None = None
        try:
            ledgers = self._service.store.ledgers()
        except LedgerError as error:
            ledgers, failure = [], error
        for ledger in ledgers:
            if self._stop.is_set():
                return
            try:
                self._have_cosigned(ledger.ledger_id)
            except Exception as error:  # noqa: BLE001 - one ledger must not keep the others from their cosignatures
                failure = error
        self._tell(failure)

    def _have_cosigned(self, ledger_id: UUID) -> None:
        last = self._deps.transparency.latest_published(ledger_id, log_name(self._deps, ledger_id))
        witnesses = self._deps.witnesses
        if last is None or witnesses is None:
            return
        size, due, rest = self._due.get(ledger_id, (-1, 0.0, EVERY_SECONDS))
        if size == last.size and time.monotonic() < due:
            return
        having = cosign(self._deps, last)
        # Who has refused a checkpoint is asked about it less and less often.
        complete = len(having) == len(witnesses.all())
        rest = LONGEST_REST if complete else min(2 * rest, LONGEST_REST) if size == last.size else EVERY_SECONDS
        self._due[ledger_id] = (last.size, time.monotonic() + rest, rest)

    def _tell(self, failure: Exception | None) -> None:
        if failure is not None and not self._failing:
            _log.error("worker-duty-failed", extra={"duty": _DUTY, "ledger_id": None}, exc_info=failure)
        if failure is None and self._failing:
            _log.info("worker-duty-recovered", extra={"duty": _DUTY})
        self._failing = failure is not None

    def _run(self) -> None:
        while not self._stop.is_set():
            self.do_all()
            self._stop.wait(EVERY_SECONDS)
