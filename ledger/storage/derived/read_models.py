"""The documents of projections."""

from __future__ import annotations

from sqlalchemy import Engine


class SqlReadModels:
    """Satisfies ``ledger.ports.ReadModels``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
