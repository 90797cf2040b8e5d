"""Durable subscriptions and what they have parked."""

from __future__ import annotations

from sqlalchemy import Engine


class SqlSubscriptions:
    """Satisfies ``ledger.ports.Subscriptions``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
