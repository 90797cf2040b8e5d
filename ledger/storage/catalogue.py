"""The event types and the policy of each ledger."""

from __future__ import annotations

from sqlalchemy import Engine


class SqlCatalogues:
    """Satisfies ``ledger.ports.Catalogues``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
