"""The timers of process managers."""

from __future__ import annotations

from sqlalchemy import Engine


class SqlTimers:
    """Satisfies ``ledger.ports.Timers``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
