"""``audit-ledger worker``: the process around ``ledger.services.worker``."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final
from uuid import UUID

from api.config import Settings
from api.epoch_duties import EpochDuties
from api.guard import Guard
from api.logs import LOGGER, configure_logs
from api.metrics import Counters
from api.starting import check_dependencies
from api.wiring import open_service
from api.witness_duty import WitnessDuty
from ledger.services.projecting.shipped import SHIPPED
from ledger.services.worker import run_worker

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(LOGGER)


class _Log:
    """Satisfies ``ledger.services.worker.Report``: lines of the log."""

    def failed(self, duty: str, ledger_id: UUID | None, error: Exception) -> None:
        """Once for each way in which a duty fails, not at every try."""
        where = {"duty": duty, "ledger_id": str(ledger_id) if ledger_id is not None else None}
        _log.error("worker-duty-failed", extra=where, exc_info=error)

    def recovered(self, duty: str) -> None:
        """Everything that the duty failed at works again."""
        _log.info("worker-duty-recovered", extra={"duty": duty})

    def resumed(self, erasure_id: UUID) -> None:
        """An erasure that a crash had left open."""
        _log.info("erasure-resumed", extra={"erasure_id": str(erasure_id)})


def work(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, and finish the steps that are under way. Raises ``StartError``."""
    configure_logs(settings.log_level)
    projections = [SHIPPED[name] for name in settings.projections]
    service = open_service(settings, Counters())
    try:
        guard = Guard(service)
        check_dependencies(service, guard)
        with (
            _told_to_stop() as stop,
            guard.running(),
            EpochDuties(service, stop, guard).running(),
            WitnessDuty(service, stop, guard).running(),
        ):
            _log.info("working", extra={"projections": list(settings.projections)})
            run_worker(
                service.deps,
                stop=stop,
                projections=projections,
                report=_Log(),
                verify_days=settings.verify_days,
            )
    finally:
        service.close()
    _log.info("worker-stopped")


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that is set by the signals that end a process."""
    stop = threading.Event()

    def tell(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before: list[Any] = [signal.signal(number, tell) for number in _SIGNALS]
    try:
        yield stop
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
