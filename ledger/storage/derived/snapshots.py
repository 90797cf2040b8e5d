"""Snapshots of streams."""

from __future__ import annotations

from sqlalchemy import Engine


class SqlSnapshots:
    """Satisfies ``ledger.ports.Snapshots``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
