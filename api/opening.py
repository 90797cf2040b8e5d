"""A ledger for Python code, in a process of its own: without HTTP, and with all that the service promises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from api.config import Settings
from api.guard import Guard
from api.wiring import open_service
from ledger.domain.events import OPERATOR
from ledger.errors import RestoredError
from ledger.open_ledger import OpenLedger
from ledger.services.ledgers import find_ledger


@contextmanager
def open_ledger(name: str, settings: Settings | None = None, *, recorded_by: UUID = OPERATOR) -> Iterator[OpenLedger]:
    """A ledger that is there, for Python code (``ledger.open_ledger``); with the settings of the environment, unless
    others are given.

    Raises ``NotFoundError``, and ``RestoredError`` while something is there that came back from an older copy.
    """
    service = open_service(settings or Settings.from_environment(os.environ))
    try:
        guard = Guard(service)
        if guard.start():
            raise RestoredError(guard.state)
        with guard.running():
            yield OpenLedger(service.deps, find_ledger(service.deps, name).ledger_id, recorded_by)
    finally:
        service.close()
