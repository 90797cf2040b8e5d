"""The cursors of everything that follows a log, and their leases."""

from __future__ import annotations

from sqlalchemy import Engine


class SqlCursors:
    """Satisfies ``ledger.ports.Cursors``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
